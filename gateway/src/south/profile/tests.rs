//! Presses, edges, broken fields and hostile bytes, on the profiles as shipped.

use proptest::prelude::*;

use super::*;
use crate::model::check::Weight;
use crate::model::ids::{BootId, DeviceId};
use crate::model::place::Place;
use crate::model::record::{Body, DeviceRef, Quality, QualityReason};
use crate::model::refusal::Refusal;
use crate::model::stamp::{ClockTrust, Stamp};

/// A device whose messages are mapped one after the other, all of them committed.
struct Device {
    profile: Profile,
    subject: Subject,
    state: DeviceState,
    now_ms: u64,
}

impl Device {
    fn new(profile: Profile) -> Self {
        let device = DeviceRef {
            id: DeviceId::new("dev").unwrap(),
            kind: profile.kind.clone(),
            profile: None,
            bus: None,
        };
        let subject = Subject { device, place: Place::default(), test: false };
        Self { profile, subject, state: DeviceState::default(), now_ms: 1_000 }
    }

    fn shipped(name: &str) -> Self {
        Self::new(shipped_profiles().unwrap().remove(name).unwrap())
    }

    fn map(&self, channel: Channel, origin: Origin, payload: &[u8]) -> Result<Mapped, Refusal> {
        let at =
            Stamp { boot: BootId("b".into()), mono_ms: self.now_ms, wall_ms: 0, trust: ClockTrust::None };
        map(&self.profile, &self.subject, &self.state, Input { channel, origin, payload, at: &at })
    }

    /// Names of the events that a message makes, after which it is committed.
    fn say(&mut self, payload: &str) -> Vec<String> {
        self.hear(Channel::Message, Origin::Live, payload)
    }

    fn hear(&mut self, channel: Channel, origin: Origin, payload: &str) -> Vec<String> {
        let mapped = self.map(channel, origin, payload.as_bytes()).unwrap();
        self.state = mapped.state;
        mapped
            .drafts
            .iter()
            .filter_map(|draft| match &draft.body {
                Body::Event(event) => Some(event.name.clone()),
                _ => None,
            })
            .collect()
    }
}

fn refusals(mapped: &Mapped) -> Vec<(Refusal, &str)> {
    mapped.refusals.iter().map(|refusal| (refusal.reason, refusal.pointer.as_str())).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn every_shipped_profile_is_without_mistakes() {
    let profiles = shipped_profiles().unwrap();
    assert_eq!(profiles.len(), shipped().len());
    for (name, profile) in profiles {
        assert_eq!(profile.problems(), [], "{name}");
    }
    let on_disk =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/profiles")).unwrap().count();
    assert_eq!(on_disk, shipped().len(), "a file in config/profiles is not shipped");
}

#[test]
fn sos_is_a_press_when_it_turns_true() {
    let mut button = Device::shipped("z2m-button-sos");
    assert_eq!(button.say(r#"{"sos":false,"linkquality":90}"#), NOTHING);
    assert_eq!(button.say(r#"{"sos":true,"linkquality":90}"#), ["button.pressed"]);
    button.now_ms += 5_000;
    assert_eq!(button.say(r#"{"sos":true,"linkquality":70}"#), NOTHING, "only the link quality changed");
    assert_eq!(button.say(r#"{"linkquality":71}"#), NOTHING);
    assert_eq!(button.say(r#"{"sos":null}"#), NOTHING, "null says nothing");
    assert_eq!(button.say(r#"{"sos":false}"#), NOTHING);
    assert_eq!(button.say(r#"{"sos":true}"#), ["button.pressed"]);
}

#[test]
fn a_button_that_never_says_false_is_armed_again_after_its_time() {
    let mut button = Device::shipped("z2m-button-sos");
    assert_eq!(button.say(r#"{"sos":true}"#), ["button.pressed"]);
    for _ in 0..5 {
        button.now_ms += 5_000;
        assert_eq!(button.say(r#"{"sos":true}"#), NOTHING);
    }
    // Repetitions do not push the time away: it counts from the event.
    button.now_ms += 5_000;
    assert_eq!(button.say(r#"{"sos":true}"#), ["button.pressed"]);
}

#[test]
fn after_a_start_a_press_counts_and_an_open_door_does_not() {
    assert_eq!(Device::shipped("z2m-button-sos").say(r#"{"sos":true}"#), ["button.pressed"]);
    assert_eq!(Device::shipped("z2m-smoke").say(r#"{"smoke":true}"#), ["smoke.detected"]);
    assert_eq!(Device::shipped("z2m-smoke").say(r#"{"smoke":false}"#), NOTHING, "nothing was there to clear");
    let mut door = Device::shipped("z2m-contact");
    assert_eq!(door.say(r#"{"contact":false}"#), NOTHING);
    assert_eq!(door.say(r#"{"contact":true}"#), ["contact.closed"]);
    assert_eq!(door.say(r#"{"contact":false}"#), ["contact.opened"]);
}

#[test]
fn a_commit_that_failed_leaves_the_press_new() {
    let button = Device::shipped("z2m-button-sos");
    for _ in 0..2 {
        let mapped = button.map(Channel::Message, Origin::Live, br#"{"sos":true}"#).unwrap();
        assert_eq!(mapped.drafts.len(), 1, "the state was changed before the commit");
    }
}

#[test]
fn every_live_action_is_a_press_and_resets_are_none() {
    let mut button = Device::shipped("z2m-button-action");
    for _ in 0..3 {
        assert_eq!(button.say(r#"{"action":"emergency","battery":100}"#), ["button.pressed"]);
    }
    for reset in [r#"{"action":""}"#, r#"{"action":null}"#, r#"{"action":"None"}"#, r#"{"battery":99}"#] {
        assert_eq!(button.say(reset), NOTHING, "{reset}");
    }
    assert_eq!(button.say(r#"{"action":"disarm"}"#), NOTHING);
}

#[test]
fn what_a_broker_had_kept_is_state_and_no_press() {
    for (name, payload) in
        [("z2m-button-action", r#"{"action":"sos"}"#), ("z2m-button-sos", r#"{"sos":true}"#)]
    {
        let mut button = Device::shipped(name);
        let mapped = button.map(Channel::Message, Origin::Kept, payload.as_bytes()).unwrap();
        assert_eq!(mapped.drafts, []);
        assert_eq!(mapped.refusals[0].reason, Refusal::RetainedDelivery);
        // What the broker had queued may be the very press that it has kept as well.
        assert_eq!(button.hear(Channel::Message, Origin::Kept, payload), NOTHING);
        assert_eq!(button.say(payload), ["button.pressed"]);
    }
    // Of what was a state before, the kept state is known afterwards: the same value again is no change.
    let mut door = Device::shipped("z2m-contact");
    assert_eq!(door.hear(Channel::Message, Origin::Kept, r#"{"contact":false}"#), NOTHING);
    assert_eq!(door.say(r#"{"contact":false}"#), NOTHING);
    assert_eq!(door.say(r#"{"contact":true}"#), ["contact.closed"]);
}

#[test]
fn kept_values_are_uncertain_since_nobody_knows_their_age() {
    let button = Device::shipped("z2m-button-sos");
    let mapped = button.map(Channel::Message, Origin::Kept, br#"{"battery":40}"#).unwrap();
    let Body::Telemetry(telemetry) = &mapped.drafts[0].body else { panic!("no values: {mapped:?}") };
    let sample = &telemetry.samples[0];
    assert_eq!((sample.quality, sample.reason), (Quality::Uncertain, Some(QualityReason::Kept)));
    assert_eq!(sample.value, Some(Value::Float(40.0)));
}

#[test]
fn a_broken_field_does_not_lose_the_press_beside_it() {
    let button = Device::shipped("z2m-button-sos");
    let payload = br#"{"battery":"full","voltage":1e999,"linkquality":300,"tamper":"no","sos":true}"#;
    let mapped = button.map(Channel::Message, Origin::Live, payload).unwrap();
    assert_eq!(mapped.drafts.len(), 1);
    let expected = [
        (Refusal::NotFinite, ""),
        (Refusal::WrongType, "/tamper"),
        (Refusal::WrongType, "/battery"),
        (Refusal::OutOfRange, "/linkquality"),
    ];
    assert_eq!(refusals(&mapped), expected);
}

#[test]
fn values_have_type_scale_and_unit() {
    let button = Device::shipped("z2m-button-sos");
    let payload = br#"{"battery":85,"voltage":3000,"linkquality":96.0}"#;
    let mapped = button.map(Channel::Message, Origin::Live, payload).unwrap();
    let Body::Telemetry(telemetry) = &mapped.drafts[0].body else { panic!("no values: {mapped:?}") };
    let values: Vec<_> = telemetry
        .samples
        .iter()
        .map(|s| (s.point.as_str(), s.value.clone().unwrap(), s.unit.as_deref()))
        .collect();
    let expected = [
        ("battery", Value::Float(85.0), Some("%")),
        ("linkquality", Value::Int(96), None),
        ("voltage", Value::Float(3.0), Some("V")),
    ];
    assert_eq!(values, expected);
}

#[test]
fn availability_speaks_json_and_bare_words() {
    let lock = Device::shipped("z2m-lock");
    let said = |payload: &str| lock.map(Channel::Availability, Origin::Live, payload.as_bytes());
    for (payload, reachable) in [
        (r#"{"state":"online"}"#, Some(true)),
        ("online", Some(true)),
        (r#"{"state":"offline"}"#, Some(false)),
        ("offline", Some(false)),
        ("", None),
    ] {
        let mapped = said(payload).unwrap();
        assert_eq!((mapped.reachable, mapped.drafts.len()), (reachable, 0), "{payload}");
    }
    assert_eq!(said("perhaps"), Err(Refusal::OutOfRange));
}

#[test]
fn a_lock_tells_the_user_slot() {
    let lock = Device::shipped("z2m-lock");
    let payload = br#"{"action":"unlock","action_user":3,"action_source_name":"rfid","state":"UNLOCK"}"#;
    let mapped = lock.map(Channel::Message, Origin::Live, payload).unwrap();
    let Body::Event(event) = &mapped.drafts[0].body else { panic!("no event: {mapped:?}") };
    assert_eq!(event.name, "lock.unlocked");
    assert_eq!(event.params["user"], Value::Int(3));
    assert_eq!(event.params["action"], Value::Text("unlock".into()));
}

#[test]
fn a_repeated_key_marks_the_drafts() {
    let text = r#"
        kind = "button"
        title = { zh = "按钮", en = "button" }
        [mqtt]
        topic = "{base}/{address}"
        dedup = "/id"
        [points.battery]
        pointer = "/battery"
        type = "integer"
        [events."button.pressed"]
        pointer = "/press"
        equals = 1
        trigger = "pulse"
        category = "emergency"
        severity = "critical"
    "#;
    let button = Device::new(toml::from_str(text).unwrap());
    let mapped = button.map(Channel::Message, Origin::Live, br#"{"id":17,"press":1,"battery":3}"#).unwrap();
    let keys: Vec<_> = mapped.drafts.iter().map(|draft| draft.dedup.as_deref()).collect();
    assert_eq!(keys, [Some("button.pressed:17"), Some("values:17")]);
}

#[test]
fn mistakes_in_a_profile_are_all_named() {
    let text = r#"
        kind = "Big Button"
        title = { zh = "", en = "button" }
        [mqtt]
        topic = "buttons/+"
        [mqtt.availability]
        topic = "{base}/x"
        online = "yes"
        offline = "yes"
        [points.battery]
        pointer = "battery.level"
        type = "bool"
        scale = 2.0
        min = 3
        [events.pressed]
        pointer = "/press"
        trigger = "edge"
        clears = "nothing.known"
        category = "emergency"
        [events."a.b"]
        pointer = "/press"
        equals = 1
        one_of = [1]
        trigger = "pulse"
        rearm_s = 3
        category = "emergency"
        [events."a.c"]
        pointer = "/press"
        one_of = [1, "x"]
        trigger = "pulse"
        category = "emergency"
    "#;
    let profile: Profile = toml::from_str(text).unwrap();
    let problems = profile.problems();
    assert!(problems.iter().all(|problem| problem.weight == Weight::Error));
    let paths: Vec<String> = problems.iter().map(|problem| problem.path.join("/")).collect();
    let expected = [
        "kind",
        "title/zh",
        "mqtt/topic",
        "mqtt/topic",
        "mqtt/availability",
        "points/battery/pointer",
        "points/battery/scale",
        "points/battery/min",
        "events/a.b",
        "events/a.b/rearm_s",
        "events/a.c/one_of",
        "events/pressed",
        "events/pressed",
        "events/pressed/clears",
    ];
    assert_eq!(paths, expected);
    assert!(
        toml::from_str::<Profile>(&text.replace("rearm_s", "rearm")).is_err(),
        "an unknown key was taken"
    );
}

/// What the real converters made of real zone states: tests/z2m/payloads.jsonl, made by tests/z2m/make-payloads.mjs.
#[test]
fn the_shipped_profiles_fit_what_zigbee2mqtt_really_publishes() {
    #[derive(Deserialize)]
    struct Line {
        profile: String,
        model: String,
        what: String,
        payloads: Vec<serde_json::Value>,
        events: Vec<String>,
    }
    let text = include_str!("../../../../tests/z2m/payloads.jsonl");
    let mut checked = std::collections::BTreeSet::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        let mut device = Device::shipped(&line.profile);
        let mut events = Vec::new();
        for payload in &line.payloads {
            let payload = payload.to_string();
            let mapped = device.map(Channel::Message, Origin::Live, payload.as_bytes()).unwrap();
            assert_eq!(mapped.refusals, [], "{} {}: {payload}", line.model, line.what);
            device.now_ms += 1_000;
            events.extend(device.say(&payload));
        }
        assert_eq!(events, line.events, "{} {}: {:?}", line.model, line.what, line.payloads);
        checked.insert(line.profile);
    }
    let expected: std::collections::BTreeSet<String> = shipped()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .filter(|name| name.starts_with("z2m-") && name != "z2m-bridge")
        .collect();
    assert_eq!(checked, expected, "a profile has no payload from the converters");
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("NaN".to_owned()),
        Just("-Infinity".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f64>().prop_map(|f| format!("{f}")),
        any::<i64>().prop_map(|i| i.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        Just("1e400".to_owned()),
    ];
    let key = prop_oneof![
        Just("sos"),
        Just("action"),
        Just("contact"),
        Just("battery"),
        Just("smoke"),
        Just("state"),
        Just("tamper"),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_mapping_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        fuzz_map(&bytes);
    }

    #[test]
    fn no_json_makes_the_mapping_panic_or_keep_a_bad_number(choice in any::<u8>(), text in json()) {
        let mut bytes = vec![choice];
        bytes.extend_from_slice(text.as_bytes());
        fuzz_map(&bytes);
        for (_, profile) in shipped_profiles().unwrap() {
            let device = Device::new(profile);
            let Ok(mapped) = device.map(Channel::Message, Origin::Live, text.as_bytes()) else { continue };
            prop_assert!(mapped.drafts.len() <= crate::model::limits::DRAFTS_PER_MESSAGE_MAX);
            for draft in mapped.drafts {
                let size = serde_json::to_vec(&draft.body).unwrap().len();
                prop_assert!(size <= crate::model::limits::RECORD_BODY_BYTES_MAX);
                if let Body::Telemetry(telemetry) = draft.body {
                    for sample in telemetry.samples {
                        if let Some(Value::Float(value)) = sample.value {
                            prop_assert!(value.is_finite());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn mistakes_in_a_modbus_profile_are_all_named() {
    let text = r#"
        kind = "panel"
        title = { zh = "x", en = "x" }
        [modbus]
        max_registers = 1
        [points.a]
        type = "u32"
        [points.b]
        coil = 1
        bit = 2
        scale = 2.0
        [points.c]
        holding = 1
        contact = "no"
        type = "text"
        [points.d]
        input = 65535
        type = "f32"
        write = true
        [points.e]
        input = 1
        bands = { normal = [0, 10], active = [5, 20] }
        [points.f]
        discrete = 0
        pointer = "/x"
        [points.g]
        holding = 3
        word_order = "CDAB"
        [events."a.b"]
        point = "nothing"
        equals = true
        trigger = "edge"
        category = "fire"
        [events."c.d"]
        pointer = "/x"
        trigger = "pulse"
        category = "fire"
        params = { x = "none" }
    "#;
    let profile: Profile = toml::from_str(text).unwrap();
    let problems = profile.problems();
    let mut paths: Vec<String> = problems.iter().map(|problem| problem.path.join("/")).collect();
    paths.sort();
    let expected = [
        "events/a.b/point",
        "events/c.d",
        "events/c.d/params/x",
        "events/c.d/pointer",
        "events/c.d/trigger",
        "modbus/max_registers",
        "points/a",
        "points/b/bit",
        "points/b/scale",
        "points/c/contact",
        "points/c/type",
        "points/d",
        "points/d/write",
        "points/e/bands",
        "points/e/bands",
        "points/f/pointer",
        "points/g/word_order",
    ];
    assert_eq!(paths, expected);
    let both = text.replace("[modbus]\n", "[mqtt]\ntopic = '{base}/x'\n[modbus]\n");
    let problems = toml::from_str::<Profile>(&both).unwrap().problems();
    assert!(problems.iter().any(|problem| problem.message.contains("not both")), "{problems:?}");
}

#[test]
fn a_profile_of_messages_has_none_of_the_keys_of_registers() {
    let mixed = "kind = 'x'\ntitle = { zh = 'x', en = 'x' }\n[mqtt]\ntopic = '{base}/x'\n\
                 [points.p]\npointer = '/p'\ntype = 'u16'\ncoil = 3\n";
    let problems = toml::from_str::<Profile>(mixed).unwrap().problems();
    let paths: Vec<String> = problems.iter().map(|problem| problem.path.join("/")).collect();
    assert_eq!(paths, ["points/p/coil", "points/p/type"]);
}

/// docs/devices.md shows whole profiles: each is one that `check` takes.
#[test]
fn the_profiles_of_the_documentation_are_without_mistakes() {
    let page = include_str!("../../../../docs/devices.md");
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let profiles: Vec<&str> = blocks.filter(|block| block.starts_with("kind =")).collect();
    assert_eq!(profiles.len(), 3);
    for text in profiles {
        let profile: Profile = toml::from_str(text).unwrap();
        assert_eq!(profile.problems(), [], "{text}");
    }
}
