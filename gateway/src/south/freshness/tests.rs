//! Silence, reach and first words, told second by second.

use super::*;
use crate::model::ids::{BootId, DeviceId};
use crate::model::place::Place;
use crate::model::record::DeviceRef;
use crate::model::stamp::ClockTrust;

/// A device whose drafts are all committed, with a heartbeat of 10 s unless told otherwise.
struct Bench {
    promise: Promise,
    subject: Subject,
    watch: Watch,
    line: Line,
    now_ms: u64,
}

/// What became of a value: its point, quality, reason and age.
type Told = (String, Quality, Option<QualityReason>, u64);

impl Bench {
    fn new(heartbeat_s: Option<u32>) -> Self {
        let promise = Promise {
            heartbeat_ms: heartbeat_s.map(|s| u64::from(s) * 1_000),
            availability: true,
            availability_alone: false,
            severity: Some(Severity::Minor),
        };
        let device =
            DeviceRef { id: DeviceId::new("d").unwrap(), kind: "sensor".into(), profile: None, bus: None };
        let subject = Subject { device, place: Place::default(), test: true };
        Self { promise, subject, watch: Watch::new(1_000), line: Line::Up, now_ms: 1_000 }
    }

    fn at(&self) -> Stamp {
        Stamp { boot: BootId("b".into()), mono_ms: self.now_ms, wall_ms: 0, trust: ClockTrust::None }
    }

    fn say(&mut self, values: &[(&str, Value)]) -> Vec<String> {
        let sample = |(point, value): &(&str, Value)| {
            Sample::good(PointName::new(point).unwrap(), value.clone(), None)
        };
        let samples = values.iter().map(sample).collect();
        let (device, place) = (self.subject.device.clone(), self.subject.place.clone());
        let body = Body::Telemetry(Telemetry { device, place, samples });
        let draft = Draft { at: self.at(), test: false, dedup: None, body };
        let (online, change) = self.watch.heard(&self.promise, &self.subject, &self.at(), &[draft]);
        self.watch.settle(change);
        events(&online.into_iter().collect::<Vec<_>>())
    }

    fn temperature(&mut self, value: f64) -> Vec<String> {
        self.say(&[("temperature", Value::Float(value))])
    }

    fn told(&mut self, reachable: bool) -> Vec<Draft> {
        let (drafts, change) = self.watch.told(&self.promise, &self.subject, &self.at(), reachable);
        self.watch.settle(change);
        drafts
    }

    /// Lets the time pass second by second; what is told and when, seconds after the start.
    fn pass(&mut self, seconds: u64) -> Vec<(u64, Draft)> {
        let mut told = Vec::new();
        for _ in 0..seconds {
            self.now_ms += 1_000;
            while let Some((drafts, change)) =
                self.watch.silence(&self.promise, &self.subject, &self.at(), self.line)
            {
                self.watch.settle(change);
                told.extend(drafts.into_iter().map(|draft| (self.now_ms / 1_000 - 1, draft)));
            }
        }
        told
    }
}

fn events(drafts: &[Draft]) -> Vec<String> {
    let name = |draft: &Draft| match &draft.body {
        Body::Event(event) => Some(
            format!("{} {:?}", event.name, event.params["reason"]).replace("Text(\"", "").replace("\")", ""),
        ),
        _ => None,
    };
    drafts.iter().filter_map(name).collect()
}

fn values(drafts: &[Draft]) -> Vec<Told> {
    let samples = drafts.iter().filter_map(|draft| match &draft.body {
        Body::Telemetry(telemetry) => Some(&telemetry.samples),
        _ => None,
    });
    samples.flatten().map(|s| (s.point.as_str().to_owned(), s.quality, s.reason, s.age_ms)).collect()
}

fn stale(point: &str, reason: QualityReason, age_s: u64) -> Told {
    (point.to_owned(), Quality::Stale, Some(reason), age_s * 1_000)
}

const NOTHING: [&str; 0] = [];

#[test]
fn silence_makes_values_stale_then_the_device_offline_and_a_word_brings_it_back() {
    let mut bench = Bench::new(Some(10));
    bench.pass(1);
    assert_eq!(bench.temperature(21.5), ["device.online first_word"]);
    let told = bench.pass(60);
    let at: Vec<u64> = told.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [16, 31], "heard at 1 s; stale 15 s later, offline 30 s later");
    assert_eq!(values(&[told[0].1.clone()]), [stale("temperature", QualityReason::Silent, 15)]);
    assert_eq!(told[0].1.at.mono_ms, 17_000, "the record's stamp is now");
    assert!(told[0].1.test, "a device under maintenance stays so");
    assert_eq!(events(&[told[1].1.clone()]), ["device.offline silent"]);
    let Body::Event(event) = &told[1].1.body else { panic!("no event") };
    assert_eq!((event.severity, &event.params["silent_ms"]), (Some(Severity::Minor), &Value::Int(30_000)));
    assert_eq!(bench.watch.standing(), (Standing::Offline, 32_000));
    assert_eq!(bench.temperature(21.5), ["device.online spoke_again"]);
    assert_eq!(bench.watch.standing(), (Standing::Fresh, 62_000));
    assert_eq!(bench.temperature(21.5), NOTHING);
}

#[test]
fn who_speaks_in_time_is_never_told() {
    let mut bench = Bench::new(Some(10));
    bench.temperature(1.0);
    for _ in 0..100 {
        assert_eq!(bench.pass(14), []);
        bench.temperature(1.0);
    }
}

#[test]
fn after_a_start_nothing_is_stale_or_offline_before_its_time() {
    let mut bench = Bench::new(Some(10));
    assert_eq!(bench.pass(29), []);
    assert_eq!(bench.watch.standing().0, Standing::Unheard);
    let told: Vec<Draft> = bench.pass(100).into_iter().map(|(_, draft)| draft).collect();
    assert_eq!(events(&told), ["device.offline never_heard"]);
    assert_eq!(values(&told), [], "there are no values that could be old");
    assert_eq!(bench.temperature(1.0), ["device.online spoke_again"]);
}

#[test]
fn a_value_is_told_as_stale_once_with_its_own_age() {
    let mut bench = Bench::new(Some(10));
    bench.say(&[("a", Value::Int(1)), ("b", Value::Bool(true))]);
    bench.pass(5);
    bench.say(&[("b", Value::Bool(false))]);
    let first: Vec<Draft> = bench.pass(16).into_iter().map(|(_, draft)| draft).collect();
    let expected = [stale("a", QualityReason::Silent, 20), stale("b", QualityReason::Silent, 15)];
    assert_eq!(values(&first), expected);
    // Only `b` is heard again, so only `b` can become stale again.
    bench.say(&[("b", Value::Bool(true))]);
    let second: Vec<Draft> = bench.pass(16).into_iter().map(|(_, draft)| draft).collect();
    assert_eq!(values(&second), [stale("b", QualityReason::Silent, 15)]);
}

#[test]
fn availability_makes_offline_at_once_and_online_only_what_was_offline() {
    let mut bench = Bench::new(None);
    assert_eq!(events(&bench.told(true)), NOTHING, "nobody is online before it spoke");
    assert_eq!(bench.watch.standing().0, Standing::Unheard);
    assert_eq!(bench.temperature(1.0), ["device.online first_word"]);
    bench.pass(100);
    let told = bench.told(false);
    assert_eq!(events(&told), ["device.offline availability"]);
    assert_eq!(values(&told), [stale("temperature", QualityReason::Offline, 100)]);
    assert_eq!(bench.told(false), [], "told once");
    assert_eq!(events(&bench.told(true)), ["device.online availability"]);
    assert_eq!(bench.watch.standing().0, Standing::Stale, "its values are old until it speaks");
    assert_eq!(bench.told(true), []);
    assert_eq!(bench.temperature(2.0), NOTHING, "online was told");
    assert_eq!(bench.watch.standing().0, Standing::Fresh);
}

#[test]
fn who_has_nothing_but_availability_speaks_by_it() {
    let mut bench = Bench::new(None);
    bench.promise.availability_alone = true;
    assert_eq!(events(&bench.told(true)), ["device.online first_word"]);
    assert_eq!(bench.told(true), []);
    assert_eq!(events(&bench.told(false)), ["device.offline availability"]);
    assert_eq!(events(&bench.told(true)), ["device.online availability"]);
    assert_eq!(bench.watch.standing().0, Standing::Fresh);
}

#[test]
fn on_a_dead_line_values_grow_stale_and_no_device_is_blamed() {
    let mut bench = Bench::new(Some(10));
    bench.temperature(1.0);
    bench.line = Line::Down;
    let told: Vec<Draft> = bench.pass(1_000).into_iter().map(|(_, draft)| draft).collect();
    assert_eq!(values(&told), [stale("temperature", QualityReason::LineFailed, 15)]);
    assert_eq!(events(&told), NOTHING);
    bench.line = Line::Up;
    bench.watch.line_back(bench.now_ms);
    assert_eq!(bench.pass(29), [], "it gets the time to speak");
    let told: Vec<Draft> = bench.pass(1).into_iter().map(|(_, draft)| draft).collect();
    assert_eq!(events(&told), ["device.offline silent"]);
}

#[test]
fn who_promises_nothing_is_never_blamed() {
    let mut bench = Bench::new(None);
    bench.promise.availability = false;
    assert_eq!(bench.temperature(1.0), NOTHING);
    assert_eq!(bench.watch.standing().0, Standing::Fresh);
    assert_eq!(bench.pass(10_000), []);
    assert!(bench.watch.last.is_empty(), "nothing is remembered in vain");
}

#[test]
fn a_change_that_was_not_stored_never_happened() {
    let mut bench = Bench::new(Some(10));
    bench.temperature(1.0);
    bench.now_ms += 100_000;
    let silence = |bench: &Bench| bench.watch.silence(&bench.promise, &bench.subject, &bench.at(), Line::Up);
    let first = silence(&bench).unwrap();
    assert_eq!(silence(&bench).unwrap(), first, "it is told again until it is settled");
    assert_eq!(bench.watch.standing().0, Standing::Fresh);
}

#[test]
fn records_of_stale_values_fit() {
    let mut bench = Bench::new(Some(10));
    let names: Vec<String> = (0..64).map(|n| format!("{}{n:02}", "p".repeat(62))).collect();
    let text = Value::Text("x".repeat(1_024).into());
    let said: Vec<(&str, Value)> = names.iter().map(|name| (name.as_str(), text.clone())).collect();
    bench.say(&said);
    let told: Vec<Draft> = bench.pass(20).into_iter().map(|(_, draft)| draft).collect();
    assert_eq!(values(&told).len(), 64);
    for draft in &told {
        let bytes = serde_json::to_vec(&draft.body).unwrap().len();
        assert!(bytes <= crate::model::limits::RECORD_BODY_BYTES_MAX, "{bytes}");
    }
    let mut bench = Bench::new(Some(10));
    let said: Vec<(&str, Value)> =
        names.iter().map(|name| (name.as_str(), Value::Float(-1.0 / 3.0))).collect();
    bench.say(&said);
    let told: Vec<Draft> = bench.pass(20).into_iter().map(|(_, draft)| draft).collect();
    assert_eq!((told.len(), values(&told).len()), (2, 64));
}
