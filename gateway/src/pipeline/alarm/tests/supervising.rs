//! Buses, uplinks and the journal as alarms; silence that something else explains.

use std::collections::BTreeSet;

use super::*;
use crate::model::ids::{BusName, ProfileName};
use crate::model::record::{Draft, Sample, Telemetry, Text};
use crate::pipeline::alarm::supervision::Until;
use crate::pipeline::directory::{Abilities, Entry};

fn bus() -> BusName {
    BusName::new("field").unwrap()
}

/// Thirty devices on one bus.
fn bench() -> Bench {
    bench_of(30, |_index| None)
}

/// So many devices on one bus, each with the index of the bridge by which it is heard.
fn bench_of(count: usize, bridge: impl Fn(usize) -> Option<usize>) -> Bench {
    let entry = Entry {
        kind: "smoke".to_owned(),
        profile: ProfileName::new("p").unwrap(),
        bus: Some(bus()),
        bridge: None,
        place: Place::default(),
        tags: BTreeSet::new(),
        points: BTreeMap::new(),
        events: BTreeSet::new(),
        heartbeat_s: None,
        maintenance: false,
        abilities: Abilities::default(),
    };
    let id = |index: usize| DeviceId::new(&format!("d-{index}")).unwrap();
    let devices =
        (0..count).map(|index| (id(index), Entry { bridge: bridge(index).map(id), ..entry.clone() }));
    let directory = Directory { devices: devices.collect() };
    let book = Book::new(&AlarmConfig::default(), Arc::new(directory), Names::default());
    Bench { book, ..Bench::new(&AlarmConfig::default()) }
}

fn gateway(bench: &mut Bench, name: &str, params: &[(&str, &str)], severity: Option<Severity>) {
    let params = params.iter().map(|(key, text)| ((*key).to_owned(), Value::Text((*text).into())));
    let draft =
        Draft::of_gateway(&stamp(bench.t_ms), None, (name, severity), params.collect(), Text::default());
    bench.supervise(draft.body);
}

fn bus_event(bench: &mut Bench, name: &str) {
    gateway(bench, name, &[("bus", "field")], Some(Severity::Major));
}

fn device(index: usize) -> DeviceRef {
    DeviceRef {
        id: DeviceId::new(&format!("d-{index}")).unwrap(),
        kind: "smoke".to_owned(),
        profile: ProfileName::new("p").ok(),
        bus: Some(bus()),
    }
}

fn offline(index: usize) -> Raise {
    let mut raise = raise("device-offline", &format!("d-{index}"));
    raise.condition.name = "device.offline".to_owned();
    raise.condition.device = device(index);
    raise
}

fn word(bench: &mut Bench, index: usize) {
    let sample = Sample::good(crate::model::ids::PointName::new("t").unwrap(), Value::Int(1), None);
    let (device, place) = (device(index), Place::default());
    bench.supervise(Body::Telemetry(Telemetry { device, place, samples: vec![sample] }));
}

#[test]
fn devices_that_are_heard_by_a_dead_bridge_make_one_alarm() {
    // d-0 is the bridge, and d-99 hangs on the bus by itself.
    let mut bench = bench_of(100, |index| (1..99).contains(&index).then_some(0));
    bench.raise(&offline(0));
    for index in 1..99 {
        bench.raise(&offline(index));
    }
    assert_eq!(bench.open().len(), 1);
    let alarm = bench.only().unwrap();
    assert_eq!(alarm.raised.device.id.as_str(), "d-0");
    assert_eq!((alarm.hides.len(), alarm.raised.params.get("hidden")), (48, Some(&Value::Int(98))));
    bench.raise(&offline(99));
    assert_eq!(bench.open().len(), 2, "the bridge explains its own devices only");
    bench.clear(&offline(0));
    for index in 2..99 {
        bench.clear(&offline(index));
    }
    bench.pass(24 * HOUR_MS);
    let silent = bench.open().into_iter().filter(|alarm| alarm.active);
    let silent: BTreeSet<String> = silent.map(|alarm| alarm.raised.device.id.to_string()).collect();
    assert_eq!(
        silent,
        ["d-1", "d-99"].map(str::to_owned).into(),
        "who is still silent has an alarm of its own"
    );
}

#[test]
fn thirty_devices_behind_one_dead_bus_make_one_alarm() {
    let mut bench = bench();
    bus_event(&mut bench, "bus.offline");
    for index in 0..30 {
        bench.raise(&offline(index));
    }
    let alarm = bench.only().unwrap();
    assert_eq!(bench.told.len(), 1);
    assert_eq!((alarm.hides.len(), alarm.raised.params.get("hidden")), (30, Some(&Value::Int(30))));
    assert_eq!(alarm.rule.as_ref().unwrap().as_str(), "bus-offline");
    bench.pass(24 * HOUR_MS);
    bus_event(&mut bench, "bus.online");
    for index in 0..28 {
        bench.clear(&offline(index));
    }
    assert_eq!(bench.only().unwrap().state, AlarmState::ReturnedUnacknowledged);
    bench.raise(&offline(28));
    bench.pass(59_999);
    assert_eq!(bench.told.len(), 2, "a device was told before it had the chance to speak");
    bench.pass(1);
    let silent: Vec<String> =
        bench.told.iter().skip(2).map(|told| told.alarm.raised.device.id.to_string()).collect();
    assert_eq!(silent, ["d-28", "d-29"]);
}

#[test]
fn a_bus_that_comes_and_goes_hides_nobody_who_is_silent_for_other_reasons() {
    let mut bench = bench();
    for _ in 0..8 {
        bus_event(&mut bench, "bus.offline");
        bench.pass(10_000);
        bench.raise(&offline(3));
        bus_event(&mut bench, "bus.online");
        bench.pass(10_000);
    }
    let flapping =
        bench.open().into_iter().find(|alarm| alarm.rule.as_ref().unwrap().as_str() == "bus-offline");
    assert!(flapping.unwrap().flapping);
    let told =
        |bench: &Bench| bench.told.iter().filter(|told| told.alarm.raised.device.id == device(3).id).count();
    assert_eq!(told(&bench), 0, "its bus was down all the time");
    bench.pass(60_000);
    assert_eq!(told(&bench), 1, "the bus is well, and the device is silent");
}

#[test]
fn what_is_configured_no_more_is_over_and_hides_nobody() {
    let mut bench = bench();
    bus_event(&mut bench, "bus.offline");
    gateway(&mut bench, "uplink.offline", &[("uplink", "city")], Some(Severity::Major));
    gateway(&mut bench, "uplink.offline", &[("uplink", "street")], Some(Severity::Major));
    gateway(&mut bench, "notifier.failing", &[("notifier", "wecom")], Some(Severity::Major));
    bench.raise(&offline(3));
    assert_eq!(bench.open().len(), 4);
    let rows = bench.rows();
    let mut later = self::bench();
    later.book.names.uplinks.insert("city".to_owned());
    for (key, value) in rows {
        assert!(later.book.load(&key, &value.unwrap()), "{key}");
    }
    (later.t_ms, later.pos) = (bench.t_ms, bench.pos);
    word(&mut later, 7);
    let active: Vec<String> = later
        .open()
        .into_iter()
        .filter(|alarm| alarm.active)
        .map(|alarm| {
            let Some(Value::Text(name)) = alarm.raised.params.get("uplink") else { panic!("{alarm:?}") };
            name.to_string()
        })
        .collect();
    assert_eq!(active, ["city"], "of the others nobody will ever say that they are well");
    later.pass(60_000);
    assert_eq!(later.told.last().unwrap().alarm.raised.device.id, device(3).id);
}

#[test]
fn a_device_that_speaks_proves_that_its_bus_works() {
    let mut bench = bench();
    bus_event(&mut bench, "bus.offline");
    word(&mut bench, 3);
    assert!(bench.only().unwrap().active, "what was on its way before proves nothing");
    bench.pass(5_000);
    word(&mut bench, 3);
    assert_eq!(bench.only().unwrap().state, AlarmState::ReturnedUnacknowledged);
}

#[test]
fn after_its_boot_the_box_waits_before_it_tells_of_silence() {
    let mut bench = bench();
    // A box that has just booted: the bench's stamps begin a day after a boot.
    let early = |t_ms: u64| Now { t_ms, at: Stamp { mono_ms: t_ms, ..stamp(0) } };
    let mut out = Out::default();
    let raise = Signal::Raise(Box::new(offline(1)));
    bench.book.signal(&early(30_000), raise, (EPOCH, 1), &mut out);
    assert!(out.drafts.is_empty());
    bench.t_ms = 30_000;
    bench.pass(89_999);
    assert_eq!(bench.told.len(), 0);
    bench.pass(1);
    assert_eq!(bench.told.len(), 1, "it is still silent two minutes after the boot");
    let spoke = Signal::Raise(Box::new(offline(2)));
    let mut other = Bench { ..self::bench() };
    other.book.signal(&early(30_000), spoke, (EPOCH, 1), &mut Out::default());
    other.clear(&offline(2));
    other.pass(HOUR_MS);
    assert_eq!(other.told.len(), 0, "it spoke in time");
}

#[test]
fn deadlines_from_before_a_boot_wait_for_its_grace_once() {
    let mut bench = bench();
    bus_event(&mut bench, "bus.offline");
    bench.raise(&offline(1));
    bench.pass(1_000);
    bus_event(&mut bench, "bus.online");
    // Off for ten days; the row's deadline is long past, and the box has just booted.
    let days_ms = 240 * HOUR_MS;
    let due_ms = bench.book.next_due().unwrap().0;
    let now = |t_ms: u64, mono_ms: u64| Now { t_ms, at: Stamp { mono_ms, ..stamp(0) } };
    bench.book.present(&now(days_ms, 20_000));
    for _ in 0..2 {
        let (_, key) = bench.book.next_due().unwrap();
        let (mut signals, mut out) = (Vec::new(), Out::default());
        bench.book.fire(&now(due_ms, 0), &key, &mut signals, &mut out);
        for signal in signals {
            bench.book.signal(&now(due_ms, 0), signal, (EPOCH, 9), &mut out);
        }
    }
    let grace_ms = 100_000;
    assert_eq!(
        bench.book.held.iter().map(|(_, held)| held.until).collect::<Vec<_>>(),
        [Until::At(days_ms + grace_ms)]
    );
}

#[test]
fn what_another_alarm_hides_waits_for_its_end() {
    let mut bench = bench();
    let mut power = raise("mains", "riser-2");
    power.hides = vec![device(4).id, device(5).id];
    bench.raise(&power);
    bench.raise(&offline(4));
    bench.raise(&offline(6));
    assert_eq!(bench.told.len(), 2, "the mains and d-6");
    bench.clear(&power);
    bench.pass(60_000);
    assert_eq!(bench.told.last().unwrap().alarm.raised.device.id, device(4).id);
}

#[test]
fn the_gateways_own_troubles_become_alarms_and_end() {
    for (begin, end, params, rule, severity) in [
        ("uplink.offline", "uplink.online", &[("uplink", "city")][..], "uplink-offline", Severity::Major),
        (
            "notifier.failing",
            "notifier.restored",
            &[("notifier", "wecom")],
            "notifier-failing",
            Severity::Major,
        ),
        ("store.lost", "store.back", &[], "store-lost", Severity::Critical),
        ("store.full", "store.room", &[], "store-full", Severity::Critical),
    ] {
        let mut bench = bench();
        gateway(&mut bench, begin, params, Some(severity));
        gateway(&mut bench, begin, params, Some(severity));
        let alarm = bench.only().unwrap();
        assert_eq!((alarm.rule.as_ref().unwrap().as_str(), alarm.count), (rule, 2));
        assert_eq!(alarm.severity(), Some(severity));
        gateway(&mut bench, end, params, None);
        assert_eq!(bench.only().unwrap().state, AlarmState::ReturnedUnacknowledged, "{end}");
    }
    for (name, latched) in [
        ("uplink.duplicate_identity", true),
        ("uplink.nobody_listens", false),
        ("store.reset", true),
        ("store.restored", true),
        ("rules.taken_back", false),
        ("clock.disputed", false),
        ("bus.session_lost", false),
    ] {
        let mut bench = bench();
        gateway(&mut bench, name, &[("uplink", "city"), ("bus", "field")], Some(Severity::Major));
        let alarm = bench.only().unwrap_or_else(|| panic!("{name} raises nothing"));
        assert_eq!((alarm.latched, alarm.active), (latched, false), "{name}");
    }
    let mut bench = bench();
    for name in ["pipeline.tick", "action.reported", "clock.changed", "box.hot", "device.offline"] {
        gateway(&mut bench, name, &[], Some(Severity::Minor));
    }
    assert_eq!(bench.told.len(), 0);
}
