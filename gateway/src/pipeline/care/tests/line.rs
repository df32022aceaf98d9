//! Care in the whole pipeline: the question goes to the household's speaker, the alarm to the roll, and a restart in between
//! forgets nothing.

use super::super::super::directory::Speaker;
use super::super::super::{Pipeline, Plan};
use super::*;
use crate::model::action::{Action, NoOutlet, is_question_of_care};
use crate::model::alarm::AlarmState;
use crate::model::command::tick;
use crate::model::journal::Fold as _;
use crate::model::roll::Roll;

/// The writer, as far as the pipeline sees it.
struct Writer {
    pipeline: Pipeline,
    roll: Arc<Roll>,
    rows: BTreeMap<String, String>,
    at: Stamp,
    pos: u64,
    events: Vec<Event>,
}

fn plan() -> Plan {
    let ask = "answer_within_min = 30\n[[ask]]\nspeak = { zh = \"您还好吗？请按一下按钮\" }\n\
               on = { devices = [\"voice\"] }\n";
    let households = BTreeMap::from([(CareName::new("b3-302").unwrap(), household(ask))]);
    let mut directory = directory();
    let mut voice = entry("speaker", None, &[], &[]);
    voice.abilities.speaker = Some(Speaker { lan: true, confirms_played: true, text_chars_max: 100 });
    directory.devices.insert(DeviceId::new("voice").unwrap(), voice);
    Plan {
        care: CareConfig { households },
        directory: Arc::new(directory),
        utc_offset_min: 480,
        ..Plan::default()
    }
}

impl Writer {
    fn new() -> Self {
        let roll = Arc::new(Roll::default());
        let at = Stamp { boot: BootId("a".into()), mono_ms: 0, wall_ms: MIDNIGHT_MS, trust: ClockTrust::Ntp };
        let pipeline = Pipeline::new(plan(), Arc::clone(&roll), Box::new(NoOutlet));
        Self { pipeline, roll, rows: BTreeMap::new(), at, pos: 0, events: Vec::new() }
    }

    fn restart(&mut self) {
        self.roll = Arc::new(Roll::default());
        self.pipeline = Pipeline::new(plan(), Arc::clone(&self.roll), Box::new(NoOutlet));
        self.pipeline.load(self.rows.clone().into_iter().collect());
    }

    fn write(&mut self, draft: Draft) {
        let mut waiting = vec![draft];
        while let Some(draft) = waiting.pop() {
            self.pos += 1;
            if let Body::Event(event) = &draft.body {
                self.events.push(event.as_ref().clone());
            }
            let class = draft.body.class();
            let record = Record {
                pos: self.pos,
                epoch: Epoch(1),
                class,
                seq: self.pos,
                at: draft.at,
                test: draft.test,
                body: draft.body,
            };
            waiting.extend(self.pipeline.apply(&record).into_iter().rev());
        }
        for (key, value) in self.pipeline.unsaved() {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.pipeline.commit(true);
    }

    fn say(&mut self, body: Body) {
        self.write(Draft { at: self.at.clone(), test: false, dedup: None, body });
    }

    /// Sensors speak every ten minutes and have nothing to tell; ticks come when they are due.
    fn wait(&mut self, ms: u64) {
        let end = self.at.mono_ms + ms;
        while self.at.mono_ms < end {
            let next = (self.at.mono_ms / (10 * MINUTE) + 1) * 10 * MINUTE;
            let due = self.pipeline.due_ms(&self.at.boot).unwrap_or(u64::MAX).max(self.at.mono_ms);
            let to = next.min(due).min(end);
            self.at.wall_ms += i64::try_from(to - self.at.mono_ms).unwrap();
            self.at.mono_ms = to;
            if due <= to {
                self.write(tick(&self.at));
            }
            if next == to {
                self.meter(100.0);
                for id in ["door", "motion"] {
                    self.say(event_of(device(id), "device.seen"));
                }
            }
        }
    }

    fn meter(&mut self, reading: f64) {
        let point = PointName::new("volume").unwrap();
        let samples = vec![Sample::good(point, Value::Float(reading), None)];
        let telemetry = Telemetry { device: device("meter"), place: Place::default(), samples };
        self.say(Body::Telemetry(telemetry));
    }

    fn named(&self, name: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.name == name).collect()
    }
}

#[test]
fn the_question_is_spoken_and_the_alarm_stands_in_the_roll() {
    let mut writer = Writer::new();
    writer.meter(100.0);
    writer.wait(24 * HOUR + MINUTE);
    let asked = writer.named("action.requested");
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(is_question_of_care(asked), "{asked:?}");
    let whole = match &asked.params["order"] {
        Value::Text(text) => serde_json::from_str::<Action>(text).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(whole.device.as_str(), "voice");
    assert!(writer.roll.is_empty(), "the question is no alarm: {:?}", writer.roll.open());
    writer.restart();
    writer.wait(28 * MINUTE);
    assert!(writer.roll.open().iter().all(|listed| listed.alarm.raised.category != Category::Care));
    writer.wait(2 * MINUTE);
    writer.restart();
    writer.wait(HOUR);
    let open = writer.roll.open();
    let open: Vec<_> = open
        .iter()
        .filter(|listed| listed.alarm.rule.as_ref().unwrap().as_str() == "care-inactivity")
        .collect();
    let [listed] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((listed.alarm.state, listed.alarm.count), (AlarmState::Unacknowledged, 1));
    assert_eq!(listed.alarm.raised.place.household.as_deref(), Some("302"));
    let params: Vec<&str> = listed.alarm.raised.params.keys().map(String::as_str).collect();
    assert_eq!(params, ["care", "contact_id", "quiet_h", "sia", "window_h"]);
    writer.meter(100.02);
    let open = writer.roll.get(&listed.alarm.alarm).unwrap();
    assert_eq!(open.alarm.state, AlarmState::ReturnedUnacknowledged);
}

#[test]
fn a_question_that_nobody_heard_names_no_household() {
    let mut writer = Writer::new();
    writer.meter(100.0);
    writer.wait(24 * HOUR + 40 * MINUTE);
    assert_eq!(writer.named("action.requested").len(), 1);
    // Nothing carries it out here, so that nobody tells how it ended.
    let open = writer.roll.open();
    let failed = open.iter().find(|listed| listed.alarm.rule.as_ref().unwrap().as_str() == "action-failed");
    let alarm = &failed.expect("the speaker's alarm").alarm;
    let params: Vec<&str> = alarm.raised.params.keys().map(String::as_str).collect();
    assert_eq!(params, ["detail", "do", "progress"]);
    let whole = serde_json::to_string(alarm).unwrap();
    assert!(!whole.contains("b3-302") && !whole.contains("care-ask"), "{whole}");
}
