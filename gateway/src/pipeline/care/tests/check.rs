//! What is wrong with a section is found, all of it.

use super::super::{Around, problems};
use super::*;
use crate::model::check::Weight;
use crate::model::record::Severity;
use crate::pipeline::rule::{Catalogue, Rules};

fn found(household: &Household) -> Vec<String> {
    let directory = directory();
    let exists = |id: &DeviceId| directory.devices.contains_key(id);
    let name = CareName::new("b3-302").unwrap();
    let severity = |id: &DeviceId, event: &str| {
        (id.as_str() == "key").then_some(Severity::Critical).filter(|_| event.contains("pressed"))
    };
    let (rules, _) = Rules::compile(&[], &[], &directory, &Catalogue::default());
    let around = Around { directory: &directory, exists: &exists, severity: &severity, rules: &rules };
    let found = problems(&name, household, around);
    found
        .into_iter()
        .map(|problem| {
            let weight = if problem.weight == Weight::Error { "" } else { "warning: " };
            format!("{weight}{}: {}", problem.path.join("."), problem.message)
        })
        .collect()
}

#[test]
fn every_mistake_of_a_section_is_found() {
    assert_eq!(found(&household("")), [""; 0]);
    let wrong: Household = toml::from_str(
        r#"
        window_h = 1
        signals = [
            { device = "door", event = "contact.slammed" },
            { device = "meter", point = "volume" },
            { device = "motion", point = "occupancy", event = "x", equals = true },
            { device = "key", event = "button.pressed" },
            { device = "nobody", event = "x" },
            { device = "meter", point = "volume", grows_by = -1.0 },
        ]
        leak = { device = "door", point = "volume" }
        night = { from = "23:00", to = "05:00" }
        ask = [
            { unlock = { pulse_ms = 3000 }, on = { devices = ["door"] } },
            { publish = { topic = "{base}/x", payload = "1" }, on = { devices = ["meter"] } },
        ]
        away = { leave = { device = "key", event = "button.held" }, back = { device = "key", event = "button.pressed" } }
    "#,
    )
    .unwrap();
    let expected = [
        "care.b3-302: [care.b3-302] has no consent",
        "care.b3-302.signals.0.event: the device has no event \"contact.slammed\"",
        "care.b3-302.window_h: a window of 1 h is shorter than twice the 3600 s",
        "care.b3-302.signals.1: nothing says when this value is a sign",
        "care.b3-302.signals.2: a signal is either an `event` or a `point`",
        "care.b3-302.signals.2: `equals`, `grows_by`",
        "care.b3-302.window_h: a window of 1 h is shorter",
        "care.b3-302.signals.3.device: key has no heartbeat",
        "care.b3-302.signals.4.device: there is no device \"nobody\"",
        "care.b3-302.signals.5.grows_by: `grows_by` must be more than 0",
        "care.b3-302.leak.point: the device has no point",
        "care.b3-302.leak.device: door does not report in every half hour",
        "care.b3-302.night: nothing says which door",
        "care.b3-302.away.leave.event: the device has no event",
        "care.b3-302.away.back.event: \"button.pressed\" of key is critical",
        "care.b3-302.ask.0.on.devices: ",
        "care.b3-302.ask.0: a question is spoken or published",
        "care.b3-302.ask.1.on: meter would answer the question by itself",
    ];
    let found = found(&wrong);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} is not {expected:?}");
    }
}
