//! Orders over a connection: done at most once, whatever comes again and wherever the link dies.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::model::command::{Done, End, Order, Perform};

const TOPIC: &str = "gatehouse/v1/gate-1/down/command";

/// A door that opens when the test lets it.
#[derive(Debug)]
struct Door {
    begun: AtomicUsize,
    orders: Mutex<Vec<Order>>,
    allowed: Semaphore,
}

#[async_trait]
impl Perform for Door {
    async fn perform(&self, order: Order) -> Done {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.orders.lock().unwrap().push(order);
        self.allowed.acquire().await.unwrap().forget();
        Done { end: End::Done, code: "contact_opened".to_owned(), detail: String::new(), data: None }
    }
}

async fn bench() -> (Bench, Arc<Door>) {
    let mut bench = Bench::start(Script::default(), quick(), 1).await;
    bench.stop().await;
    bench.cancel = CancellationToken::new();
    let door =
        Arc::new(Door { begun: AtomicUsize::new(0), orders: Mutex::default(), allowed: Semaphore::new(0) });
    bench.parts.perform = Arc::clone(&door) as Arc<dyn Perform>;
    bench.parts.config.commands = toml::from_str("allow = [\"door.open\"]").unwrap();
    bench.begin();
    bench.next_event_or_state().await;
    (bench, door)
}

impl Bench {
    async fn next_event_or_state(&mut self) {
        loop {
            let heard = self.broker.next_on("/up/state").await;
            if heard.json["data"]["online"] == true && heard.json["data"]["commands"] == json!(["door.open"])
            {
                return;
            }
        }
    }

    async fn order(&self, command: &Value) {
        self.broker.publish(TOPIC, &command.to_string(), false).await;
    }

    async fn answer(&mut self) -> Value {
        self.broker.next_on("/up/command/result").await.json["data"].clone()
    }
}

fn open(id: &str, door: &str, lifetime_s: u32) -> Value {
    let now = machine_clock().now();
    json!({
        "id": id, "command": "door.open", "lifetime_s": lifetime_s, "operator": "duty-07", "reason": "visitor",
        "issued": { "bootid": now.boot.0, "monotonic": now.mono_ms.to_string() },
        "args": { "door": door },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_carried_out_once_whatever_comes_again() {
    let (mut bench, door) = bench().await;
    let first = open("d-1", "door-1", 1);
    bench.order(&first).await;
    assert_eq!(bench.answer().await["outcome"], "accepted");
    // Again while the door is still being opened, and under the same id for another door.
    bench.order(&first).await;
    assert_eq!(bench.answer().await["outcome"], "accepted");
    bench.order(&open("d-1", "door-2", 1)).await;
    assert_eq!(bench.answer().await["code"], "command_not_allowed");
    door.allowed.add_permits(1);
    let done = bench.answer().await;
    assert_eq!((&done["outcome"], &done["code"]), (&json!("done"), &json!("contact_opened")));
    // When its life is over, what was done is still done, and not expired.
    let late = loop {
        let mut late = first.clone();
        late["id"] = json!(format!("d-{}", fastrand::u64(..)));
        late["command"] = json!("door.open");
        bench.order(&late).await;
        let answer = bench.answer().await;
        if answer["outcome"] == "expired" {
            break late;
        }
        door.allowed.add_permits(1);
        bench.answer().await;
    };
    let begun = door.begun.load(Ordering::SeqCst);
    bench.order(&first).await;
    assert_eq!(bench.answer().await["outcome"], "done");
    bench.order(&late).await;
    assert_eq!(bench.answer().await["outcome"], "expired");
    assert_eq!(door.begun.load(Ordering::SeqCst), begun);
    let order = door.orders.lock().unwrap()[0].clone();
    assert_eq!((order.id.as_str(), order.actor.operator.as_str()), ("street/d-1", "duty-07"));
    assert!(order.lifetime_ms <= 1_000);
    // Refused and repeated ones are in the trail.
    bench.event_comes("command.ended").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dies_between_act_and_record_ends_as_unknown() {
    let (mut bench, door) = bench().await;
    let order = open("d-1", "door-1", 60);
    bench.order(&order).await;
    assert_eq!(bench.answer().await["outcome"], "accepted");
    for _ in 0..2_000 {
        if door.begun.load(Ordering::SeqCst) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.crash().await;
    // Nobody needs to ask: the platform is told.
    let told = bench.answer().await;
    assert_eq!((&told["command_id"], &told["outcome"]), (&json!("d-1"), &json!("unknown")));
    bench.order(&order).await;
    assert_eq!(bench.answer().await["outcome"], "unknown");
    assert_eq!(door.begun.load(Ordering::SeqCst), 1, "a door was opened again");
    door.allowed.add_permits(1);
    bench.order(&open("d-2", "door-1", 60)).await;
    assert_eq!(bench.answer().await["outcome"], "accepted");
    assert_eq!(bench.answer().await["outcome"], "done");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_gives_the_commands_it_may_give() {
    let (mut bench, door) = bench().await;
    let mut other = open("d-1", "door-1", 60);
    other["command"] = json!("alarm.close");
    bench.order(&other).await;
    assert_eq!(bench.answer().await["code"], "command_not_allowed");
    let mut wrong = open("d-2", "door-1", 60);
    wrong["args"]["hold"] = json!(true);
    bench.order(&wrong).await;
    let refused = bench.answer().await;
    assert_eq!(refused["code"], "down_malformed");
    assert!(refused["detail"].as_str().unwrap().contains("hold"), "{refused}");
    assert_eq!(door.begun.load(Ordering::SeqCst), 0);
    bench.stop().await;
}
