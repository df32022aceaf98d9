//! What the link tells of open alarms, and of a platform that was away.

use super::super::{Came, History, OFFLINE_AFTER_MS};
use super::*;
use crate::model::record::{Alarm, AlarmState, Severity, Text, Value};
use crate::model::roll::Listed;

/// An open alarm on the roll.
fn listed(name: &str, uplink: &UplinkName, seq: u64) -> Listed {
    let at = machine_clock().now();
    let params = BTreeMap::from([("uplink".to_owned(), Value::Text(uplink.as_str().into()))]);
    let draft = Draft::of_gateway(&at, None, (name, Some(Severity::Major)), params, Text::default());
    let Body::Event(raised) = draft.body else { panic!("no event") };
    let state = AlarmState::Unacknowledged;
    let mut alarm = Alarm::new(format!("e-{seq}-uplink-offline"), state, *raised);
    (alarm.active, alarm.count) = (true, 1);
    Listed { seq, test: false, at, alarm }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_learns_of_open_alarms_and_that_it_was_told_as_gone() {
    let mut bench = Bench::start(Script::default(), quick(), 0).await;
    let cancel = std::mem::take(&mut bench.cancel);
    cancel.cancel();
    while bench.link.join_next().await.is_some() {}
    // An earlier process has told it, and an alarm stands.
    bench.parts.roll.put(listed("uplink.offline", &bench.uplink, 7));
    bench.begin();
    let page = loop {
        let page = bench.broker.next_on("up/snapshot").await;
        if page.json["data"]["alarms"][0].is_object() {
            break page.json;
        }
    };
    let open = &page["data"]["alarms"][0];
    assert_eq!(open["name"], "uplink.offline");
    assert_eq!((&open["sequence"], &open["active"]), (&"0000000000000007".into(), &true.into()));
    bench.press(1).await;
    bench.event_comes("uplink.online").await;
    bench.stop().await;
}

#[test]
fn an_outage_is_long_after_a_minute() {
    let mut history = History::new(1_000);
    let lost = LinkError::Lost("cut".to_owned());
    history.note(&lost, Came::Never, 60_999);
    assert!(history.down_ms(60_999) < OFFLINE_AFTER_MS);
    assert!(history.down_ms(61_000) >= OFFLINE_AFTER_MS);
    history.note(&lost, Came::Served, 61_000);
    assert!(history.down_ms(61_000) < OFFLINE_AFTER_MS, "it counts from the last connection that served");
}
