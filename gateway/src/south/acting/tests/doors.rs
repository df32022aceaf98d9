//! Doors: released once, and what is known of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lock_is_opened_once_and_says_so_or_nobody_knows() {
    for (script, progress) in
        [(Does::Plays, Progress::Confirmed), (Does::Hangs, Progress::Unknown), (Does::Away, Progress::Failed)]
    {
        let site = site(&[script]);
        let action = site.action("lock", Deed::Unlock { pulse_ms: Some(3_000) }, None);
        let report = site.acting.act(action).await;
        assert_eq!(report.progress, progress, "{script:?}: {report:?}");
        pass(120.0).await;
        assert!(site.said().len() <= 1, "{:?}", site.said());
        site.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_door_at_a_relay_is_pulsed_or_seen_open() {
    for opens in [false, true] {
        let site = site(&[]);
        let action = site.action("gate", Deed::Unlock { pulse_ms: Some(3_000) }, None);
        let id = action.id.clone();
        site.asked_tx.send((action, false)).await.unwrap();
        pass(1.0).await;
        assert_eq!(site.writes(), [("release".to_owned(), Value::Bool(true))]);
        if opens {
            let journal = Overheard::new(Arc::clone(&site.book) as _, Arc::clone(&site.ears));
            let opened = contact_opened(&site.clock.now());
            journal.append(vec![opened], Durability::Synced).await.unwrap();
        }
        pass(10.0).await;
        let on_and_off =
            [("release".to_owned(), Value::Bool(true)), ("release".to_owned(), Value::Bool(false))];
        assert_eq!(site.writes(), on_and_off);
        let expected =
            if opens { ("confirmed", outcome::CONTACT_OPENED) } else { ("accepted", outcome::RELAY_PULSED) };
        assert_eq!(site.reports(&id), [(expected.0.to_owned(), expected.1.to_owned())]);
        site.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_door_that_says_no_is_not_asked_again() {
    let site = site(&[]);
    for (answer, progress) in
        [(Err(WriteError::Exception(4)), Progress::Failed), (Err(WriteError::TooLate), Progress::Expired)]
    {
        site.outputs.script.lock().unwrap().push_back(answer);
        site.outputs.writes.lock().unwrap().clear();
        let action = site.action("gate", Deed::Unlock { pulse_ms: Some(500) }, None);
        assert_eq!(site.acting.act(action).await.progress, progress);
        pass(60.0).await;
        assert_eq!(site.writes().len(), 1);
    }
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_and_what_is_too_late_is_said_so() {
    let site = site(&[]);
    let nobody = site.action("nobody", words("a"), None);
    assert_eq!(site.acting.act(nobody).await.progress, Progress::Failed);
    let not_a_speaker = site.action("lock", words("a"), None);
    assert_eq!(site.acting.act(not_a_speaker).await.progress, Progress::Failed);
    let late = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    site.clock.advance_ms(31_000);
    assert_eq!(site.acting.act(late).await.progress, Progress::Expired);
    assert!(site.writes().is_empty());
    site.end().await;
}
