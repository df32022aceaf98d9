//! Outputs that are switched for a time.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_orders_hours_is_answered_at_once() {
    let site = site(&[]);
    let on = Deed::Relay { point: PointName::new("do1").unwrap(), on: true, for_ms: Some(86_400_000) };
    let (began, action) = (Instant::now(), site.action("io", on, None));
    let id = action.id.clone();
    let report = site.acting.act(action).await;
    assert_eq!((report.progress, report.detail.as_str()), (Progress::Confirmed, outcome::RELAY_READ_BACK));
    assert!(began.elapsed() < Duration::from_secs(1) && site.reports(&id).is_empty());
    pass(86_401.0).await;
    assert_eq!(site.reports(&id), [("confirmed".to_owned(), outcome::RELAY_PULSED.to_owned())]);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_output_is_on_for_its_time_and_a_later_order_takes_it_over() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let first = site.ask("io", relay(true, Some(600_000)), Severity::Major).await;
    let other = Deed::Relay { point: PointName::new("do2").unwrap(), on: true, for_ms: None };
    let beside = site.ask("io", other, Severity::Major).await;
    pass(10.0).await;
    assert_eq!(site.reports(&beside)[0].1, outcome::RELAY_READ_BACK, "outputs do not wait for each other");
    assert!(site.reports(&first).is_empty());
    let off = site.action("io", relay(false, None), None);
    assert_eq!(site.acting.act(off).await.detail, outcome::RELAY_READ_BACK);
    assert_eq!(site.reports(&first), [("accepted".to_owned(), outcome::TAKEN_OVER.to_owned())]);
    let pulse = site.ask("io", relay(true, Some(2_000)), Severity::Major).await;
    // The first try to switch back fails: it is tried again.
    pass(1.0).await;
    site.outputs.script.lock().unwrap().push_back(Err(WriteError::Busy));
    pass(10.0).await;
    assert_eq!(site.reports(&pulse), [("confirmed".to_owned(), outcome::RELAY_PULSED.to_owned())]);
    assert_eq!(site.writes().last(), Some(&("do1".to_owned(), Value::Bool(false))));
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_comes_to_nothing_takes_nothing_over() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let pulse = || Deed::Unlock { pulse_ms: Some(20_000) };
    for (device, first, then) in
        [("io", relay(true, Some(20_000)), relay(false, None)), ("gate", pulse(), pulse())]
    {
        let siren = site.ask(device, first, Severity::Major).await;
        pass(5.0).await;
        site.outputs.script.lock().unwrap().push_back(Err(WriteError::Busy));
        let off = site.action(device, then, None);
        assert_eq!(site.acting.act(off).await.progress, Progress::Failed);
        assert!(site.reports(&siren).is_empty(), "it runs on");
        pass(10.0).await;
        assert!(site.reports(&siren).is_empty(), "it runs on for its time");
        pass(6.0).await;
        assert_eq!(site.reports(&siren)[0].1, outcome::RELAY_PULSED);
        assert_eq!(site.writes().last().map(|(_, value)| value.clone()), Some(Value::Bool(false)));
    }
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_switched_back_is_switched_back_in_its_time() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let siren = site.ask("io", relay(true, Some(20_000)), Severity::Major).await;
    pass(5.0).await;
    site.outputs.script.lock().unwrap().push_back(Err(WriteError::Unknown(Refusal::LineFailed)));
    let off = site.action("io", relay(false, None), None);
    assert_eq!(site.acting.act(off).await.progress, Progress::Unknown);
    pass(20.0).await;
    assert_eq!(site.writes().len(), 3, "on, off, and off in its time");
    assert_eq!(site.reports(&siren)[0].1, outcome::RELAY_PULSED);
    site.end().await;
}
