//! kill -9 of the gateway, again and again, with the platform up and down: what a device was told is safe, is safe
//! (promise G1), and what reaches the platform is never lost and never in two versions (promise G2).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::audit::Report;
use gatehouse_tests::device::{Device, NoAck};
use gatehouse_tests::gateway::{Gateway, Plan, program};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::proxy::{Cut, Door, Proxy};
use gatehouse_tests::site::{LATER, await_presses, measure, press_body, topic};
use gatehouse_tests::{seed, turn};
use tokio::time::Instant;

const KILLS: usize = 22;

/// Messages that a device has on the way at once.
const WINDOW: usize = 24;

const BUTTONS: [&str; 2] = ["button-1", "button-2"];

/// A press that was not acknowledged yet.
type Pending = (u64, &'static str);

/// What the devices know.
#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    acknowledged: BTreeMap<&'static str, BTreeSet<u64>>,
    /// To be sent again on the next connection, oldest first, before anything new.
    pending: Vec<Pending>,
    /// Sent on the connection that has just ended, by packet id.
    on_the_way: Vec<(u16, Pending)>,
}

impl Ledger {
    fn note(&mut self, (n, button): Pending) {
        self.acknowledged.entry(button).or_default().insert(n);
    }

    /// Talks until the connection ends or the time is over, and keeps what stayed without an answer.
    async fn talk(&mut self, device: &mut Device, until: Instant) {
        let mut on_the_way: Vec<(u16, Pending)> = Vec::new();
        let mut again = std::mem::take(&mut self.pending).into_iter();
        while Instant::now() < until {
            let press = again.next().unwrap_or_else(|| {
                self.next += 1;
                (self.next, BUTTONS[usize::from(self.next.is_multiple_of(3))])
            });
            let Ok(id) = device.send(&topic(press.1), &press_body(press.0), 1).await else {
                self.pending.push(press);
                break;
            };
            on_the_way.push((id, press));
            if on_the_way.len() >= WINDOW {
                let (id, oldest) = on_the_way[0];
                match device.acked(id, Duration::from_secs(10)).await {
                    Ok(_) => {
                        on_the_way.remove(0);
                        self.note(oldest);
                    }
                    Err(NoAck::Ended) => break,
                    Err(NoAck::Late) => panic!("no PUBACK within 10 s while the gateway runs"),
                }
            }
        }
        let unsent = std::mem::take(&mut self.pending);
        self.pending = on_the_way.iter().map(|(_, press)| *press).chain(unsent).chain(again).collect();
        self.on_the_way = on_the_way;
    }

    /// After the kill: PUBACKs that had left before it still count.
    async fn settle(&mut self, device: &mut Device) {
        assert!(device.await_end(Duration::from_secs(10)).await, "a killed gateway keeps its connections");
        for (id, press) in std::mem::take(&mut self.on_the_way) {
            if device.acked(id, Duration::ZERO).await.is_ok() {
                self.note(press);
                self.pending.retain(|pending| *pending != press);
            }
        }
    }
}

/// The order in which a device spoke is the order in which its presses were stored: by first appearance, since what
/// was not acknowledged is sent again.
fn check_device_order(report: &Report) {
    let mut records: Vec<_> = report.arrivals.iter().filter(|arrival| arrival.class == "event").collect();
    records.sort_by_key(|arrival| arrival.seq);
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen: BTreeSet<(String, u64)> = BTreeSet::new();
    for record in records {
        let data = &record.content["data"];
        let Some(n) = data["params"]["n"].as_u64() else { continue };
        let device = data["device"]["id"].as_str().unwrap().to_owned();
        if !seen.insert((device.clone(), n)) {
            continue;
        }
        let before = highest.insert(device.clone(), n).unwrap_or(0);
        assert!(before < n, "{device}: press {n} was stored after press {before}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let _turn = turn::shared();
    let mut rng = seed::rng("kill");
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let proxy = Proxy::start(mosquitto.address()).await;
    let mut gateway = Gateway::prepare(Plan::new("gw-kill", &proxy.url()));
    let mut ledger = Ledger::default();
    let mut killed_talking = 0;
    for round in 0..KILLS {
        let up = rng.bool();
        proxy.door(if up { Door::Open } else { Door::Shut });
        if !up {
            proxy.cut(Cut::Rst);
        }
        // Every fourth kill or so meets the gateway while it starts and recovers.
        if rng.u8(..4) == 0 {
            gateway.spawn(&mut Command::new(program()));
            tokio::time::sleep(Duration::from_millis(rng.u64(5..400))).await;
            gateway.kill();
            continue;
        }
        gateway.run().await;
        let mut device = Device::connect_patiently(&gateway.login()).await;
        if rng.bool() {
            measure(&mut device, "meter-1", round as u64).await.unwrap();
        }
        ledger.talk(&mut device, Instant::now() + Duration::from_millis(rng.u64(20..500))).await;
        gateway.kill();
        ledger.settle(&mut device).await;
        killed_talking += 1;
    }
    proxy.door(Door::Open);
    gateway.run().await;
    let acknowledged: usize = ledger.acknowledged.values().map(BTreeSet::len).sum();
    for (button, numbers) in &ledger.acknowledged {
        await_presses(&platform, button, numbers, LATER).await;
    }
    gateway.await_delivered().await;
    let report = platform.look(|messages| gatehouse_tests::audit::audit(messages, "gw-kill"));
    report.assert_clean();
    check_device_order(&report);
    let epochs: BTreeSet<&str> = report.arrivals.iter().map(|arrival| arrival.epoch.as_str()).collect();
    assert_eq!(epochs.len(), 1, "a kill was taken for a restored copy");
    println!(
        "{KILLS} kills, {killed_talking} of them in mid-speech: {acknowledged} acknowledged, {} delivered, {} \
         duplicates, 0 lost",
        report.ids().len(),
        report.duplicates
    );
    assert!(acknowledged > 200, "only {acknowledged} presses: this run shows little");
}
