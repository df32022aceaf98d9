//! The events that a bus has to tell of itself. The gateway is their device.

use std::collections::BTreeMap;

use crate::model::ids::BusName;
use crate::model::record::{Draft, Severity, Text, Value};
use crate::model::stamp::Stamp;

/// Longest reason that is stored.
const REASON_CHARS_MAX: usize = 500;

/// The broker has forgotten our session: what was published while we were away may be missing.
pub(super) fn session_lost(at: &Stamp, bus: &BusName, broker: &str) -> Draft {
    let text = Text {
        zh: "外部 MQTT 服务器丢失了会话，断线期间的消息可能缺失".to_owned(),
        en: "the external broker has lost the session; messages sent while it was away may be missing"
            .to_owned(),
    };
    event(at, bus, ("bus.session_lost", Some(Severity::Major)), &[("broker", broker)], text)
}

/// Nobody on this bus can be heard: one event for all its devices.
pub(super) fn offline(at: &Stamp, bus: &BusName, reason: &str) -> Draft {
    let text = Text {
        zh: "总线中断，其上所有设备无法通信".to_owned(),
        en: "the bus is down; none of its devices can be heard".to_owned(),
    };
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    event(at, bus, ("bus.offline", Some(Severity::Major)), &[("reason", &reason)], text)
}

/// It works again.
pub(super) fn online(at: &Stamp, bus: &BusName) -> Draft {
    let text = Text { zh: "总线恢复".to_owned(), en: "the bus works again".to_owned() };
    event(at, bus, ("bus.online", None), &[("clears", "bus.offline")], text)
}

fn event(
    at: &Stamp,
    bus: &BusName,
    (name, severity): (&str, Option<Severity>),
    params: &[(&str, &str)],
    text: Text,
) -> Draft {
    let mut texts = BTreeMap::from([("bus".to_owned(), Value::Text(bus.as_str().into()))]);
    texts.extend(params.iter().map(|(key, text)| ((*key).to_owned(), Value::Text((*text).into()))));
    Draft::of_gateway(at, Some(bus), (name, severity), texts, text)
}
