//! The whole pipeline over a real journal: the same records give the same alarms, whatever the batching and wherever a
//! crash falls (promises G6, G7); and what a rehearsal says of them.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::cmd::rehearse::{Range, rehearse};
use crate::config;
use crate::model::action::Deed;
use crate::model::command::{Actor, AlarmOrder, AlarmVerb, Origin, tick};
use crate::model::ids::{BootId, BusName, DeviceId, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::record::{
    Body, Category, Class, DeviceRef, Draft, Event, Record, Sample, Severity, Telemetry, Value,
};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::rt::clock::{Clock, ManualClock, SharedClock};
use crate::store::testing::{Image, records, seed, torn};
use crate::store::{Core, Op, Synchronous};

#[test]
fn an_action_beyond_the_queue_is_counted_and_holds_up_nobody() {
    let metrics = Arc::new(Metrics::new());
    let (actions_tx, mut actions_rx) = mpsc::channel(2);
    let mut queue = Queue { actions_tx, held: Arc::default(), metrics: Arc::clone(&metrics) };
    let at = Stamp { boot: BootId("b".into()), mono_ms: 1, wall_ms: 1, trust: ClockTrust::None };
    let action = |n: u32| Action {
        id: n.to_string(),
        device: DeviceId::new("s").unwrap(),
        deed: Deed::Hush,
        alarm: None,
        severity: None,
        at: at.clone(),
        act_within_ms: 1,
        test: false,
    };
    for n in 0..3 {
        queue.hand(action(n), n == 1);
    }
    let taken: Vec<_> = std::iter::from_fn(|| actions_rx.try_recv().ok()).collect();
    assert_eq!(taken, [(action(0), false), (action(1), true)]);
    drop(actions_rx);
    queue.hand(action(4), false);
    let drops = metrics.drops();
    assert_eq!(drops.iter().map(|drop| drop.count).sum::<u64>(), 2, "{drops:?}");
}

const COMPOUND: &str = r#"
[gateway]
name = "gate"
compound = "c"
rules_dir = "rules"
[buses.lan.broker]
listen = "127.0.0.1:0"
[clients.z2m]
"#;

/// Rules that wait, count and miss, beside those that are shipped.
const RULES: &str = r#"
[[rule]]
name = "held"
title = { zh = "门未关", en = "door held" }
on = { event = "contact.opened" }
for_s = 7
cooldown_s = 5
[rule.raise]
category = "access"
severity = "minor"
text = { zh = "门未关", en = "door held open" }
[rule.escalate]
after_s = 20
to = "major"

[[rule]]
name = "often"
title = { zh = "频繁按下", en = "pressed often" }
on = { event = "button.pressed" }
count = 3
within_s = 15
[rule.raise]
category = "emergency"
severity = "critical"
text = { zh = "频繁按下", en = "pressed often" }
latched = true
"#;

/// One that ends up with many alarms at one moment.
const SILENCE: &str = r#"
[[rule]]
name = "silent"
title = { zh = "无消息", en = "nothing said" }
on = { event = "button.pressed" }
absent_s = 30
[rule.raise]
category = "device"
severity = "warning"
text = { zh = "无消息", en = "nothing said" }
"#;

const DEVICES: [(&str, &str, &str); 5] = [
    ("b1", "button", "z2m-button-sos"),
    ("b2", "button", "z2m-button-sos"),
    ("b3", "button", "z2m-button-sos"),
    ("c1", "contact", "z2m-contact"),
    ("c2", "contact", "z2m-contact"),
];

/// A compound of these devices with the rules above.
fn compound() -> (TempDir, Loaded) {
    let devices = DEVICES.map(|(id, _, profile)| {
        format!(
            "[devices.{id}]\nprofile = \"{profile}\"\nclient = \"z2m\"\naddress = \"{id}\"\ntags = [\"door\"]\n\
             place = {{ building = \"3\" }}\n"
        )
    });
    compound_of(&devices.concat(), &format!("{RULES}{SILENCE}"))
}

fn compound_of(devices: &str, rules: &str) -> (TempDir, Loaded) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gatehouse.toml"), format!("{COMPOUND}{devices}")).unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules").join("own.toml"), rules).unwrap();
    let loaded = config::load(&dir.path().join("gatehouse.toml")).unwrap_or_else(|report| panic!("{report}"));
    (dir, loaded)
}

fn device(n: usize) -> DeviceRef {
    let (id, kind, profile) = DEVICES[n];
    DeviceRef {
        id: DeviceId::new(id).unwrap(),
        kind: kind.to_owned(),
        profile: Some(ProfileName::new(profile).unwrap()),
        bus: Some(BusName::new("lan").unwrap()),
    }
}

fn event(n: usize, name: &str, at: Stamp) -> Draft {
    let event = Event {
        device: device(n),
        place: Place { building: Some("3".to_owned()), ..Place::default() },
        category: Category::Emergency,
        name: name.to_owned(),
        severity: Some(Severity::Critical),
        params: std::collections::BTreeMap::new(),
        text: None,
    };
    Draft { at, test: false, dedup: None, body: Body::Event(Box::new(event)) }
}

/// Something from outside; an order is about the first open alarm, whichever that is then.
#[derive(Debug, Clone)]
enum Step {
    Says(Box<Draft>),
    Orders(AlarmVerb, Stamp),
}

fn says(draft: Draft) -> Step {
    Step::Says(Box::new(draft))
}

/// Minutes of a compound: presses, doors, ticks, orders, pauses, a clock that jumps by a year, and one reboot.
fn script(rng: &mut fastrand::Rng, clock: &ManualClock, steps: usize) -> Vec<Step> {
    let mut script = Vec::new();
    for n in 0..steps {
        clock.advance_ms(if rng.u8(..10) == 0 { rng.u64(..60_000) } else { rng.u64(..4_000) });
        if rng.u8(..40) == 0 {
            clock.jump_wall_ms([-1, 1][rng.usize(..2)] * 365 * 24 * 3_600_000);
        }
        if n == steps / 2 {
            let wall_ms = clock.now().wall_ms + 30_000;
            clock.reboot(BootId("another".into()), wall_ms, ClockTrust::Ntp);
        }
        let at = clock.now();
        script.push(match rng.u8(..16) {
            0..=2 => says(tick(&at)),
            3..=6 => says(event(rng.usize(..3), "button.pressed", at)),
            7..=9 => says(event(rng.usize(3..5), "contact.opened", at)),
            10..=12 => says(event(rng.usize(3..5), "contact.closed", at)),
            13 => {
                let sample = Sample::good(PointName::new("battery").unwrap(), Value::Float(1.0), None);
                let (device, place) = (device(rng.usize(..5)), Place::default());
                let body = Body::Telemetry(Telemetry { device, place, samples: vec![sample] });
                says(Draft { at, test: false, dedup: None, body })
            }
            14 => Step::Orders(AlarmVerb::Acknowledge, at),
            _ => Step::Orders([AlarmVerb::Close, AlarmVerb::Shelve { for_s: 9 }][rng.usize(..2)].clone(), at),
        });
    }
    script
}

/// A journal with the pipeline in it.
struct House {
    dir: TempDir,
    clock: Arc<ManualClock>,
    core: Core,
    roll: Arc<Roll>,
}

impl House {
    fn open(dir: TempDir, loaded: &Loaded, clock: &Arc<ManualClock>) -> Self {
        let (pipeline, roll) = rehearsal(loaded, Arc::clone(&loaded.rules));
        let shared: SharedClock = Arc::clone(clock) as SharedClock;
        let (core, _) = Core::open(dir.path(), Synchronous::Normal, shared, Box::new(pipeline)).unwrap();
        Self { dir, clock: Arc::clone(clock), core, roll }
    }

    fn draft(&self, n: usize, step: &Step) -> Draft {
        match step {
            Step::Says(draft) => (**draft).clone(),
            Step::Orders(verb, at) => {
                let alarm = self.roll.open().first().map(|open| open.alarm.alarm.clone());
                let actor = Actor {
                    operator: "guard".to_owned(),
                    source: Origin::Console,
                    reason: "a test".to_owned(),
                };
                let (alarm, verb) = (alarm.unwrap_or_else(|| "none".to_owned()), verb.clone());
                AlarmOrder { command: format!("c{n}"), alarm, rev: None, verb, actor }.draft(at)
            }
        }
    }

    fn everything(&self) -> Vec<Record> {
        let reader = self.core.reader().unwrap();
        let mut all: Vec<Record> = Class::ALL.into_iter().flat_map(|class| records(&reader, class)).collect();
        all.sort_by_key(|record| record.pos);
        all
    }

    /// What stands in the journal, without its random epoch.
    fn story(&self) -> Vec<String> {
        let text = |record: &Record| {
            let text = format!("{} {:?} {} {:?}", record.pos, record.class, record.seq, record.body);
            text.replace(&record.epoch.to_string(), "EPOCH")
        };
        self.everything().iter().map(text).collect()
    }

    /// How many steps of the script stand in the journal.
    fn taken(&self) -> usize {
        let own = |record: &&Record| match &record.body {
            Body::Alarm(_) => true,
            Body::Event(event) => event.name.starts_with("action."),
            _ => false,
        };
        let all = self.everything();
        all.len() - all.iter().filter(own).count()
    }

    /// Alarms in the roll are those that the journal says are open.
    fn assert_open(&self) {
        let mut last = std::collections::BTreeMap::new();
        for record in self.everything() {
            if let Body::Alarm(alarm) = record.body {
                last.insert(alarm.alarm.clone(), (record.seq, *alarm));
            }
        }
        last.retain(|_, (_, alarm)| alarm.is_open());
        let open =
            self.roll.open().into_iter().map(|open| (open.alarm.alarm.clone(), (open.seq, open.alarm)));
        assert_eq!(open.collect::<std::collections::BTreeMap<_, _>>(), last);
    }
}

/// Power fails: the disk took some of the WAL's last bytes.
fn crashed(before: &Image, dir: &Path, rng: &mut fastrand::Rng) -> TempDir {
    let after = Image::take(dir);
    let cut = if rng.bool() { rng.usize(..=after.wal.len()) } else { after.wal.len() };
    let wal = torn(&after.wal, &before.wal, cut);
    Image { db: before.db.clone(), wal, witness: after.witness }.lay()
}

#[test]
fn the_same_records_give_the_same_alarms_whatever_the_batching_and_wherever_a_crash_falls() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (_config, loaded) = compound();
    let clock = crate::store::testing::clock();
    let script = script(&mut rng, &clock, 220);
    let mut house = House::open(tempfile::tempdir().unwrap(), &loaded, &clock);
    for (n, step) in script.iter().enumerate() {
        let draft = house.draft(n, step);
        house.core.append(vec![draft]).unwrap();
    }
    let told = house.story();
    assert_eq!(house.taken(), script.len());
    house.assert_open();
    let alarms = told.iter().filter(|line| line.contains("Alarm")).count();
    assert!(alarms > 20, "only {alarms} changes of alarms: this run shows little");
    let mut crashes = 0;
    for _ in 0..4 {
        house = House::open(tempfile::tempdir().unwrap(), &loaded, &clock);
        let mut next = 0;
        while next < script.len() {
            let before = Image::take(house.dir.path());
            let until = (next + rng.usize(1..12)).min(script.len());
            let mut ops = Vec::new();
            while next < until {
                // What an order is about is known when all before it is committed.
                if matches!(script[next], Step::Orders(..)) && !ops.is_empty() {
                    break;
                }
                ops.push(Op::Append { drafts: vec![house.draft(next, &script[next])] });
                next += 1;
            }
            house.core.commit(&ops).unwrap();
            if rng.u8(..5) == 0 {
                let dir = crashed(&before, house.dir.path(), &mut rng);
                drop(house.core);
                house = House::open(dir, &loaded, &clock);
                next = house.taken();
                crashes += 1;
                house.assert_open();
            }
        }
        assert_eq!(house.story(), told);
        house.assert_open();
    }
    assert!(crashes > 10, "only {crashes} crashes");
}

fn many_buttons(count: usize, rules: &str) -> (TempDir, Loaded) {
    let device = |n: usize| {
        format!("[devices.m{n}]\nprofile = \"z2m-button-sos\"\nclient = \"z2m\"\naddress = \"m{n}\"\n")
    };
    compound_of(&(0..count).map(device).collect::<Vec<_>>().concat(), rules)
}

/// As many ticks as the writer would make: until nothing is due.
fn tick_all(house: &mut House) {
    for _ in 0..200 {
        let now = house.clock.now();
        house.core.append(vec![tick(&now)]).unwrap();
    }
}

#[test]
fn what_falls_due_or_ends_all_at_once_is_told_whole() {
    const MANY: usize = 300;
    let (_config, loaded) = many_buttons(MANY, SILENCE);
    let clock = crate::store::testing::clock();
    let mut house = House::open(tempfile::tempdir().unwrap(), &loaded, &clock);
    house.core.append(vec![event(0, "button.pressed", clock.now())]).unwrap();
    clock.advance_ms(31_000);
    tick_all(&mut house);
    assert_eq!(house.roll.open().len(), MANY);
    house.assert_open();
    // The rule is gone: every one of its conditions is over.
    let (_config, without) = many_buttons(MANY, "");
    let House { dir, core, .. } = house;
    drop(core);
    house = House::open(dir, &without, &clock);
    tick_all(&mut house);
    house.assert_open();
    let open = house.roll.open();
    assert_eq!(open.len(), MANY, "nobody has seen them yet");
    let wrong: Vec<_> = open.iter().filter(|open| open.alarm.active || open.alarm.rev != 2).collect();
    assert!(wrong.is_empty(), "{} of them still stand: {:?}", wrong.len(), wrong.first());
}

/// Jumps of a year each way, in the middle of what holds, counts, is silent or waits: every change of every alarm comes at
/// the same moment of the monotonic clock.
#[test]
fn a_wall_clock_that_jumps_moves_no_alarm() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let mut rng = fastrand::Rng::with_seed(7);
    let (_config, loaded) = compound();
    let clock = crate::store::testing::clock();
    let mut drafts = Vec::new();
    for _ in 0..200 {
        clock.advance_ms(if rng.u8(..10) == 0 { rng.u64(..60_000) } else { rng.u64(..4_000) });
        let at = Stamp { trust: ClockTrust::Ntp, ..clock.now() };
        drafts.push(match rng.u8(..8) {
            0 => tick(&at),
            1..=3 => event(rng.usize(..3), "button.pressed", at),
            4 | 5 => event(rng.usize(3..5), "contact.opened", at),
            _ => event(rng.usize(3..5), "contact.closed", at),
        });
    }
    let told = |years: i64| -> Vec<String> {
        let mut house = House::open(tempfile::tempdir().unwrap(), &loaded, &clock);
        let mut ahead_ms = 0;
        for (n, draft) in drafts.iter().enumerate() {
            if n % 3 == 2 {
                ahead_ms = if ahead_ms == 0 { years * YEAR_MS } else { 0 };
            }
            let at = Stamp { wall_ms: draft.at.wall_ms + ahead_ms, ..draft.at.clone() };
            house.core.append(vec![Draft { at, ..draft.clone() }]).unwrap();
        }
        let alarm = |record: &Record| match &record.body {
            Body::Alarm(alarm) => {
                let id = alarm.alarm.replace(&record.epoch.to_string(), "EPOCH");
                Some(format!("{} {id} {} {:?}", record.at.mono_ms, alarm.rev, alarm.state))
            }
            _ => None,
        };
        house.everything().iter().filter_map(alarm).collect()
    };
    let straight = told(0);
    for rule in ["held", "often", "silent", "door-forced"] {
        assert!(straight.iter().any(|told| told.contains(rule)), "{rule} was never raised");
    }
    for years in [-1, 1] {
        assert_eq!(told(years), straight, "{years} years");
    }
}

#[test]
fn a_rehearsal_finds_the_alarms_that_there_were() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (_config, loaded) = compound();
    let clock = crate::store::testing::clock();
    let script = script(&mut rng, &clock, 300);
    let mut house = House::open(tempfile::tempdir().unwrap(), &loaded, &clock);
    for (n, step) in script.iter().enumerate() {
        let draft = house.draft(n, step);
        house.core.append(vec![draft]).unwrap();
    }
    let reader = house.core.reader().unwrap();
    let (pipeline, _) = rehearsal(&loaded, Arc::clone(&loaded.rules));
    let outcome = rehearse(&reader, pipeline, Range::default()).unwrap();
    assert!(outcome.rules.len() > 3 && outcome.sparse.is_empty(), "{outcome:?}");
    for (rule, tally) in &outcome.rules {
        // A deadline of the last moments may have no tick behind it that a rehearsal would be shown.
        assert!(tally.would.abs_diff(tally.really) <= 1, "{rule}: {tally:?}");
    }
    let raised = |record: &Record| match &record.body {
        Body::Alarm(alarm) if alarm.rev == 1 => Some(alarm.alarm.clone()),
        _ => None,
    };
    let really: Vec<String> = house.everything().iter().filter_map(raised).collect();
    let same = outcome.raised.iter().filter(|raised| really.contains(&raised.alarm)).count();
    println!("{} alarms, {same} of them under the same ids", really.len());
    assert!(same > 0);
    assert!(house.clock.now().mono_ms > 0);
}

#[test]
fn a_rehearsal_tells_the_alarms_of_two_buses_apart() {
    let bus = |name: &str| BusName::new(name).unwrap();
    let buses = "[buses.a.modbus]\ntcp = \"127.0.0.1:1502\"\n[buses.b.modbus]\ntcp = \"127.0.0.1:1503\"\n";
    let (_config, loaded) = compound_of(buses, "");
    let clock = crate::store::testing::clock();
    let mut house = House::open(tempfile::tempdir().unwrap(), &loaded, &clock);
    let lost = |name: &str, at: Stamp| {
        let mut draft = event(0, "bus.session_lost", at);
        if let Body::Event(event) = &mut draft.body {
            event.device = DeviceRef::gateway(Some(&bus(name)));
            event.params.insert("bus".to_owned(), Value::Text(name.into()));
        }
        draft
    };
    // The first of both is closed; when it comes again it is a new one.
    for (name, wait_ms) in [("a", 1_000), ("b", 1_000), ("", 7_200_000), ("a", 1_000)] {
        let at = clock.now();
        let draft = match name {
            "" => house.draft(0, &Step::Orders(AlarmVerb::Close, at)),
            name => lost(name, at),
        };
        house.core.append(vec![draft]).unwrap();
        clock.advance_ms(wait_ms);
    }
    let (pipeline, _) = rehearsal(&loaded, Arc::clone(&loaded.rules));
    let outcome = rehearse(&house.core.reader().unwrap(), pipeline, Range::default()).unwrap();
    let tally = outcome.rules["bus-session-lost"];
    assert_eq!((tally.would, tally.really), (3, 3), "{outcome:?}");
}
