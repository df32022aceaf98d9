//! A lane, the process or the box ends in the middle: nothing is done twice, nothing is left switched on.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_mistake_costs_one_order() {
    let site = site(&[Does::Panics, Does::Plays]);
    let pulse = || Deed::Unlock { pulse_ms: Some(3_000) };
    let first = site.action("lock", pulse(), None);
    assert_eq!(site.acting.act(first).await.progress, Progress::Unknown);
    let second = site.action("lock", pulse(), None);
    assert_eq!(site.acting.act(second).await.progress, Progress::Confirmed);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_before_a_restart_is_not_done_again_and_brought_to_rest() {
    let site = site(&[Does::Plays]);
    let do1 = || PointName::new("do1").unwrap();
    for (device, deed, progress, writes, posts) in [
        ("gate", Deed::Unlock { pulse_ms: Some(3_000) }, "unknown", vec![Value::Bool(false)], 0),
        // Held twice is no worse than held once, and shut in a fire is.
        ("gate", Deed::Unlock { pulse_ms: None }, "accepted", vec![Value::Bool(true)], 0),
        ("gate", Deed::Unlock { pulse_ms: Some(3_000) }, "unknown", vec![], 0),
        ("lock", Deed::Unlock { pulse_ms: Some(3_000) }, "unknown", vec![], 0),
        (
            "io",
            Deed::Relay { point: do1(), on: true, for_ms: Some(5_000) },
            "unknown",
            vec![Value::Bool(false)],
            0,
        ),
        ("io", Deed::Relay { point: do1(), on: true, for_ms: None }, "unknown", vec![], 0),
        ("horn", words("还在说"), "confirmed", vec![], 1),
    ] {
        site.outputs.writes.lock().unwrap().clear();
        site.devices.posts.lock().unwrap().clear();
        let action = site.action(device, deed.clone(), Some(Severity::Critical));
        let id = action.id.clone();
        site.asked_tx.send((action, true)).await.unwrap();
        pass(20.0).await;
        assert_eq!(site.reports(&id).last().unwrap().0, progress, "{deed:?}");
        let written: Vec<Value> = site.writes().into_iter().map(|(_, value)| value).collect();
        assert_eq!((written, site.said().len()), (writes, posts), "{deed:?}");
    }
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_switched_on_when_the_box_stops() {
    for failure in [None, Some(WriteError::Busy)] {
        let mut site = site(&[]);
        let io = Deed::Relay { point: PointName::new("do1").unwrap(), on: true, for_ms: Some(600_000) };
        let ids = [
            site.ask("io", io, Severity::Major).await,
            site.ask("gate", Deed::Unlock { pulse_ms: Some(3_000) }, Severity::Major).await,
        ];
        pass(1.0).await;
        site.outputs.writes.lock().unwrap().clear();
        let fails = failure.clone().map(Err);
        site.outputs.script.lock().unwrap().extend([fails.clone(), fails].into_iter().flatten());
        site.cancel.cancel();
        (&mut site.running).await.unwrap();
        let mut writes = site.writes();
        writes.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            writes,
            [("do1".to_owned(), Value::Bool(false)), ("release".to_owned(), Value::Bool(false))]
        );
        // What could not be switched back is under way for the next start.
        for id in ids {
            assert_eq!(site.reports(&id).len(), usize::from(failure.is_none()), "{failure:?}");
        }
    }
}
