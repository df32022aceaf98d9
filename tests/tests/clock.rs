//! The clock lies: 1970, jumps of a year each way, platforms that tell the time and some that do not tell the truth
//! (promise G8). libfaketime moves the wall clock of the built program and leaves its monotonic clock alone.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::audit::audit;
use gatehouse_tests::device::Device;
use gatehouse_tests::faketime::{FakeClock, true_s};
use gatehouse_tests::gateway::{Gateway, Plan, Uplink, program};
use gatehouse_tests::http;
use gatehouse_tests::mosquitto::{Mosquitto, Options};
use gatehouse_tests::pki::Pki;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::process::Process;
use gatehouse_tests::site::{SOON, await_event, await_presses, press, pressed, presses};
use gatehouse_tests::turn;
use gatehouse_tests::wait::{eventually, eventually_ok};
use serde_json::{Value, json};
use tempfile::TempDir;

const BUTTON: &str = "button-1";
const YEAR_S: i64 = 365 * 86_400;
const DAY_S: i64 = 86_400;
/// How exact a derived time must be on a busy machine.
const EXACT_S: i64 = 20;
/// The present, as far as machines that have a timesyncd are concerned: its mark lies in this one's future and says
/// nothing, so that the tests run alike everywhere.
const NOW_S: i64 = -20 * DAY_S;

/// A gateway on a machine whose clock somebody keeps, but for its wall clock's time.
fn plan(name: &str, url: &str) -> Plan {
    Plan { gateway: "trust_clock = true\n".to_owned(), ..Plan::new(name, url) }
}

async fn start(plan: Plan, clock: &FakeClock) -> Gateway {
    let mut gateway = Gateway::prepare(plan);
    gateway.run_faked(clock).await;
    gateway
}

/// Waits for a state that `wanted` accepts.
async fn state(platform: &Platform, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let fits = |message: &Message| message.channel() == "state" && wanted(&message.json["data"]);
    platform.await_message(what, SOON, fits).await.json
}

/// The clock records so far.
fn changes(platform: &Platform) -> Vec<Value> {
    let is_change = |message: &&Message| message.json["data"]["name"] == "clock.changed" && !message.retained;
    platform.look(|all| all.iter().filter(is_change).map(|message| message.json.clone()).collect())
}

async fn await_changes(platform: &Platform, count: usize) -> Value {
    let what = format!("{count} clock records");
    eventually(&what, SOON, || changes(platform).get(count - 1).cloned()).await
}

async fn pressed_message(platform: &Platform, n: u64) -> Value {
    let wanted = |message: &Message| pressed(message, BUTTON) == Some(n);
    platform.await_message("the press", SOON, wanted).await.json
}

/// Seconds since 1970 of an RFC 3339 time as the contract writes it, for a comparison within a day.
fn day_of(time: &Value) -> &str {
    time.as_str().map_or("", |text| &text[..10])
}

/// Both say the same, but for the moment between a look at one clock and at the other.
fn assert_same_offset(a: &Value, b: &Value) {
    let (a, b) = (a["offset_ms"].as_i64().unwrap(), b["offset_ms"].as_i64().unwrap());
    assert!((a - b).abs() <= 100, "{a} and {b}");
}

fn tell(platform: &Platform, gateway: &str, nonce: &str, time_s: i64) {
    let time = rfc3339(time_s);
    platform.publish(
        &format!("gatehouse/v1/{gateway}/down/time"),
        json!({ "nonce": nonce, "time": time }).to_string(),
        false,
    );
}

/// Seconds since 1970 in words, by `date`.
fn rfc3339(time_s: i64) -> String {
    let output = Command::new("date").args(["-u", "-d", &format!("@{time_s}"), "+%FT%TZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn refused(gateway: &Gateway, reason: &str, times: f64) {
    eventually_ok(&format!("{reason} is counted"), SOON, async || {
        let count = gateway.refused(reason).await;
        if (count - times).abs() < 0.5 { Ok(()) } else { Err(format!("{count} times")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_in_1970_waits_for_no_clock_and_mends_its_times_later() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let folder = TempDir::new().unwrap();
    let mut check = Command::new(program());
    check.args(["platform-check", "--url", &mosquitto.url(), "--for", "15s", "--from-start"]);
    let mut check = Process::spawn("platform-check", &mut check, &folder.path().join("check.log"));
    eventually("it listens", SOON, || check.output().contains("listening").then_some(())).await;
    let clock = FakeClock::in_1970();
    let mut gateway = start(plan("gw-1970", &mosquitto.url()), &clock).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    let first = pressed_message(&platform, 1).await;
    assert_eq!(first.get("time"), None, "{first}");
    assert_eq!(first["clocktrust"], "none");
    assert!(first["age"].as_u64().unwrap() < 20_000, "{first}");
    let change = await_changes(&platform, 1).await;
    assert_eq!(change["data"]["params"]["trust"], "none", "{change}");

    clock.set(NOW_S);
    let change = await_changes(&platform, 2).await;
    let params = &change["data"]["params"];
    assert_eq!((&params["trust"], &params["before_trust"]), (&"rtc".into(), &"none".into()));
    assert!((params["jumped_ms"].as_i64().unwrap() / 1_000 - (true_s() + NOW_S)).abs() < 120, "{params}");
    let mended = state(&platform, "the correction", |data| data["clock"]["offset_ms"].is_i64()).await;
    assert_eq!(mended["bootid"], first["bootid"]);
    assert_same_offset(&mended["data"]["clock"], params);
    // As docs/platform says: monotonic + offset is when it happened.
    let monotonic: i64 = first["monotonic"].as_str().unwrap().parse().unwrap();
    let derived_s = (monotonic + mended["data"]["clock"]["offset_ms"].as_i64().unwrap()) / 1_000;
    assert!((derived_s - (true_s() + NOW_S)).abs() < EXACT_S + 30, "{derived_s}");
    press(&mut device, BUTTON, 2).await.unwrap();
    let second = pressed_message(&platform, 2).await;
    assert_eq!(second["clocktrust"], "rtc");
    assert_eq!(day_of(&second["time"]), &rfc3339(true_s() + NOW_S)[..10]);
    let late = Platform::start(mosquitto.address(), "gatehouse/v1/gw-1970/up/state").await;
    let kept = late.await_message("the retained state", SOON, |message| message.retained).await;
    assert_same_offset(&kept.json["data"]["clock"], params);

    let stored = gateway.journal();
    let press = stored.iter().find(|line| line["id"] == first["id"]).unwrap();
    assert_eq!(day_of(&press["time"]), "1970-01-01", "the stamp stays");
    assert_eq!(day_of(&press["derived"]["time"]), &rfc3339(true_s() + NOW_S)[..10]);
    assert_eq!(gateway.status()["board"]["clock"]["source"], "host");
    gateway.stop().await;
    platform.look(|messages| audit(messages, "gw-1970")).assert_clean();
    let checked = check.wait(SOON).await;
    assert_eq!(checked.code(), Some(0), "{}", check.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_a_year_each_way_disturbs_nobody() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let clock = FakeClock::at(NOW_S);
    let mut gateway = start(plan("gw-jump", &mosquitto.url()), &clock).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    let mut n = 0;
    let jumps = [0, YEAR_S, -YEAR_S, 0];
    for (jump, count) in jumps.into_iter().zip(1..) {
        clock.set(NOW_S + jump);
        let change = await_changes(&platform, count).await;
        if count > 1 {
            let jumped_s = change["data"]["params"]["jumped_ms"].as_i64().unwrap() / 1_000;
            let expected_s = jump - jumps[count - 2];
            assert!((jumped_s - expected_s).abs() <= 2, "{jumped_s} instead of {expected_s}");
        }
        for _press in 0..5 {
            n += 1;
            press(&mut device, BUTTON, n).await.unwrap();
            let message = pressed_message(&platform, n).await;
            assert_eq!(message["replay"], false);
            assert!(message["age"].as_u64().unwrap() < 20_000, "{message}");
        }
    }
    await_presses(&platform, BUTTON, &(1..=n).collect(), SOON).await;
    // Longer than a PUBACK may take and than a keep-alive's half: whoever waits by wall time gave up by now.
    tokio::time::sleep(Duration::from_secs(9)).await;
    let arrived = platform.look(|messages| presses(messages, BUTTON));
    assert_eq!(arrived, (1..=n).collect::<Vec<_>>(), "each once, in order");
    let metrics = gateway.metrics().await;
    let connected = [("outcome", "connected")];
    let connections = http::series(&metrics, "gatehouse_uplink_connections_total", &connected);
    assert!((connections - 1.0).abs() < 0.5, "{connections} connections");
    let connects: BTreeSet<u64> = platform.look(|messages| {
        let states = messages.iter().filter(|message| message.channel() == "state");
        states.filter_map(|message| message.json["data"]["conn"].as_u64()).collect()
    });
    assert_eq!(connects, [1].into());
    let status = gateway.status();
    let restarts = http::series(&metrics, "gatehouse_unit_restarts_total", &[]);
    assert!(restarts < 0.5, "{restarts} restarts: {status}");
    press(&mut device, BUTTON, n + 1).await.expect("the device's session stands as well");
    gateway.stop().await;
    platform.look(|messages| audit(messages, "gw-jump")).assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_gives_a_box_in_1970_the_time_by_its_nonce() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let clock = FakeClock::in_1970();
    let mut gateway = Gateway::prepare(Plan::new("gw-told", &mosquitto.url()));
    gateway.run_faked(&clock).await;
    let asked = state(&platform, "the question", |data| data["clock"]["nonce"].is_string()).await;
    let nonce = asked["data"]["clock"]["nonce"].as_str().unwrap().to_owned();
    tell(&platform, "gw-told", "t-000000", true_s());
    refused(&gateway, "time_unasked", 1.0).await;
    tell(&platform, "gw-told", &nonce, true_s());
    let told = state(&platform, "the time is taken", |data| data["clock"]["trust"] == "platform").await;
    assert_eq!(told["data"]["clock"].get("nonce"), None);
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    let message = pressed_message(&platform, 1).await;
    assert_eq!(message["clocktrust"], "platform");
    assert_eq!(day_of(&message["time"]), &rfc3339(true_s())[..10]);
    let change = |message: &Message| message.json["data"]["params"]["trust"] == "platform";
    let change = platform.await_message("the clock record", SOON, change).await;
    assert_eq!(change.param("uplink"), "street");
    // Repeated, and with another time: it stays as it is.
    tell(&platform, "gw-told", &nonce, true_s() + DAY_S);
    refused(&gateway, "time_unasked", 2.0).await;
    let status = gateway.status();
    assert_eq!(status["board"]["clock"]["source"], "platform");
    let offset_s = status["board"]["clock"]["offset_ms"].as_i64().unwrap() / 1_000;
    let now_s = offset_s + status["now"]["mono_ms"].as_i64().unwrap() / 1_000;
    assert!((now_s - true_s()).abs() < EXACT_S, "{now_s}");
    // After a restart of the process alone the boot's time is known at once.
    gateway.stop().await;
    let before = platform.look(<[Message]>::len);
    gateway.run_faked(&clock).await;
    let again =
        |message: &Message| message.channel() == "state" && message.json["data"]["conn"].as_u64() > Some(1);
    let again = eventually("the next state", SOON, || {
        platform.look(|all| all[before..].iter().find(|message| again(message)).cloned())
    })
    .await;
    assert_ne!(again.json["data"]["clock"]["trust"], "none", "{}", again.json);
    assert_eq!(day_of(&again.json["time"]), &rfc3339(true_s())[..10]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_lies_by_a_day_is_refused_counted_and_told() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let clock = FakeClock::at(NOW_S);
    let mut gateway = start(plan("gw-liar", &mosquitto.url()), &clock).await;
    let asked = state(&platform, "the question", |data| data["clock"]["nonce"].is_string()).await;
    let nonce = asked["data"]["clock"]["nonce"].as_str().unwrap();
    tell(&platform, "gw-liar", nonce, true_s() + NOW_S + DAY_S);
    refused(&gateway, "time_disputed", 1.0).await;
    let event = await_event(&platform, "clock.disputed", SOON).await;
    assert_eq!(event.param("uplink"), "street");
    let differs_s = event.param("differs_ms").as_i64().unwrap() / 1_000;
    assert!((differs_s - DAY_S).abs() < EXACT_S, "{differs_s}");
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    let message = pressed_message(&platform, 1).await;
    assert_eq!(message["clocktrust"], "rtc");
    assert_eq!(day_of(&message["time"]), &rfc3339(true_s() + NOW_S)[..10]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_in_1970_gets_through_tls() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    // Made an hour ago: to the box's clock all of them are still to come.
    let seconds = u64::try_from(true_s() - 3_600).unwrap();
    let pki = Pki::valid_from(folder.path(), Some(seconds));
    let server = pki.identity("server");
    let options = Options { tls: Some((&pki, &server)), ..Options::default() };
    let mosquitto = Mosquitto::start_with(&options).await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let own = pki.identity("gw-tls-1970");
    let files = format!("ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}", pki.ca(), own.cert, own.key);
    let mut plan = Plan::new("gw-tls-1970", "");
    plan.uplinks = vec![Uplink::new("street", &mosquitto.tls_url()).extra(&files)];
    let mut gateway = Gateway::prepare(plan);
    let clock = FakeClock::in_1970();
    gateway.run_faked(&clock).await;
    let online = state(&platform, "online", |data| data["online"] == true).await;
    assert_eq!(online["clocktrust"], "none");
    gateway.stop().await;
}
