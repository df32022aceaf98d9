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

#[tokio::test(start_paused = true)]
async fn a_lane_that_dies_leaves_nothing_switched_on() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let siren = site.ask("io", relay(true, Some(600_000)), Severity::Major).await;
    let gate = site.ask("gate", Deed::Unlock { pulse_ms: Some(3_000) }, Severity::Major).await;
    pass(1.0).await;
    site.outputs.panics.store(1, Ordering::Relaxed);
    site.ask("io", relay(true, None), Severity::Major).await;
    pass(1.0).await;
    assert_eq!(site.writes().last(), Some(&("do1".to_owned(), Value::Bool(false))));
    assert_eq!(site.reports(&siren)[0].0, "unknown");
    // The door's own lane dies when it is to be locked again.
    site.outputs.panics.store(1, Ordering::Relaxed);
    pass(10.0).await;
    assert_eq!(site.writes().last(), Some(&("release".to_owned(), Value::Bool(false))));
    assert_eq!(site.reports(&gate)[0].0, "unknown");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn words_and_a_hold_outlive_their_lane_unless_they_kill_it() {
    let site = site(&[Does::Panics, Does::Plays]);
    let id = site.ask("horn", words("三栋着火"), Severity::Critical).await;
    pass(1.0).await;
    assert_eq!((site.said().len(), site.reports(&id)[0].0.as_str()), (1, "confirmed"));
    site.outputs.panics.store(1, Ordering::Relaxed);
    let hold = site.ask("gate", Deed::Unlock { pulse_ms: None }, Severity::Critical).await;
    pass(10.0).await;
    assert_eq!(site.writes(), [("release".to_owned(), Value::Bool(true))]);
    assert_eq!(site.reports(&hold)[0].0, "accepted");
    *site.devices.script.lock().unwrap() = [Does::Panics].into();
    let deadly = site.ask("horn", words("甲"), Severity::Critical).await;
    pass(1.0).await;
    *site.devices.script.lock().unwrap() = [Does::Plays].into();
    let next = site.ask("horn", words("乙"), Severity::Critical).await;
    pass(1.0).await;
    assert_eq!((site.reports(&deadly).len(), site.reports(&next).len()), (0, 1));
    assert_eq!(site.said().last().unwrap(), "乙");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_door_left_open_by_a_dead_line_is_locked_when_the_line_is_back() {
    for resumed in [false, true] {
        let site = site(&[]);
        let gate = site.action("gate", Deed::Unlock { pulse_ms: Some(3_000) }, Some(Severity::Major));
        let id = gate.id.clone();
        let dead = || site.outputs.script.lock().unwrap().extend(vec![Err(WriteError::Busy); 12]);
        if resumed {
            dead();
        }
        site.asked_tx.send((gate, resumed)).await.unwrap();
        pass(1.0).await;
        if !resumed {
            dead();
        }
        pass(60.0).await;
        let told = site.reports(&id);
        assert!(
            told.iter().all(|(progress, why)| progress == "retrying" && why.starts_with(outcome::LEFT_ON))
        );
        assert!(!told.is_empty() && told.len() < 8, "{told:?}");
        // A person's order does not wait behind it.
        let opened = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
        assert_eq!(site.acting.act(opened).await.progress, Progress::Failed);
        pass(3_600.0).await;
        assert_eq!(site.writes().last(), Some(&("release".to_owned(), Value::Bool(false))));
        let end = if resumed { "unknown" } else { "accepted" };
        assert_eq!(site.reports(&id).last().unwrap().0, end);
        assert_eq!(site.writes().len(), 13 + usize::from(!resumed), "{:?}", site.writes());
        site.end().await;
    }
}
