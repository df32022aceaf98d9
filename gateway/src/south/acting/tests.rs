//! Lanes over made-up devices, with a clock that is paused: nothing here waits for luck.

use std::collections::VecDeque;
use std::sync::Mutex as Lock;

use tokio::task::JoinHandle;

use super::*;
use crate::model::action::outcome;
use crate::model::ids::{BusName, ClientName, PointName};
use crate::model::journal::{Committed, JournalError};
use crate::model::record::{Body, Draft, Event, Severity, Value};
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::rt::clock::{Clock, ManualClock};
use crate::south::modbus::actuator::{WriteError, Written};
use crate::south::profile::shipped_profiles;

const DEVICES: &str = r#"
    [horn]
    profile = "lan-speaker"
    client = "horns"
    address = "h1"
    [loud]
    profile = "showdoc-tts"
    client = "horns"
    address = "h2"
    [lock]
    profile = "z2m-lock"
    client = "horns"
    address = "front"
    [gate]
    profile = "modbus-door"
    bus = "rs485"
    unit = 1
    contact = "reed"
    [io]
    profile = "waveshare-io8"
    bus = "rs485"
    unit = 2
"#;

/// What a made-up device does with an order.
#[derive(Debug, Clone, Copy)]
enum Does {
    Plays,
    /// Says nothing, for ever.
    Hangs,
    /// A mistake in the code of whoever sends.
    Panics,
    Refuses,
    Away,
}

/// A broker with devices behind it: does what the script says, the last for ever.
#[derive(Debug)]
struct Devices {
    script: Lock<VecDeque<Does>>,
    posts: Lock<Vec<(Instant, String, serde_json::Value)>>,
    answers: Arc<Answers>,
}

#[async_trait]
impl Post for Devices {
    async fn post(&self, topic: &str, payload: String) -> Result<(), PostError> {
        let order: serde_json::Value = serde_json::from_str(&payload).expect("orders are JSON");
        let does = {
            let mut script = self.script.lock().unwrap();
            let first = script.front().copied().unwrap_or(Does::Plays);
            if script.len() > 1 {
                script.pop_front();
            }
            first
        };
        assert!(!matches!(does, Does::Panics), "as the script says");
        if matches!(does, Does::Away) {
            return Err(PostError::NotListening);
        }
        self.posts.lock().unwrap().push((Instant::now(), topic.to_owned(), order.clone()));
        let base = topic.rsplit_once('/').map_or(topic, |(base, _)| base);
        let state = match does {
            Does::Plays => "played",
            Does::Refuses => "refused",
            _ => return Ok(()),
        };
        let said = serde_json::json!({"id": order["id"], "state": state, "reason": "no amplifier"});
        self.answers.heard(&format!("{base}/said"), said.to_string().as_bytes());
        let lock = serde_json::json!({"state": order["state"]});
        self.answers.heard(base, lock.to_string().as_bytes());
        Ok(())
    }
}

/// A field bus that echoes, reads back, or does what the script says.
#[derive(Debug, Default)]
struct Outputs {
    script: Lock<VecDeque<Result<Written, WriteError>>>,
    writes: Lock<Vec<(Instant, String, String, Value)>>,
}

#[async_trait]
impl Switch for Outputs {
    async fn switch(
        &self,
        device: &DeviceId,
        point: &PointName,
        value: Value,
        _lifetime: Duration,
    ) -> Result<Written, WriteError> {
        let (device, point) = (device.as_str().to_owned(), point.as_str().to_owned());
        self.writes.lock().unwrap().push((Instant::now(), device, point, value));
        self.script.lock().unwrap().pop_front().unwrap_or(Ok(Written::Verified))
    }
}

#[derive(Debug, Default)]
struct Book(Lock<Vec<Draft>>);

#[async_trait]
impl Journal for Book {
    async fn append(&self, drafts: Vec<Draft>, _durability: Durability) -> Result<Committed, JournalError> {
        self.0.lock().unwrap().extend(drafts);
        Ok(Committed { last_pos: 0, repeated: 0 })
    }
}

struct Site {
    acting: Arc<Acting>,
    asked_tx: mpsc::Sender<(Action, bool)>,
    devices: Arc<Devices>,
    outputs: Arc<Outputs>,
    book: Arc<Book>,
    ears: Arc<Ears>,
    held: Arc<Held>,
    clock: Arc<ManualClock>,
    cancel: CancellationToken,
    running: JoinHandle<()>,
}

fn site(script: &[Does]) -> Site {
    let answers: Arc<Answers> = Arc::default();
    let devices = Arc::new(Devices {
        script: Lock::new(script.iter().copied().collect()),
        posts: Lock::default(),
        answers: Arc::clone(&answers),
    });
    let (outputs, book, ears) = (Arc::<Outputs>::default(), Arc::<Book>::default(), Arc::<Ears>::default());
    let (clock, held) = (Arc::new(ManualClock::new()), Arc::<Held>::default());
    let parts = Parts {
        devices: toml::from_str(DEVICES).unwrap(),
        profiles: shipped_profiles().unwrap().into_iter().map(|(name, p)| (name, Arc::new(p))).collect(),
        ears: Arc::clone(&ears),
        held: Arc::clone(&held),
        journal: Arc::clone(&book) as _,
        clock: Arc::clone(&clock) as _,
    };
    let (asked_tx, asked_rx) = mpsc::channel(256);
    let acting = Arc::new(Acting::new(parts, asked_rx));
    let outgoing = Outgoing { base: "horns".to_owned(), post: Arc::clone(&devices) as _, answers };
    acting.connect(Speaker::Client(ClientName::new("horns").unwrap()), Wire::Mqtt(outgoing));
    let bus = Speaker::Bus(BusName::new("rs485").unwrap());
    acting.connect(bus, Wire::Modbus(Arc::clone(&outputs) as _));
    let cancel = CancellationToken::new();
    let (runs, token) = (Arc::clone(&acting), cancel.clone());
    #[expect(clippy::disallowed_methods, reason = "a test joins it at its end")]
    let running = tokio::task::spawn(async move { runs.run(&token).await });
    Site { acting, asked_tx, devices, outputs, book, ears, held, clock, cancel, running }
}

impl Site {
    fn action(&self, device: &str, deed: Deed, severity: Option<Severity>) -> Action {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Action {
            id: format!("e-1-r.1.{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            device: DeviceId::new(device).unwrap(),
            deed,
            alarm: None,
            severity,
            at: self.clock.now(),
            act_within_ms: 30_000,
            test: false,
        }
    }

    async fn ask(&self, device: &str, deed: Deed, severity: Severity) -> String {
        let action = self.action(device, deed, Some(severity));
        let id = action.id.clone();
        self.asked_tx.send((action, false)).await.unwrap();
        id
    }

    /// Every report of an action so far: progress and detail.
    fn reports(&self, id: &str) -> Vec<(String, String)> {
        let text = |event: &Event, name: &str| match event.params.get(name) {
            Some(Value::Text(text)) => text.to_string(),
            _ => String::new(),
        };
        let drafts = self.book.0.lock().unwrap();
        let events = drafts.iter().filter_map(|draft| match &draft.body {
            Body::Event(event) if text(event, "action") == id => Some(event),
            _ => None,
        });
        events.map(|event| (text(event, "progress"), text(event, "detail"))).collect()
    }

    fn said(&self) -> Vec<String> {
        let posts = self.devices.posts.lock().unwrap();
        let text = |order: &serde_json::Value| {
            let text = order["text"].as_str().or(order["content"].as_str()).or(order["state"].as_str());
            text.map_or_else(|| order.to_string(), str::to_owned)
        };
        posts.iter().map(|(_, _, order)| text(order)).collect()
    }

    fn writes(&self) -> Vec<(String, Value)> {
        let writes = self.outputs.writes.lock().unwrap();
        writes.iter().map(|(_, _, point, value)| (point.clone(), value.clone())).collect()
    }

    async fn end(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
    }
}

fn words(text: &str) -> Deed {
    Deed::Speak { text: Some(text.to_owned()), clip: None, volume: 50, repeat: 2 }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

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

fn contact_opened(at: &Stamp) -> Draft {
    let mut draft = Draft::of_gateway(
        at,
        None,
        ("contact.opened", None),
        BTreeMap::new(),
        crate::model::record::Text::default(),
    );
    if let Body::Event(event) = &mut draft.body {
        event.device.id = DeviceId::new("reed").unwrap();
    }
    draft
}

#[tokio::test(start_paused = true)]
async fn a_door_held_for_fire_is_not_locked_by_a_pulse() {
    let site = site(&[]);
    let release = |value| ("release".to_owned(), Value::Bool(value));
    site.ask("gate", Deed::Unlock { pulse_ms: None }, Severity::Critical).await;
    pass(6.0).await;
    let pulse = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    assert_eq!(site.acting.act(pulse).await.progress, Progress::Accepted);
    assert_eq!(site.writes(), [release(true), release(true)]);
    let lock = site.action("gate", Deed::Lock, None);
    assert_eq!(site.acting.act(lock).await.progress, Progress::Confirmed);
    assert_eq!(site.writes().last(), Some(&release(false)));
    site.end().await;
}

const HOLD: Deed = Deed::Unlock { pulse_ms: None };

#[tokio::test(start_paused = true)]
async fn fire_holds_a_door_as_soon_as_it_can_be_reached() {
    let site = site(&[]);
    let release = |value| ("release".to_owned(), Value::Bool(value));
    let no = Refusal::LineFailed;
    site.outputs.script.lock().unwrap().extend([
        Err(WriteError::TooLate),
        Err(WriteError::TooLate),
        Err(WriteError::Exception(4)),
        Err(WriteError::Unknown(no)),
    ]);
    let id = site.ask("gate", HOLD, Severity::Critical).await;
    pass(29.0).await;
    assert_eq!(site.writes(), vec![release(true); 5]);
    let progress: Vec<String> = site.reports(&id).into_iter().map(|report| report.0).collect();
    assert_eq!(progress, ["retrying", "retrying", "retrying", "accepted"], "the same is not told again");
    assert!(site.held.has(&DeviceId::new("gate").unwrap()));
    // One that can never be reached is given up when its time is over.
    site.outputs.script.lock().unwrap().extend(vec![Err(WriteError::TooLate); 100]);
    let never = site.ask("gate", HOLD, Severity::Critical).await;
    pass(40.0).await;
    let last = site.reports(&never).pop().unwrap();
    assert!(last.0 == "failed" && last.1.contains("given up"), "{last:?}");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_ends_what_fire_tries() {
    let site = site(&[]);
    site.outputs.script.lock().unwrap().extend(vec![Err(WriteError::TooLate); 2]);
    let id = site.ask("gate", HOLD, Severity::Critical).await;
    pass(0.1).await;
    let lock = site.action("gate", Deed::Lock, None);
    site.acting.act(lock).await;
    pass(60.0).await;
    assert_eq!(site.reports(&id).last().unwrap().0, "preempted");
    assert_eq!(site.writes().last(), Some(&("release".to_owned(), Value::Bool(false))));
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_locks_no_door_that_fire_holds() {
    let site = site(&[]);
    let release = |value| ("release".to_owned(), Value::Bool(value));
    site.held.put(&DeviceId::new("gate").unwrap(), true);
    let pulse = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    assert_eq!(site.acting.act(pulse).await.progress, Progress::Accepted);
    assert_eq!(site.writes(), [release(true)]);
    let lock = site.action("gate", Deed::Lock, None);
    site.acting.act(lock).await;
    let pulse = site.action("gate", Deed::Unlock { pulse_ms: Some(1_000) }, None);
    site.acting.act(pulse).await;
    assert_eq!(site.writes()[1..], [release(false), release(true), release(false)]);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn fire_does_not_wait_behind_a_lock_that_does_not_answer() {
    let site = site(&[Does::Hangs, Does::Plays]);
    let pulse = site.ask("lock", Deed::Unlock { pulse_ms: Some(3_000) }, Severity::Major).await;
    pass(1.0).await;
    let hold = site.ask("lock", HOLD, Severity::Critical).await;
    pass(0.1).await;
    assert_eq!(site.reports(&pulse)[0].0, "unknown");
    assert_eq!(site.reports(&hold)[0].0, "confirmed");
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_mistake_costs_one_order() {
    let site = site(&[Does::Panics, Does::Plays]);
    let pulse = || Deed::Unlock { pulse_ms: Some(3_000) };
    let first = site.action("lock", pulse(), None);
    assert_eq!(site.acting.act(first).await.progress, Progress::Unknown);
    let second = site.action("lock", pulse(), None);
    assert_eq!(site.acting.act(second).await.progress, Progress::Confirmed);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_orders_hours_is_answered_at_once() {
    let site = site(&[]);
    let on = Deed::Relay { point: PointName::new("do1").unwrap(), on: true, for_ms: Some(86_400_000) };
    let (began, action) = (Instant::now(), site.action("io", on, None));
    let id = action.id.clone();
    let report = site.acting.act(action).await;
    assert_eq!((report.progress, report.detail.as_str()), (Progress::Confirmed, outcome::RELAY_READ_BACK));
    assert!(began.elapsed() < Duration::from_secs(1) && site.reports(&id).is_empty());
    pass(86_401.0).await;
    assert_eq!(site.reports(&id), [("confirmed".to_owned(), outcome::RELAY_PULSED.to_owned())]);
    site.end().await;
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
async fn what_was_begun_before_a_restart_is_not_done_again_and_brought_to_rest() {
    let site = site(&[Does::Plays]);
    let do1 = || PointName::new("do1").unwrap();
    for (device, deed, progress, writes, posts) in [
        ("gate", Deed::Unlock { pulse_ms: Some(3_000) }, "unknown", vec![Value::Bool(false)], 0),
        // Held twice is no worse than held once, and shut in a fire is.
        ("gate", Deed::Unlock { pulse_ms: None }, "accepted", vec![Value::Bool(true)], 0),
        ("gate", Deed::Unlock { pulse_ms: Some(3_000) }, "unknown", vec![], 0),
        ("lock", Deed::Unlock { pulse_ms: Some(3_000) }, "unknown", vec![], 0),
        (
            "io",
            Deed::Relay { point: do1(), on: true, for_ms: Some(5_000) },
            "unknown",
            vec![Value::Bool(false)],
            0,
        ),
        ("io", Deed::Relay { point: do1(), on: true, for_ms: None }, "unknown", vec![], 0),
        ("horn", words("还在说"), "confirmed", vec![], 1),
    ] {
        site.outputs.writes.lock().unwrap().clear();
        site.devices.posts.lock().unwrap().clear();
        let action = site.action(device, deed.clone(), Some(Severity::Critical));
        let id = action.id.clone();
        site.asked_tx.send((action, true)).await.unwrap();
        pass(20.0).await;
        assert_eq!(site.reports(&id).last().unwrap().0, progress, "{deed:?}");
        let written: Vec<Value> = site.writes().into_iter().map(|(_, value)| value).collect();
        assert_eq!((written, site.said().len()), (writes, posts), "{deed:?}");
    }
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_output_is_on_for_its_time_and_a_later_order_takes_it_over() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let first = site.ask("io", relay(true, Some(600_000)), Severity::Major).await;
    let other = Deed::Relay { point: PointName::new("do2").unwrap(), on: true, for_ms: None };
    let beside = site.ask("io", other, Severity::Major).await;
    pass(10.0).await;
    assert_eq!(site.reports(&beside)[0].1, outcome::RELAY_READ_BACK, "outputs do not wait for each other");
    assert!(site.reports(&first).is_empty());
    let off = site.action("io", relay(false, None), None);
    assert_eq!(site.acting.act(off).await.detail, outcome::RELAY_READ_BACK);
    assert_eq!(site.reports(&first), [("accepted".to_owned(), outcome::TAKEN_OVER.to_owned())]);
    let pulse = site.ask("io", relay(true, Some(2_000)), Severity::Major).await;
    // The first try to switch back fails: it is tried again.
    pass(1.0).await;
    site.outputs.script.lock().unwrap().push_back(Err(WriteError::Busy));
    pass(10.0).await;
    assert_eq!(site.reports(&pulse), [("confirmed".to_owned(), outcome::RELAY_PULSED.to_owned())]);
    assert_eq!(site.writes().last(), Some(&("do1".to_owned(), Value::Bool(false))));
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_comes_to_nothing_takes_nothing_over() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let pulse = || Deed::Unlock { pulse_ms: Some(20_000) };
    for (device, first, then) in
        [("io", relay(true, Some(20_000)), relay(false, None)), ("gate", pulse(), pulse())]
    {
        let siren = site.ask(device, first, Severity::Major).await;
        pass(5.0).await;
        site.outputs.script.lock().unwrap().push_back(Err(WriteError::Busy));
        let off = site.action(device, then, None);
        assert_eq!(site.acting.act(off).await.progress, Progress::Failed);
        assert!(site.reports(&siren).is_empty(), "it runs on");
        pass(10.0).await;
        assert!(site.reports(&siren).is_empty(), "it runs on for its time");
        pass(6.0).await;
        assert_eq!(site.reports(&siren)[0].1, outcome::RELAY_PULSED);
        assert_eq!(site.writes().last().map(|(_, value)| value.clone()), Some(Value::Bool(false)));
    }
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_switched_back_is_switched_back_in_its_time() {
    let site = site(&[]);
    let relay = |on, for_ms| Deed::Relay { point: PointName::new("do1").unwrap(), on, for_ms };
    let siren = site.ask("io", relay(true, Some(20_000)), Severity::Major).await;
    pass(5.0).await;
    site.outputs.script.lock().unwrap().push_back(Err(WriteError::Unknown(Refusal::LineFailed)));
    let off = site.action("io", relay(false, None), None);
    assert_eq!(site.acting.act(off).await.progress, Progress::Unknown);
    pass(20.0).await;
    assert_eq!(site.writes().len(), 3, "on, off, and off in its time");
    assert_eq!(site.reports(&siren)[0].1, outcome::RELAY_PULSED);
    site.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_switched_on_when_the_box_stops() {
    for failure in [None, Some(WriteError::Busy)] {
        let mut site = site(&[]);
        let io = Deed::Relay { point: PointName::new("do1").unwrap(), on: true, for_ms: Some(600_000) };
        let ids = [
            site.ask("io", io, Severity::Major).await,
            site.ask("gate", Deed::Unlock { pulse_ms: Some(3_000) }, Severity::Major).await,
        ];
        pass(1.0).await;
        site.outputs.writes.lock().unwrap().clear();
        let fails = failure.clone().map(Err);
        site.outputs.script.lock().unwrap().extend([fails.clone(), fails].into_iter().flatten());
        site.cancel.cancel();
        (&mut site.running).await.unwrap();
        let mut writes = site.writes();
        writes.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            writes,
            [("do1".to_owned(), Value::Bool(false)), ("release".to_owned(), Value::Bool(false))]
        );
        // What could not be switched back is under way for the next start.
        for id in ids {
            assert_eq!(site.reports(&id).len(), usize::from(failure.is_none()), "{failure:?}");
        }
    }
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
