//! Speakers: one thing at a time, the gravest first, tried again until its time is over.

use super::*;
use crate::model::action::Until;
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::roll::Listed;

#[tokio::test(start_paused = true)]
async fn words_are_played_once_and_told() {
    let site = site(&[Does::Plays]);
    let id = site.ask("horn", words("三栋一单元紧急求助"), Severity::Critical).await;
    pass(0.1).await;
    let posts = site.devices.posts.lock().unwrap().clone();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].1, "horns/h1/say");
    assert_eq!(posts[0].2["volume"], 50);
    assert_eq!(posts[0].2["repeat"], 2);
    assert_eq!(site.reports(&id), [("confirmed".to_owned(), outcome::DONE.to_owned())]);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_the_gravest_first_and_what_is_late_is_not_said() {
    // It does not tell when it has played: so it is taken to be busy as long as the words take.
    let site = site(&[Does::Plays]);
    let ids = [
        site.ask("loud", words("一二三四五六七八"), Severity::Major).await,
        site.ask("loud", words("次要"), Severity::Minor).await,
        site.ask("loud", words("同样重要"), Severity::Major).await,
    ];
    pass(0.1).await;
    assert_eq!(site.said(), ["一二三四五六七八"]);
    // 8 characters, twice, 250 ms each.
    pass(4.0).await;
    assert_eq!(site.said(), ["一二三四五六七八", "同样重要"]);
    pass(2.1).await;
    assert_eq!(site.said().len(), 3);
    for id in &ids {
        assert_eq!(site.reports(id), [("accepted".to_owned(), outcome::SENT.to_owned())]);
    }
    // 160 characters take 80 s: what is good for 30 s has expired by then.
    let long = site.ask("loud", words(&"长".repeat(160)), Severity::Major).await;
    let late = site.ask("loud", words("迟到"), Severity::Major).await;
    pass(100.0).await;
    assert_eq!(site.reports(&long)[0].0, "accepted");
    assert_eq!(site.reports(&late)[0].0, "expired");
    assert!(!site.said().contains(&"迟到".to_owned()));
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_graver_alarm_takes_the_speaker() {
    let site = site(&[Does::Hangs]);
    let light = site.ask("horn", words("车辆违停"), Severity::Minor).await;
    pass(1.0).await;
    *site.devices.script.lock().unwrap() = [Does::Plays].into();
    let grave = site.ask("horn", words("三栋着火"), Severity::Critical).await;
    pass(0.1).await;
    assert_eq!(site.said(), ["车辆违停", r#"{"stop":true}"#, "三栋着火"]);
    assert_eq!(site.reports(&light)[0].0, "preempted");
    assert_eq!(site.reports(&grave)[0].0, "confirmed");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_speaker_that_never_answers_is_given_up_when_its_time_is_over() {
    let site = site(&[Does::Hangs]);
    let began = Instant::now();
    let id = site.ask("horn", words("紧急"), Severity::Critical).await;
    pass(120.0).await;
    let reports = site.reports(&id);
    let (last, tries) = reports.split_last().unwrap();
    assert!(last.0 == "failed" && last.1.contains("given up"), "{reports:?}");
    assert!(tries.len() >= 2 && tries.iter().all(|report| report.0 == "retrying"), "{reports:?}");
    let posts = site.devices.posts.lock().unwrap().clone();
    assert_eq!(posts.len(), reports.len());
    assert!(posts.iter().all(|(at, ..)| *at - began < Duration::from_secs(31)));
    let mut names: Vec<&str> = posts.iter().map(|(_, _, order)| order["id"].as_str().unwrap()).collect();
    names.dedup();
    assert_eq!(names.len(), posts.len(), "each attempt has a name of its own");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again() {
    let site = site(&[Does::Away, Does::Refuses, Does::Plays]);
    let id = site.ask("horn", words("紧急"), Severity::Critical).await;
    pass(25.0).await;
    let reports = site.reports(&id);
    let progress: Vec<&str> = reports.iter().map(|report| report.0.as_str()).collect();
    assert_eq!(progress, ["retrying", "retrying", "confirmed"]);
    assert!(reports[0].1.contains("not connected") && reports[1].1.contains("no amplifier"), "{reports:?}");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_order_is_none() {
    let site = site(&[Does::Hangs]);
    let id = site.ask("horn", words("紧急"), Severity::Critical).await;
    pass(0.1).await;
    for other in [r#"{"id":"x","state":"played"}"#, r#"{"state":"played"}"#, "played", r#"{"id":1}"#] {
        site.devices.answers.heard("horns/h1/said", other.as_bytes());
    }
    pass(0.1).await;
    assert!(site.reports(&id).is_empty());
    let name = site.devices.posts.lock().unwrap()[0].2["id"].clone();
    let right = serde_json::json!({"id": name, "state": "played"}).to_string();
    site.devices.answers.heard("horns/h1/said", right.as_bytes());
    pass(0.1).await;
    assert_eq!(site.reports(&id)[0].0, "confirmed");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn told_to_be_silent_a_speaker_drops_what_waits() {
    let site = site(&[Does::Hangs]);
    let first = site.ask("horn", words("一"), Severity::Major).await;
    let second = site.ask("horn", words("二"), Severity::Major).await;
    pass(0.1).await;
    let hush = site.action("horn", Deed::Hush, None);
    let report = site.acting.act(hush).await;
    assert_eq!(report.progress, Progress::Accepted);
    assert_eq!(
        (site.reports(&first)[0].0.as_str(), site.reports(&second)[0].0.as_str()),
        ("preempted", "preempted")
    );
    assert_eq!(site.said().last().unwrap(), r#"{"stop":true}"#);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_words_costs_the_lightest() {
    let site = site(&[Does::Hangs]);
    site.ask("horn", words("先"), Severity::Critical).await;
    pass(0.1).await;
    let mut light = Vec::new();
    for _ in 0..LANE_JOBS_MAX {
        light.push(site.ask("horn", words("轻"), Severity::Minor).await);
        pass(0.01).await;
    }
    let grave = site.ask("horn", words("重"), Severity::Critical).await;
    pass(0.1).await;
    assert!(site.reports(&grave).is_empty(), "the grave one waits");
    let dropped = light.iter().filter(|id| !site.reports(id).is_empty()).count();
    assert_eq!(dropped, 1);
    site.end().await;
}

fn listed(site: &Site, state: AlarmState) -> Listed {
    let draft = contact_opened(&site.clock.now());
    let Body::Event(raised) = draft.body else { panic!("no event") };
    let alarm = Alarm::new("e-1-r".to_owned(), state, *raised);
    Listed { seq: 1, test: false, at: draft.at, alarm }
}

/// Words of 2 s, five times, about the alarm that [`listed`] makes.
async fn ask_until_acknowledged(site: &Site, device: &str) -> String {
    let deed = Deed::Speak {
        text: Some("三栋一单元求助！".to_owned()),
        clip: None,
        volume: 50,
        repeat: 5,
        until: Some(Until::Acknowledged),
    };
    let alarm = Some("e-1-r".to_owned());
    let action = Action { alarm, ..site.action(device, deed, Some(Severity::Critical)) };
    let id = action.id.clone();
    site.asked_tx.send((action, false)).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_ends_repeats_where_the_rule_says_so() {
    let site = site(&[Does::Plays]);
    site.roll.put(listed(&site, AlarmState::Unacknowledged));
    let id = ask_until_acknowledged(&site, "loud").await;
    pass(3.0).await;
    assert_eq!((site.said().len(), site.reports(&id).len()), (2, 0));
    site.roll.put(listed(&site, AlarmState::Acknowledged));
    pass(1.5).await;
    assert_eq!((site.said().len(), site.reports(&id)[0].0.as_str()), (2, "accepted"));
    let plain = site.ask("loud", words("其他"), Severity::Minor).await;
    pass(0.1).await;
    assert_eq!((site.said().len(), site.reports(&plain).len()), (3, 1), "the speaker is free at once");
    pass(2.0).await;
    // Before a word was said.
    let id = ask_until_acknowledged(&site, "loud").await;
    pass(1.0).await;
    assert_eq!((site.said().len(), site.reports(&id)[0].0.as_str()), (3, "preempted"));
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_acknowledgement_all_is_said_and_what_is_over_once() {
    let site = site(&[Does::Plays]);
    site.roll.put(listed(&site, AlarmState::ReturnedUnacknowledged));
    let id = ask_until_acknowledged(&site, "horn").await;
    pass(20.0).await;
    assert_eq!((site.said().len(), site.reports(&id).len()), (5, 1));
    let mut ids: Vec<_> =
        site.devices.posts.lock().unwrap().iter().map(|(_, _, order)| order["id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each order has a name of its own: {ids:?}");
    site.roll.put(listed(&site, AlarmState::Normal));
    ask_until_acknowledged(&site, "horn").await;
    pass(20.0).await;
    assert_eq!(site.said().len(), 6);
    site.end().await;
}
