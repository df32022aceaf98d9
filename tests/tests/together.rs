//! All faults together, by a seed: a disk that refuses, a clock that jumps by a year, an uplink that is cut, a Modbus slave
//! that dies, and kill -9 of the gateway at any of it. What a device was told is safe reaches the platform (promises G1, G2,
//! G8, G9, G14), no number is a hole without a gap record, and no id stands for two things.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::disk::Illness;
use gatehouse_tests::faketime::FakeClock;
use gatehouse_tests::gateway::{Gateway, Plan, program};
use gatehouse_tests::modbus::{At, Slave};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::proxy::{Cut, Door, Proxy};
use gatehouse_tests::site::{LATER, await_presses, press};
use gatehouse_tests::wait::{eventually, eventually_ok};
use gatehouse_tests::{ports, seed, turn};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

const ROUNDS: usize = 14;
const BUTTON: &str = "button-1";
const YEAR_S: i64 = 365 * 86_400;

/// Longest wait for one PUBACK: the gateway closes a connection sooner.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    acknowledged: BTreeSet<u64>,
}

impl Ledger {
    /// Presses for a while. A press without an answer is said again, before any other.
    async fn talk(&mut self, gateway: &Gateway, lasts: Duration) {
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            let Ok(mut device) = Device::connect(&gateway.login()).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            while Instant::now() < until {
                let said = timeout(PATIENCE, press(&mut device, BUTTON, self.next)).await;
                let said = said.unwrap_or_else(|_elapsed| {
                    panic!("press {} was neither acknowledged nor cut off", self.next)
                });
                if said.is_err() {
                    break;
                }
                self.acknowledged.insert(self.next);
                self.next += 1;
            }
        }
    }
}

struct Faults {
    illness: Illness,
    clock: FakeClock,
    proxy: Proxy,
    slave: Slave,
    slave_lives: bool,
}

impl Faults {
    fn start(&self, gateway: &mut Gateway) {
        let mut command = Command::new(program());
        self.illness.infect(&mut command, &gateway.data_dir());
        self.clock.put_into(&mut command);
        gateway.spawn(&mut command);
    }

    /// One of them changes, or several.
    async fn strike(&mut self, rng: &mut fastrand::Rng) {
        let word = ["well", "well", "full", "readonly", "broken"][rng.usize(..5)];
        self.illness.set(word);
        if rng.bool() {
            self.clock.set([0, YEAR_S, -YEAR_S, 86_400][rng.usize(..4)]);
        }
        if rng.bool() {
            let open = rng.bool();
            self.proxy.door(if open { Door::Open } else { Door::Shut });
            if !open {
                self.proxy.cut(Cut::Rst);
            }
        }
        if rng.u8(..3) == 0 {
            if self.slave_lives {
                self.slave.kill();
            } else {
                self.slave.run().await;
            }
            self.slave_lives = !self.slave_lives;
        }
        if self.slave_lives {
            self.slave.set(&[(1, 'd', 0, u16::from(rng.bool()))]);
        }
    }

    async fn end(&mut self) {
        self.illness.set("well");
        self.clock.set(0);
        self.proxy.door(Door::Open);
        if !self.slave_lives {
            self.slave.run().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_together_what_was_acknowledged_is_delivered() {
    let _turn = turn::shared();
    let mut rng = seed::rng("together");
    let folder = TempDir::new().unwrap();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let proxy = Proxy::start(mosquitto.address()).await;
    let at = At::free_tcp();
    let At::Tcp(port) = at else { unreachable!() };
    let slave = Slave::start(folder.path(), at, &[(1, 'd', 0, 0)]).await;
    let mut plan = Plan::new("gw-together", &proxy.url());
    // Nobody is at the end of the second line, ever.
    for (bus, device, port) in [("field", "m1", port), ("dead", "m2", ports::free().port())] {
        plan.extra += &format!(
            "[buses.{bus}.modbus]\ntcp = \"127.0.0.1:{port}\"\n\n[devices.{device}]\nprofile = \"modbus-button\"\n\
             bus = \"{bus}\"\nunit = 1\n\n"
        );
    }
    let mut gateway = Gateway::prepare(plan);
    let (illness, clock) = (Illness::prepare(), FakeClock::in_1970());
    let mut faults = Faults { illness, clock, proxy, slave, slave_lives: true };
    let mut ledger = Ledger { next: 1, ..Ledger::default() };
    faults.start(&mut gateway);
    let mut kills = 0;
    for _ in 0..ROUNDS {
        ledger.talk(&gateway, Duration::from_millis(rng.u64(300..1_500))).await;
        if rng.u8(..3) == 0 {
            gateway.kill();
            faults.start(&mut gateway);
            kills += 1;
        }
        faults.strike(&mut rng).await;
    }
    faults.end().await;
    eventually("the disk is written again", LATER, || {
        gateway.try_status()?["board"]["store"]["memory"]["lost_since_mono_ms"].is_null().then_some(())
    })
    .await;
    let last = ledger.next;
    while !ledger.acknowledged.contains(&last) {
        ledger.talk(&gateway, Duration::from_millis(200)).await;
    }
    await_presses(&platform, BUTTON, &ledger.acknowledged, LATER).await;
    gateway.await_delivered().await;
    let report = platform.look(|messages| gatehouse_tests::audit::audit(messages, "gw-together"));
    report.assert_clean();
    eventually_ok("the living unit is heard, the dead one is not", LATER, async || {
        let devices = gateway.status()["board"]["devices"].clone();
        let well = devices["m1"]["standing"] == "fresh" && devices["m2"]["standing"] != "fresh";
        if well { Ok(()) } else { Err(format!("{} {}", devices["m1"], devices["m2"])) }
    })
    .await;
    println!("{kills} kills, {} presses acknowledged, none lost", ledger.acknowledged.len());
    assert!(ledger.acknowledged.len() > 20, "this run shows little");
}
