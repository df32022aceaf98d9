//! Fire holds a door open until a person resets it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_door_held_for_fire_is_not_locked_by_a_pulse() {
    let site = site(&[]);
    let release = |value| ("release".to_owned(), Value::Bool(value));
    site.ask("gate", Deed::Unlock { pulse_ms: None }, Severity::Critical).await;
    pass(6.0).await;
    let pulse = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    assert_eq!(site.acting.act(pulse).await.progress, Progress::Accepted);
    assert_eq!(site.writes(), [release(true), release(true)]);
    let lock = site.action("gate", Deed::Lock, None);
    assert_eq!(site.acting.act(lock).await.progress, Progress::Confirmed);
    assert_eq!(site.writes().last(), Some(&release(false)));
    site.end().await;
}

const HOLD: Deed = Deed::Unlock { pulse_ms: None };

#[tokio::test(start_paused = true)]
async fn fire_holds_a_door_as_soon_as_it_can_be_reached() {
    let site = site(&[]);
    let release = |value| ("release".to_owned(), Value::Bool(value));
    let no = Refusal::LineFailed;
    site.outputs.script.lock().unwrap().extend([
        Err(WriteError::TooLate),
        Err(WriteError::TooLate),
        Err(WriteError::Exception(4)),
        Err(WriteError::Unknown(no)),
    ]);
    let id = site.ask("gate", HOLD, Severity::Critical).await;
    pass(29.0).await;
    assert_eq!(site.writes(), vec![release(true); 5]);
    let progress: Vec<String> = site.reports(&id).into_iter().map(|report| report.0).collect();
    assert_eq!(progress, ["retrying", "retrying", "retrying", "accepted"], "the same is not told again");
    assert!(site.held.has(&DeviceId::new("gate").unwrap()));
    // One that can never be reached is given up when its time is over.
    site.outputs.script.lock().unwrap().extend(vec![Err(WriteError::TooLate); 100]);
    let never = site.ask("gate", HOLD, Severity::Critical).await;
    pass(40.0).await;
    let last = site.reports(&never).pop().unwrap();
    assert!(last.0 == "failed" && last.1.contains("given up"), "{last:?}");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_ends_what_fire_tries() {
    let site = site(&[]);
    site.outputs.script.lock().unwrap().extend(vec![Err(WriteError::TooLate); 2]);
    let id = site.ask("gate", HOLD, Severity::Critical).await;
    pass(0.1).await;
    let lock = site.action("gate", Deed::Lock, None);
    site.acting.act(lock).await;
    pass(60.0).await;
    assert_eq!(site.reports(&id).last().unwrap().0, "preempted");
    assert_eq!(site.writes().last(), Some(&("release".to_owned(), Value::Bool(false))));
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_locks_no_door_that_fire_holds() {
    let site = site(&[]);
    let release = |value| ("release".to_owned(), Value::Bool(value));
    site.held.put(&DeviceId::new("gate").unwrap(), true);
    let pulse = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    assert_eq!(site.acting.act(pulse).await.progress, Progress::Accepted);
    assert_eq!(site.writes(), [release(true)]);
    let lock = site.action("gate", Deed::Lock, None);
    site.acting.act(lock).await;
    let pulse = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    site.acting.act(pulse).await;
    assert_eq!(site.writes()[1..], [release(false), release(true), release(false)]);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn fire_does_not_wait_behind_a_lock_that_does_not_answer() {
    let site = site(&[Does::Hangs, Does::Plays]);
    let pulse = site.ask("lock", Deed::Unlock { pulse_ms: Some(3_000) }, Severity::Major).await;
    pass(1.0).await;
    let hold = site.ask("lock", HOLD, Severity::Critical).await;
    pass(0.1).await;
    assert_eq!(site.reports(&pulse)[0].0, "unknown");
    assert_eq!(site.reports(&hold)[0].0, "confirmed");
    site.end().await;
}
