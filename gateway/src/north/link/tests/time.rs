//! The platform tells the time: asked by a nonce in the state, answered once, believed or refused by name.

use serde_json::json;

use super::*;
use crate::model::stamp::ClockTrust;

const DOWN: &str = "gatehouse/v1/gate-1/down/time";
/// The true time is the machine's, in all of these tests.
const DAY_MS: i64 = 24 * 3_600_000;

impl Bench {
    /// A link whose machine tells `battery` of its clock.
    async fn start_with(battery: Battery) -> Self {
        let mut bench = Self::start(Script::default(), quick(), 0).await;
        bench.stop().await;
        bench.cancel = CancellationToken::new();
        bench.parts.clock = Arc::new(SystemClock::new(Evidence { battery, ntp: None }));
        bench.broker.rest();
        bench.begin();
        bench
    }

    /// The next state that `wanted` accepts.
    async fn state(&mut self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        loop {
            let state = self.broker.next_on("/up/state").await.json;
            if wanted(&state) {
                return state;
            }
        }
    }

    async fn nonce(&mut self) -> String {
        let state = self.state(|state| state["data"]["clock"]["nonce"].is_string()).await;
        state["data"]["clock"]["nonce"].as_str().unwrap().to_owned()
    }

    async fn tell(&self, nonce: &str, lie_ms: i64) {
        let time = jiff::Timestamp::from_millisecond(machine_clock().now().wall_ms + lie_ms).unwrap();
        self.broker
            .publish(DOWN, &json!({ "nonce": nonce, "time": time.to_string() }).to_string(), false)
            .await;
    }

    /// Waits until something was refused for this reason so many times.
    async fn refused(&self, reason: &str, times: u64) {
        for _ in 0..1_000 {
            let counts = self.metrics.refusals();
            let count = counts.iter().find(|count| count.labels.iter().any(|label| label == reason));
            if count.map(|count| count.count) == Some(times) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{reason} was not counted {times} times: {:?}", self.metrics.refusals());
    }

    fn trust(&self) -> ClockTrust {
        self.parts.clock.now().trust
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_the_nonce_gives_the_time_once() {
    let mut bench = Bench::start_with(Battery::Absent).await;
    let nonce = bench.nonce().await;
    bench.tell("t-0011", 0).await;
    bench.refused("time_unasked", 1).await;
    assert_eq!(bench.trust(), ClockTrust::None);
    bench.tell(&nonce, 0).await;
    let state = bench.state(|state| state["data"]["reason"] == "clock").await;
    assert_eq!(state["data"]["clock"]["trust"], "platform");
    assert_eq!(state["data"]["clock"].get("nonce"), None, "the retained state asks no more");
    assert!(state["data"]["clock"]["offset_ms"].is_i64());
    assert_eq!(state["clocktrust"], "platform");
    bench.tell(&nonce, DAY_MS).await;
    bench.refused("time_unasked", 2).await;
    assert_eq!(bench.trust(), ClockTrust::Platform);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_of_a_day_is_refused_counted_and_told() {
    let mut bench = Bench::start_with(Battery::Hosted).await;
    let nonce = bench.nonce().await;
    let before = bench.parts.clock.now();
    bench.tell(&nonce, DAY_MS).await;
    bench.refused("time_disputed", 1).await;
    let told = bench.broker.next_on("/up/event/device").await;
    assert_eq!(told.json["data"]["name"], "clock.disputed");
    let differs_ms = told.json["data"]["params"]["differs_ms"].as_i64().unwrap();
    assert!((differs_ms - DAY_MS).abs() < 20_000, "{differs_ms}");
    let now = bench.parts.clock.now();
    assert_eq!(now.trust, ClockTrust::Rtc);
    assert!((now.wall_ms - before.wall_ms) < DAY_MS / 2, "time goes on as before");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_cannot_be_is_refused_by_a_name_of_its_own() {
    let mut bench = Bench::start_with(Battery::Absent).await;
    let nonce = bench.nonce().await;
    bench
        .broker
        .publish(DOWN, &json!({ "nonce": nonce, "time": "1970-01-01T00:00:07Z" }).to_string(), false)
        .await;
    bench.refused("time_implausible", 1).await;
    assert_eq!(bench.trust(), ClockTrust::None);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_tell_the_time_is_not_asked() {
    let mut bench = Bench::start(Script::default(), quick(), 0).await;
    bench.stop().await;
    bench.cancel = CancellationToken::new();
    bench.parts.clock = Arc::new(SystemClock::new(Evidence::default()));
    bench.parts.config = UplinkConfig { time: false, ..config(&bench.broker.url, quick()) };
    bench.broker.rest();
    bench.begin();
    let state = bench.state(|state| state["data"]["online"] == true).await;
    assert_eq!(state["data"]["clock"].get("nonce"), None);
    bench.tell("t-0011", 0).await;
    bench.refused("time_unasked", 1).await;
    bench.stop().await;
}
