//! Whole buses on a simulated line in paused time: no real socket takes part, so that time only passes while all wait.

mod bench;
mod peer;
mod writes;

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use self::bench::{Bench, FAILS, HANGS, Mood, WORKS, buttons, seconds};
use super::*;
use crate::model::record::{Quality, Value};
use crate::model::refusal::Refusal;
use crate::rt::board::Standing;

const TCP: &str = "tcp = 'sim:502'\ntimeout_ms = 1000";
const RTU: &str = "serial = '/dev/sim'\nbaud = 115200\ntimeout_ms = 200";
const NOTHING: [&str; 0] = [];

#[tokio::test(start_paused = true)]
async fn a_press_arrives_over_each_framing() {
    for config in [TCP, RTU, "rtu_over_tcp = 'sim:4001'"] {
        let bench = Bench::start(config, &buttons(1, 100), 1, 2, |_| {});
        seconds(0.5).await;
        assert_eq!(bench.events(), ["b1 device.online"], "{config}");
        bench.sim().set(1, 2, 0, 1);
        seconds(0.25).await;
        assert_eq!(bench.events(), ["b1 device.online", "b1 button.pressed"], "{config}");
        let board = bench.deps.board.snapshot();
        let device = &board.devices["b1"];
        assert!(
            device.heard.is_some() && device.standing == Standing::Fresh && device.messages >= 5,
            "{device:?}"
        );
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_devices_at_one_module_are_one_read() {
    let table = |n| format!("[in{n}]\nprofile = 'modbus-button'\nbus = 'field'\nunit = 7\noffset = {n}\n");
    let devices = (0..16).map(table).collect::<Vec<_>>().concat();
    let bench = Bench::start(RTU, &devices, 1, 2, |sim| sim.set(7, 2, 12, 1));
    seconds(1.05).await;
    assert!((10..=12).contains(&bench.asked(7)), "{} reads", bench.asked(7));
    assert!(bench.sim().asked[&7].iter().all(|read| *read == (2, 0, 16)));
    assert_eq!(bench.count("button.pressed"), 1);
    assert!(bench.events().contains(&"in12 button.pressed".to_owned()));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_merged_read_that_is_refused_is_divided_for_good() {
    let devices = "[a]\nprofile = 'modbus-button'\nbus = 'field'\nunit = 1\n\
                   [b]\nprofile = 'modbus-button'\nbus = 'field'\nunit = 1\noffset = 40\n";
    let bench = Bench::start(TCP, devices, 1, 2, |sim| {
        sim.set(1, 2, 0, 1);
        sim.ends_at = Some(20);
    });
    seconds(3.0).await;
    let asked = bench.sim().asked[&1].clone();
    assert_eq!(asked.iter().filter(|read| **read == (2, 0, 41)).count(), 1, "asked again: {asked:?}");
    // The one that is there goes on; the other is bad, and not asked at full speed.
    assert!(asked.iter().filter(|read| **read == (2, 0, 1)).count() > 20);
    assert!(asked.iter().filter(|read| **read == (2, 40, 1)).count() <= 2);
    assert!(bench.events().contains(&"a button.pressed".to_owned()));
    assert_eq!(bench.last()["b.pressed"], (None, Quality::Bad));
    bench.stop().await;
}

/// Promise G9, and the bar of 100 units at 1 s of which two are silent.
#[tokio::test(start_paused = true)]
async fn dead_units_cost_their_bus_almost_nothing() {
    for (config, count, poll_ms, dead) in [(RTU, 30, 1_000, 3), (RTU, 30, 500, 3), (TCP, 100, 1_000, 2)] {
        let moods = (1..=dead).map(|unit| (unit * 7, Mood::Silent));
        let bench = Bench::start(config, &buttons(count, poll_ms), 5, 3, |sim| sim.moods.extend(moods));
        seconds(30.0).await;
        let before: usize = (1..=count).map(|unit| bench.asked(unit)).sum();
        seconds(60.0).await;
        let after: usize = (1..=count).map(|unit| bench.asked(unit)).sum();
        let wanted = 60_000 / poll_ms * u32::from(count - dead);
        let done = u32::try_from(after - before).unwrap();
        assert!(done * 100 >= wanted * 95, "{config}: {done} of {wanted} polls with {dead} dead");
        // And the dead ones alone are offline.
        assert_eq!(bench.count("device.offline"), usize::from(dead));
        assert_eq!(bench.count("device.online"), usize::from(count - dead));
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_dies_is_stale_then_offline_and_comes_back_by_itself() {
    let bench = Bench::start(RTU, &buttons(3, 100), 3, 2, |_| {});
    seconds(1.0).await;
    bench.sim().moods.insert(2, Mood::Silent);
    seconds(6.0).await;
    assert_eq!(bench.last()["b2.pressed"], (Some(Value::Bool(false)), Quality::Stale));
    assert_eq!(bench.count("device.offline"), 1, "{:?}", bench.events());
    let board = bench.deps.board.snapshot();
    assert_eq!(board.devices["b2"].standing, Standing::Offline);
    assert_eq!(board.devices["b2"].trouble.as_deref(), Some("no_reply"));
    assert_eq!(board.buses["field"].line.as_ref().unwrap().units_failing, 1);
    bench.sim().moods.clear();
    seconds(31.0).await;
    assert_eq!(bench.events().last().unwrap(), "b2 device.online");
    assert_eq!(bench.last()["b2.pressed"], (Some(Value::Bool(false)), Quality::Good));
    assert_eq!(bench.deps.board.snapshot().devices["b2"].trouble, None);
    bench.stop().await;
}

/// Thirty devices behind one dead line make one message, and the line is asked rarely.
#[tokio::test(start_paused = true)]
async fn a_dead_line_is_one_message() {
    for half_open in [false, true] {
        let bench = Bench::start(TCP, &buttons(30, 200), 3, 2, |_| {});
        seconds(2.0).await;
        let change = |down: bool| {
            let mut sim = bench.sim();
            if half_open {
                let mood = if down { Mood::Silent } else { Mood::Well };
                sim.moods = (1..=30).map(|unit| (unit, mood)).collect();
            } else {
                // A server that dies closes its connections.
                sim.down = down;
                sim.moods = (1..=30).filter(|_| down).map(|unit| (unit, Mood::Silent)).collect();
            }
        };
        change(true);
        let opened = bench.sim().opened;
        seconds(60.0).await;
        let events = bench.events();
        assert_eq!(bench.count("device.offline"), 0, "half-open {half_open}: {events:?}");
        assert_eq!(bench.count("bus.offline"), 1, "half-open {half_open}: {events:?}");
        assert!(bench.last().values().all(|(value, quality)| value.is_some() && *quality == Quality::Stale));
        let trouble = bench.deps.board.snapshot().buses["field"].trouble.clone();
        assert!(trouble.is_some(), "half-open {half_open}: the board tells nothing");
        assert!(bench.sim().opened - opened < 400, "{} connections in a minute", bench.sim().opened - opened);
        change(false);
        seconds(10.0).await;
        assert_eq!(bench.events().last().unwrap(), "gateway bus.online");
        assert_eq!(bench.count("device.online"), 30, "nobody is online twice");
        assert!(bench.last().values().all(|(_, quality)| *quality == Quality::Good));
        assert_eq!(bench.deps.board.snapshot().buses["field"].trouble, None);
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_bad_frame_is_counted_by_name_and_never_a_value() {
    for config in [TCP, RTU] {
        for (mood, tcp_reason, rtu_reason) in [
            (Mood::Silent, Refusal::NoReply, Refusal::NoReply),
            (Mood::Broken, Refusal::FrameMalformed, Refusal::FrameCrc),
            (Mood::Short, Refusal::FrameShort, Refusal::FrameShort),
            (Mood::Twice, Refusal::FrameSurplus, Refusal::FrameSurplus),
            (Mood::Stranger, Refusal::FrameUnit, Refusal::FrameUnit),
            (Mood::Generous, Refusal::FrameMalformed, Refusal::FrameMalformed),
        ] {
            let bench = Bench::start(config, &buttons(2, 200), 3, 2, |sim| {
                sim.moods.insert(1, mood);
                sim.set(1, 2, 0, 1);
                sim.set(2, 2, 0, 1);
            });
            seconds(5.0).await;
            let reason = if config == TCP { tcp_reason } else { rtu_reason };
            assert!(
                bench.refused("field/1", reason) >= 2,
                "{config} {mood:?}: {:?}",
                bench.deps.metrics.refusals()
            );
            assert_eq!(bench.history("b1"), [], "{config} {mood:?}");
            // The other one is not touched.
            assert_eq!(bench.refused("field/2", reason), 0);
            assert!(bench.asked(2) >= 20, "{config} {mood:?}: {} reads", bench.asked(2));
            let expected = ["b1 device.offline", "b2 button.pressed", "b2 device.online"];
            let mut events = bench.events();
            events.sort();
            assert_eq!(events, expected, "{config} {mood:?}");
            bench.stop().await;
        }
    }
}

/// The trap of stack.md: after a time-out the next reply must not be the late one of the request before.
#[tokio::test(start_paused = true)]
async fn a_late_reply_is_never_taken_for_another() {
    for config in [TCP, RTU] {
        let devices = "[t]\nprofile = 'modbus-temp-humidity'\nbus = 'field'\nunit = 1\npoll_ms = 100\n\
                       [u]\nprofile = 'modbus-temp-humidity'\nbus = 'field'\nunit = 1\npoll_ms = 150\noffset = 10\n";
        let bench = Bench::start(config, devices, 3, 2, |sim| {
            sim.set(1, 4, 1, 270);
            sim.set(1, 4, 11, 30);
        });
        for late_ms in [150, 210, 260, 350, 700, 1_050, 1_300] {
            seconds(1.0).await;
            bench.sim().moods.insert(1, Mood::Late(late_ms));
            seconds(3.0).await;
            bench.sim().moods.clear();
            seconds(30.0).await;
        }
        let of = |device: &str| -> std::collections::BTreeSet<String> {
            bench.history(device).iter().map(|value| format!("{value:?}")).collect()
        };
        assert_eq!(of("t"), ["Float(0.0)".to_owned(), "Float(27.0)".to_owned()].into(), "{config}");
        assert_eq!(of("u"), ["Float(0.0)".to_owned(), "Float(3.0)".to_owned()].into(), "{config}");
        assert!(bench.refused("field/1", Refusal::NoReply) > 0);
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_cannot_reach_a_unit_is_that_units_failure() {
    let bench = Bench::start(TCP, &buttons(2, 200), 3, 2, |sim| {
        sim.moods.insert(1, Mood::Exception(11));
    });
    seconds(10.0).await;
    assert_eq!(bench.count("b1 device.offline"), 1);
    assert!(bench.asked(2) > 40);
    assert_eq!(bench.sim().opened, 1, "an exception is an answer: the connection stays");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_fails_or_hangs_loses_no_press_and_stops_no_poll() {
    for mode in [FAILS, HANGS] {
        let bench = Bench::start(TCP, &buttons(5, 100), 3, 2, |_| {});
        seconds(1.0).await;
        bench.journal.mode.store(mode, Ordering::SeqCst);
        let before = bench.asked(2);
        for _ in 0..3 {
            bench.sim().set(1, 2, 0, 1);
            seconds(0.3).await;
            bench.sim().set(1, 2, 0, 0);
            seconds(0.3).await;
        }
        assert!(bench.asked(2) - before >= 16, "polling stood still");
        assert_eq!(bench.count("button.pressed"), 0);
        bench.journal.mode.store(WORKS, Ordering::SeqCst);
        seconds(1.0).await;
        let expected = ["b1 button.pressed", "b1 button.released"].repeat(3);
        let tail: Vec<String> = bench.events().into_iter().filter(|e| e.starts_with("b1 button")).collect();
        assert_eq!(tail, expected, "each press once, in order");
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_line_failure_is_nobodys_business() {
    let bench = Bench::start(TCP, &buttons(3, 100), 3, 2, |_| {});
    seconds(1.0).await;
    let before = bench.events();
    {
        let mut sim = bench.sim();
        sim.down = true;
        sim.moods = (1..=3).map(|unit| (unit, Mood::Silent)).collect();
    }
    seconds(1.6).await;
    {
        let mut sim = bench.sim();
        sim.down = false;
        sim.moods.clear();
    }
    seconds(5.0).await;
    assert_eq!(bench.events(), before);
    assert_eq!(bench.count("bus.offline"), 0);
    bench.stop().await;
}

/// What a real Waveshare module says to what the shipped profile asks.
#[test]
fn the_shipped_waveshare_profile_asks_and_reads_real_frames() {
    use super::frame::{Address, Framing, Parsed};
    use super::point::Said;
    use crate::model::ids::BootId;
    use crate::model::stamp::{ClockTrust, Stamp};
    let profiles = crate::south::profile::shipped_profiles().unwrap();
    let setup = Setup {
        bus: BusName::new("field").unwrap(),
        config: toml::from_str(RTU).unwrap(),
        devices: toml::from_str("[io]\nprofile = 'waveshare-io8'\nbus = 'field'\nunit = 1").unwrap(),
        profiles: profiles.into_iter().map(|(name, profile)| (name, Arc::new(profile))).collect(),
    };
    let mut field = Field::new(&setup).unwrap();
    let unit = Address { unit: 1, transaction: 0 };
    let at = Stamp { boot: BootId("b".into()), mono_ms: 0, wall_ms: 0, trust: ClockTrust::None };
    let frames: Vec<Vec<u8>> =
        field.jobs.iter().map(|job| job.block.request().frame(Framing::Rtu, unit)).collect();
    assert_eq!(
        frames,
        [[0x01, 0x01, 0x00, 0x00, 0x00, 0x08, 0x3d, 0xcc], [0x01, 0x02, 0x00, 0x00, 0x00, 0x08, 0x79, 0xcc],]
    );
    for (bytes, active) in [
        ([0x01, 0x02, 0x01, 0x04, 0xa0, 0x4b], vec!["di3"]),
        ([0x01, 0x02, 0x01, 0x01, 0x60, 0x48], vec!["di1"]),
        ([0x01, 0x02, 0x01, 0x00, 0xa1, 0x88], vec![]),
    ] {
        let request = field.jobs[1].block.request();
        let Ok(Parsed::Reply(reply)) = request.parse(Framing::Rtu, unit, &bytes) else {
            panic!("{bytes:02x?}")
        };
        let said = field.said(1, &reply, &at).remove(&0).unwrap();
        assert_eq!(said.len(), 8);
        let on = said.iter().filter(|(_, said)| *said == Said::Value(Value::Bool(true)));
        let names: Vec<&str> =
            on.map(|(point, _)| field.devices[0].described.readings[*point].name.as_str()).collect();
        assert_eq!(names, active);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_without_devices_waits() {
    let bench = Bench::start(TCP, "", 3, 2, |_| {});
    seconds(5.0).await;
    assert_eq!(bench.events(), NOTHING);
    bench.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Slaves that do anything wrong, by a seed: no value that was never there, every press of the sane unit, and all
    /// well again when they are.
    #[test]
    fn mad_slaves_make_no_value_up(seed in any::<u64>(), tcp in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let devices = "[t]\nprofile = 'modbus-temp-humidity'\nbus = 'field'\nunit = 1\npoll_ms = 100\n\
                           [b]\nprofile = 'modbus-button'\nbus = 'field'\nunit = 2\npoll_ms = 100\n\
                           [c]\nprofile = 'modbus-button'\nbus = 'field'\nunit = 3\npoll_ms = 100\n";
            let bench = Bench::start(if tcp { TCP } else { RTU }, devices, seed, 2, |sim| {
                sim.set(1, 4, 1, 270);
                sim.set(1, 4, 2, 450);
                sim.moods.insert(1, Mood::Mad);
                sim.moods.insert(3, Mood::Mad);
            });
            seconds(60.0).await;
            let presses = bench.count("b button.pressed");
            for _ in 0..5 {
                bench.sim().set(2, 2, 0, 1);
                seconds(4.0).await;
                bench.sim().set(2, 2, 0, 0);
                seconds(4.0).await;
            }
            assert_eq!(bench.count("b button.pressed") - presses, 5, "seed {seed}");
            bench.sim().moods.clear();
            seconds(40.0).await;
            for value in bench.history("t") {
                assert!([Value::Float(27.0), Value::Float(45.0)].contains(&value), "seed {seed}: {value:?}");
            }
            assert_eq!(bench.count("c button.pressed"), 0, "seed {seed}");
            for (point, (_, quality)) in bench.last() {
                assert_eq!(quality, Quality::Good, "seed {seed}: {point}");
            }
            bench.stop().await;
        });
    }
}
