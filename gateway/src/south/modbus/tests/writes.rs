//! Outputs: written once, before polls, and what became of it is told.

use std::time::Duration;

use super::bench::{Bench, Mood, seconds};
use super::*;
use crate::model::ids::PointName;
use crate::south::modbus::actuator::{WRITES_MAX, WriteError, Written};

const MODULE: &str = "[io]\nprofile = 'waveshare-io8'\nbus = 'field'\nunit = 1\n\
                      [b]\nprofile = 'modbus-button'\nbus = 'field'\nunit = 2\n";

async fn write(bench: &Bench, point: &str, value: Value, verify: bool) -> Result<Written, WriteError> {
    let (device, point) = (DeviceId::new("io").unwrap(), PointName::new(point).unwrap());
    bench.bus.actuator().write(&device, &point, value, Duration::from_secs(2), verify).await
}

fn writes(bench: &Bench) -> Vec<(u8, u16, u16)> {
    bench.sim().asked[&1].iter().copied().filter(|(function, ..)| *function >= 5).collect()
}

#[tokio::test(start_paused = true)]
async fn an_output_is_written_once_and_read_back() {
    for config in [TCP, RTU] {
        let bench = Bench::start(config, MODULE, 1, 2, |_| {});
        seconds(0.5).await;
        assert_eq!(write(&bench, "do2", Value::Bool(true), false).await, Ok(Written::Echoed));
        assert_eq!(write(&bench, "do3", Value::Bool(true), true).await, Ok(Written::Verified));
        assert_eq!(writes(&bench), [(5, 1, 0xff00), (5, 2, 0xff00)]);
        // What was written is a value like any other.
        seconds(0.5).await;
        assert_eq!(bench.last()["io.do2"], (Some(Value::Bool(true)), Quality::Good));
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_told_and_nothing_is_sent() {
    let bench = Bench::start(TCP, MODULE, 1, 2, |_| {});
    seconds(0.5).await;
    let no_output = |point: &str| Err(WriteError::NoOutput(PointName::new(point).unwrap()));
    assert_eq!(write(&bench, "di1", Value::Bool(true), false).await, no_output("di1"));
    assert_eq!(write(&bench, "do9", Value::Bool(true), false).await, no_output("do9"));
    let wrong = write(&bench, "do1", Value::Int(1), false).await;
    assert_eq!(wrong, Err(WriteError::Value(Refusal::WrongType)));
    assert_eq!(writes(&bench), []);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_and_an_unknown_one_are_different_and_neither_is_tried_again() {
    for (mood, outcome) in [
        (Mood::Exception(4), WriteError::Exception(4)),
        (Mood::Silent, WriteError::Unknown(Refusal::NoReply)),
        (Mood::Stranger, WriteError::Unknown(Refusal::FrameUnit)),
    ] {
        let bench = Bench::start(RTU, MODULE, 1, 2, |_| {});
        seconds(0.5).await;
        bench.sim().moods.insert(1, mood);
        assert_eq!(write(&bench, "do1", Value::Bool(true), true).await, Err(outcome), "{mood:?}");
        seconds(3.0).await;
        assert_eq!(writes(&bench).len(), 1, "{mood:?}");
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_time_passed_is_never_sent() {
    let bench = Bench::start(TCP, MODULE, 1, 2, |sim| sim.down = true);
    seconds(0.2).await;
    assert_eq!(write(&bench, "do1", Value::Bool(true), false).await, Err(WriteError::TooLate));
    bench.sim().down = false;
    seconds(5.0).await;
    assert!(bench.asked(1) > 0, "the line is back");
    assert_eq!(writes(&bench), []);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let bench = Bench::start(TCP, MODULE, 1, 2, |sim| sim.down = true);
    seconds(0.2).await;
    let many = (0..WRITES_MAX + 3).map(|_| write(&bench, "do1", Value::Bool(true), false));
    let outcomes = futures_util::future::join_all(many).await;
    let busy = outcomes.iter().filter(|outcome| **outcome == Err(WriteError::Busy)).count();
    assert_eq!(busy, 3, "{outcomes:?}");
    bench.stop().await;
}
