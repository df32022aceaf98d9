//! Lanes over made-up devices, with a clock that is paused: nothing here waits for luck.

mod doors;
mod ending;
mod holding;
mod outputs;
mod speaking;

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
    /// The next so many writes meet a mistake in the code.
    panics: AtomicU32,
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
        let panics = self.panics.load(Ordering::Relaxed);
        self.panics.store(panics.saturating_sub(1), Ordering::Relaxed);
        assert_eq!(panics, 0, "as the test says");
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
    roll: Arc<Roll>,
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
    let roll = Arc::<Roll>::default();
    let parts = Parts {
        devices: toml::from_str(DEVICES).unwrap(),
        profiles: shipped_profiles().unwrap().into_iter().map(|(name, p)| (name, Arc::new(p))).collect(),
        ears: Arc::clone(&ears),
        held: Arc::clone(&held),
        roll: Arc::clone(&roll),
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
    Site { acting, asked_tx, devices, outputs, book, ears, held, roll, clock, cancel, running }
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
    Deed::Speak { text: Some(text.to_owned()), clip: None, volume: 50, repeat: 2, until: None }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
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
