use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::bundle::Source;
use super::*;
use crate::model::action::{Action, Deed, Progress, Report, outcome};
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::audit::{COMMAND_ENDED, COMMAND_ORDERED};
use crate::model::command::{Actor, AlarmOrder, AlarmVerb, End, Origin, RulesPut, Scope, Verdict};
use crate::model::ids::{DeviceId, Epoch, PointName, ProfileName, UplinkName};
use crate::model::journal::Committed;
use crate::model::place::Place;
use crate::model::record::{Body, Category, Record, Text};
use crate::model::roll::Listed;
use crate::pipeline::directory::{Abilities, Entry as DeviceEntry, Speaker};
use crate::rt::clock::{Clock, ManualClock};

/// A journal that judges orders about alarms by a script, and keeps everything.
#[derive(Debug)]
struct Book {
    roll: Arc<Roll>,
    verdict: Mutex<Option<Verdict>>,
    fails: Mutex<Option<JournalError>>,
    kept: Mutex<Vec<Draft>>,
}

/// A draft as it stands in the journal.
fn record(draft: &Draft) -> Record {
    Record {
        pos: 1,
        epoch: Epoch(1),
        class: draft.body.class(),
        seq: 1,
        at: draft.at.clone(),
        test: false,
        body: draft.body.clone(),
    }
}

#[async_trait]
impl Journal for Book {
    async fn append(&self, drafts: Vec<Draft>, _durability: Durability) -> Result<Committed, JournalError> {
        let fails = self.fails.lock().unwrap().clone();
        if let Some(error) = fails.clone().filter(|error| !matches!(error, JournalError::Volatile)) {
            return Err(error);
        }
        for draft in drafts {
            let record = record(&draft);
            if let (Some(order), Some(verdict)) =
                (AlarmOrder::read(&record), self.verdict.lock().unwrap().clone())
            {
                self.roll.note(order.command, verdict);
            }
            self.kept.lock().unwrap().push(draft);
        }
        fails.map_or(Ok(Committed { last_pos: 1, repeated: 0 }), Err)
    }
}

/// Devices that answer as they are told.
#[derive(Debug, Default)]
struct Devices {
    answers: Mutex<BTreeMap<String, Progress>>,
    detail: Mutex<Option<String>>,
    acted: Mutex<Vec<Action>>,
}

#[async_trait]
impl Act for Devices {
    async fn act(&self, action: Action) -> Report {
        let progress = self.answers.lock().unwrap().get(action.device.as_str()).copied();
        self.acted.lock().unwrap().push(action.clone());
        let Some(progress) = progress else { return std::future::pending().await };
        let detail = self.detail.lock().unwrap().clone().unwrap_or_else(|| "so it says".to_owned());
        Report { action: action.id, progress, attempt: 1, detail }
    }
}

#[derive(Debug)]
struct Rules;

#[async_trait]
impl RuleBook for Rules {
    async fn put(&self, _name: &str, toml: &str) -> Result<RulesPut, String> {
        match toml {
            "good" => Ok(RulesPut::Taken {
                rehearsal: json!({ "alarms": 3 }),
                detail: "at the next start".to_owned(),
            }),
            "bad" => Ok(RulesPut::Refused { findings: vec!["line 1: no such event".to_owned()] }),
            _ => Err("the disk is full".to_owned()),
        }
    }
}

struct Bench {
    desk: Desk,
    book: Arc<Book>,
    devices: Arc<Devices>,
    roll: Arc<Roll>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn device(building: &str, tags: &[&str], abilities: Abilities) -> DeviceEntry {
    DeviceEntry {
        kind: "thing".to_owned(),
        profile: ProfileName::new("thing").unwrap(),
        bus: None,
        bridge: None,
        place: Place { building: Some(building.to_owned()), ..Place::default() },
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        points: BTreeMap::new(),
        events: BTreeSet::new(),
        heartbeat_s: None,
        maintenance: false,
        abilities,
    }
}

impl Bench {
    fn new() -> Self {
        let speaker = || Abilities {
            speaker: Some(Speaker { lan: true, confirms_played: true, text_chars_max: 100 }),
            ..Abilities::default()
        };
        let door = || Abilities {
            door: true,
            outputs: [PointName::new("lock").unwrap()].into(),
            ..Abilities::default()
        };
        let relay = Abilities { outputs: [PointName::new("light").unwrap()].into(), ..Abilities::default() };
        let devices = [
            ("horn-1", device("1", &["gate", "loud"], speaker())),
            ("horn-2", device("2", &["gate"], speaker())),
            ("door-1", device("1", &["gate"], door())),
            ("door-2", device("2", &[], door())),
            ("relay-1", device("1", &[], relay)),
        ];
        let directory = Directory { devices: devices.map(|(name, entry)| (id(name), entry)).into() };
        let (roll, clock, folder) =
            (Arc::<Roll>::default(), Arc::new(ManualClock::new()), tempfile::tempdir().unwrap());
        let book = Arc::new(Book {
            roll: Arc::clone(&roll),
            verdict: Mutex::new(Some(Verdict::Done { rev: 2 })),
            fails: Mutex::new(None),
            kept: Mutex::new(Vec::new()),
        });
        let acting = Arc::new(Devices::default());
        let nothing: Source = Arc::new(|| json!({}));
        let desk = Desk::new(Parts {
            journal: Arc::clone(&book) as Arc<dyn Journal>,
            roll: Arc::clone(&roll),
            directory: Arc::new(directory),
            act: Arc::clone(&acting) as Arc<dyn Act>,
            rules: Arc::new(Rules),
            bundle: Bundle { dir: folder.path().to_owned(), parts: Vec::new(), summary: nothing },
            clock: Arc::clone(&clock) as SharedClock,
        });
        Self { desk, book, devices: acting, roll, clock, _folder: folder }
    }

    fn answers(&self, device: &str, progress: Progress) {
        self.devices.answers.lock().unwrap().insert(device.to_owned(), progress);
    }

    fn order(&self, verb: Verb) -> Order {
        Order {
            id: "street/c-1".to_owned(),
            verb,
            actor: Actor {
                operator: "duty-07".to_owned(),
                source: Origin::Platform(UplinkName::new("street").unwrap()),
                reason: "visitor".to_owned(),
            },
            scope: Scope::default(),
            at: self.clock.now(),
            lifetime_ms: 60_000,
        }
    }

    async fn does(&self, verb: Verb) -> Done {
        self.desk.perform(self.order(verb)).await
    }

    fn raise(&self, alarm: &str, building: &str, category: Category) {
        let draft = Draft::of_gateway(
            &self.clock.now(),
            None,
            ("x.happened", None),
            BTreeMap::new(),
            Text::default(),
        );
        let Body::Event(mut raised) = draft.body else { panic!("no event") };
        raised.place.building = Some(building.to_owned());
        raised.category = category;
        let alarm = Alarm::new(alarm.to_owned(), AlarmState::Unacknowledged, *raised);
        self.roll.put(Listed { seq: 1, test: false, at: self.clock.now(), alarm });
    }

    /// The trail: names of the events and their outcomes.
    fn trail(&self) -> Vec<(String, String)> {
        let kept = self.book.kept.lock().unwrap();
        let events = kept.iter().filter_map(|draft| match &draft.body {
            Body::Event(event) => Some(event),
            _ => None,
        });
        let text = |value: Option<&crate::model::record::Value>| match value {
            Some(crate::model::record::Value::Text(text)) => text.to_string(),
            _ => String::new(),
        };
        let trail = events.filter(|event| event.name.starts_with("command."));
        trail.map(|event| (event.name.clone(), text(event.params.get("outcome")))).collect()
    }

    /// The actions that the journal knows to be under way already.
    fn begun(&self) -> Vec<Action> {
        let kept = self.book.kept.lock().unwrap();
        kept.iter().map(record).filter(Action::is_begun).filter_map(|record| Action::read(&record)).collect()
    }
}

fn acknowledge(alarm: &str) -> Verb {
    Verb::Alarm { alarm: alarm.to_owned(), rev: Some(1), act: AlarmVerb::Acknowledge }
}

fn open(door: &str) -> Verb {
    Verb::OpenDoor { door: id(door) }
}

#[tokio::test]
async fn the_pipelines_verdict_is_the_answer() {
    let bench = Bench::new();
    bench.raise("a-1", "1", Category::Fire);
    let table = [
        (Some(Verdict::Done { rev: 2 }), End::Done, "ok"),
        (Some(Verdict::Already { rev: 2 }), End::Done, "already"),
        (Some(Verdict::Unknown), End::Rejected, "alarm_unknown"),
        (Some(Verdict::Outdated { rev: 5 }), End::Rejected, "outdated"),
        (Some(Verdict::Impossible("shelved".to_owned())), End::Rejected, "not_possible"),
    ];
    for (verdict, end, code) in table {
        bench.book.verdict.lock().unwrap().clone_from(&verdict);
        let done = bench.does(acknowledge("a-1")).await;
        assert_eq!((done.end, done.code.as_str()), (end, code), "{verdict:?}");
        if code == "outdated" {
            assert_eq!(done.data, Some(json!({ "alarm": "a-1", "rev": 5 })));
        }
    }
}

#[tokio::test]
async fn without_a_verdict_nobody_says_that_it_was_done() {
    let bench = Bench::new();
    *bench.book.verdict.lock().unwrap() = None;
    assert_eq!(bench.does(acknowledge("a-1")).await.end, End::Unknown);
}

#[tokio::test]
async fn what_lies_outside_the_scope_does_not_exist() {
    let bench = Bench::new();
    bench.raise("near", "1", Category::Fire);
    bench.raise("far", "2", Category::Fire);
    bench.raise("other", "1", Category::Care);
    bench.answers("door-1", Progress::Accepted);
    let scope = Scope { buildings: Some(["1".to_owned()].into()), categories: Some([Category::Fire].into()) };
    let within = async |verb| bench.desk.perform(Order { scope: scope.clone(), ..bench.order(verb) }).await;
    for (verb, code) in [
        (acknowledge("near"), "ok"),
        (acknowledge("far"), "alarm_unknown"),
        (acknowledge("other"), "alarm_unknown"),
        (acknowledge("nobody's"), "alarm_unknown"),
        (open("door-1"), "relay_pulsed"),
        (open("door-2"), "device_unknown"),
        // Of the whole compound, not of building 1 alone.
        (Verb::PutRules { name: "own".to_owned(), toml: "good".to_owned() }, "command_not_allowed"),
        (Verb::Diagnose, "command_not_allowed"),
    ] {
        assert_eq!(within(verb.clone()).await.code, code, "{verb:?}");
    }
    let listed = within(Verb::Snapshot).await.data.unwrap();
    assert_eq!((&listed["open"], &listed["alarms"][0]["alarm"]), (&json!(1), &json!("near")));
}

#[tokio::test]
async fn a_pulse_is_not_an_open_door() {
    let bench = Bench::new();
    let table = [
        (Progress::Accepted, End::Done, "relay_pulsed"),
        (Progress::Confirmed, End::Done, "contact_opened"),
        (Progress::Failed, End::Failed, "device_failed"),
        (Progress::Expired, End::Expired, "not_in_time"),
        (Progress::Unknown, End::Unknown, "unknown"),
        (Progress::Retrying, End::Unknown, "unknown"),
    ];
    for (progress, end, code) in table {
        bench.answers("door-1", progress);
        let done = bench.does(open("door-1")).await;
        assert_eq!((done.end, done.code.as_str()), (end, code), "{progress:?}");
        // Too soon for the same door.
        assert_eq!(bench.does(open("door-1")).await.code, "too_often");
        bench.clock.advance_ms(60_000);
    }
    let acted = bench.devices.acted.lock().unwrap();
    assert_eq!(acted.len(), table.len(), "a refused order reached the door");
    assert!(acted.iter().all(|action| action.act_within_ms <= 10_000), "{acted:?}");
}

#[tokio::test]
async fn what_is_to_be_switched_back_is_remembered_before_it_is_switched() {
    let bench = Bench::new();
    let relay = |for_ms| Verb::Relay {
        device: id("relay-1"),
        point: PointName::new("light").unwrap(),
        on: true,
        for_ms,
    };
    bench.answers("door-1", Progress::Accepted);
    bench.answers("relay-1", Progress::Accepted);
    bench.does(open("door-1")).await;
    bench.does(relay(None)).await;
    bench.does(relay(Some(5_000))).await;
    let acted = bench.devices.acted.lock().unwrap().clone();
    assert_eq!(bench.begun(), [acted[0].clone(), acted[2].clone()]);
}

#[tokio::test]
async fn a_door_that_stays_open_has_not_just_failed() {
    let bench = Bench::new();
    bench.answers("door-1", Progress::Failed);
    *bench.devices.detail.lock().unwrap() = Some(format!("{}: no reply", outcome::LEFT_ON));
    let done = bench.does(open("door-1")).await;
    assert_eq!((done.end, done.code.as_str()), (End::Failed, "left_open"));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_never_answers_is_unknown() {
    let bench = Bench::new();
    assert_eq!(bench.does(open("door-1")).await.end, End::Unknown);
}

#[tokio::test]
async fn orders_fit_what_a_device_can_do() {
    let bench = Bench::new();
    let point = |name: &str| PointName::new(name).unwrap();
    let relay = |device: &str, name: &str| Verb::Relay {
        device: id(device),
        point: point(name),
        on: true,
        for_ms: None,
    };
    bench.answers("relay-1", Progress::Confirmed);
    for (verb, code) in [
        (open("horn-1"), "not_possible"),
        (open("nothing"), "device_unknown"),
        (relay("relay-1", "light"), "read_back"),
        (relay("relay-1", "lock"), "not_possible"),
        // The way round the limits on doors.
        (relay("door-1", "lock"), "not_possible"),
        (Verb::Hush { speakers: vec![id("door-1")], tags: vec![] }, "not_possible"),
        (Verb::Hush { speakers: vec![], tags: vec!["nowhere".to_owned()] }, "device_unknown"),
    ] {
        assert_eq!(bench.does(verb.clone()).await.code, code, "{verb:?}");
    }
    assert_eq!(bench.devices.acted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn several_speakers_make_one_answer() {
    let speak = |tags: &[&str]| Verb::Speak {
        speakers: vec![],
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        text: Some("请注意".to_owned()),
        clip: None,
        volume: 80,
        repeat: 1,
    };
    let Verb::Speak { speakers, tags, clip, volume, repeat, .. } = speak(&["gate"]) else {
        panic!("no speech")
    };
    let long = Verb::Speak { speakers, tags, text: Some("字".repeat(101)), clip, volume, repeat };
    let bench = Bench::new();
    let done = bench.does(long).await;
    assert_eq!(
        (done.end, done.code.as_str()),
        (End::Rejected, "not_possible"),
        "the half of it is not what was ordered"
    );
    assert!(bench.devices.acted.lock().unwrap().is_empty());
    for (first, second, end, code) in [
        (Progress::Confirmed, Progress::Confirmed, End::Done, "played"),
        (Progress::Confirmed, Progress::Accepted, End::Done, "text_accepted"),
        (Progress::Confirmed, Progress::Failed, End::Failed, "in_part"),
        (Progress::Failed, Progress::Failed, End::Failed, "device_failed"),
        (Progress::Unknown, Progress::Failed, End::Unknown, "unknown"),
    ] {
        let bench = Bench::new();
        bench.answers("horn-1", first);
        bench.answers("horn-2", second);
        let done = bench.does(speak(&["gate"])).await;
        assert_eq!((done.end, done.code.as_str()), (end, code), "{first:?} {second:?}");
        assert_eq!(done.data.as_ref().and_then(Value::as_object).map(serde_json::Map::len), Some(2));
        let ids: BTreeSet<String> =
            bench.devices.acted.lock().unwrap().iter().map(|action| action.id.clone()).collect();
        assert_eq!(ids, ["street/c-1.1".to_owned(), "street/c-1.2".to_owned()].into());
    }
    let bench = Bench::new();
    bench.answers("horn-1", Progress::Confirmed);
    assert_eq!(bench.does(speak(&["loud"])).await.code, "played");
    let spoken = bench.devices.acted.lock().unwrap();
    assert!(matches!(&spoken[0].deed, Deed::Speak { text: Some(text), volume: 80, .. } if text == "请注意"));
}

#[tokio::test]
async fn nothing_is_done_that_the_trail_cannot_tell() {
    let bench = Bench::new();
    bench.answers("door-1", Progress::Accepted);
    *bench.book.fails.lock().unwrap() = Some(JournalError::Disk("dead".to_owned()));
    let done = bench.does(open("door-1")).await;
    assert_eq!((done.end, done.code.as_str()), (End::Rejected, "store_failed"));
    assert!(bench.devices.acted.lock().unwrap().is_empty());
    // In memory is better than nothing: the guard's hand must work while the card is dead.
    *bench.book.fails.lock().unwrap() = Some(JournalError::Volatile);
    assert_eq!(bench.does(acknowledge("a-1")).await.end, End::Done);
}

#[tokio::test]
async fn everything_is_in_the_trail_before_and_after() {
    let bench = Bench::new();
    bench.answers("door-1", Progress::Failed);
    bench.does(open("door-1")).await;
    bench.does(open("horn-1")).await;
    let entry = |name: &str, outcome: &str| (name.to_owned(), outcome.to_owned());
    assert_eq!(
        bench.trail(),
        [
            entry(COMMAND_ORDERED, ""),
            entry(COMMAND_ENDED, "failed"),
            entry(COMMAND_ORDERED, ""),
            entry(COMMAND_ENDED, "rejected"),
        ]
    );
    let mut nameless = bench.order(open("door-1"));
    nameless.actor.reason = " ".to_owned();
    assert_eq!(bench.desk.perform(nameless).await.end, End::Rejected);
}

#[tokio::test]
async fn rules_and_bundles() {
    let bench = Bench::new();
    let put = |toml: &str| Verb::PutRules { name: "own".to_owned(), toml: toml.to_owned() };
    for (toml, end, code) in [
        ("good", End::Done, "ok"),
        ("bad", End::Rejected, "rules_wrong"),
        ("unlucky", End::Failed, "rules_failed"),
    ] {
        let done = bench.does(put(toml)).await;
        assert_eq!((done.end, done.code.as_str()), (end, code));
    }
    let bundle = bench.does(Verb::Diagnose).await;
    assert_eq!(bundle.end, End::Done);
    assert_eq!(bundle.data.unwrap()["sha256"].as_str().map(str::len), Some(64));
}
