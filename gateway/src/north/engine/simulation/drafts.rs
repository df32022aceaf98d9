//! What the simulation's devices say: one draft of each class, told apart by its number.

use std::collections::BTreeMap;

use crate::model::ids::DeviceId;
use crate::model::place::Place;
use crate::model::record::{
    Body, Category, Class, DeviceRef, Draft, Event, Sample, Severity, Telemetry, Value,
};
use crate::model::stamp::Stamp;

pub(in crate::north::engine) fn draft(class: Class, number: u64, at: &Stamp) -> Draft {
    let device = DeviceRef {
        id: DeviceId::new("button-1").unwrap(),
        kind: "button".to_owned(),
        profile: None,
        bus: None,
    };
    let event = Event {
        device: device.clone(),
        place: Place::default(),
        category: Category::Emergency,
        name: format!("thing.{number}"),
        severity: number.is_multiple_of(50).then_some(Severity::Critical),
        params: BTreeMap::new(),
        text: None,
    };
    let body = match class {
        Class::Event => Body::Event(Box::new(event)),
        Class::Alarm => Body::Alarm(Box::new(crate::model::record::Alarm::new(
            format!("a{number}"),
            crate::model::record::AlarmState::Unacknowledged,
            event,
        ))),
        Class::Telemetry => {
            let point = crate::model::ids::PointName::new("p").unwrap();
            let value = Value::Int(i64::try_from(number).unwrap());
            let samples = vec![Sample::good(point, value, None)];
            Body::Telemetry(Telemetry { device, place: Place::default(), samples })
        }
    };
    Draft { at: at.clone(), test: number.is_multiple_of(11), dedup: None, body }
}
