//! The events that the journal itself has to tell. The gateway is their device.

use std::collections::BTreeMap;
use std::path::Path;

use crate::model::ids::Epoch;
use crate::model::record::{Body, Draft, Severity, Text, Value};
use crate::model::stamp::Stamp;

/// Longest reason that is stored: an error text of SQLite with its path fits.
const REASON_CHARS_MAX: usize = 500;

/// The event that the disk is full.
pub(super) const FULL: &str = "store.full";

/// The journal could not be read and a new one was begun.
pub(super) fn reset(at: &Stamp, reason: &str, set_aside: Option<&Path>) -> Draft {
    let kept = set_aside.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let text = Text {
        zh: "日志文件损坏或缺失，已启用新日志，此前未送达的记录可能缺失".to_owned(),
        en: "the journal was damaged or missing and a new one was begun; records not delivered before may be missing"
            .to_owned(),
    };
    let params = [("reason", Some(cut(reason))), ("set_aside", kept)];
    event(at, ("store.reset", Severity::Critical), params, text)
}

/// The journal is an old copy, or stands on another machine: a new epoch was begun.
pub(super) fn restored(at: &Stamp, old: Epoch, reason: &str) -> Draft {
    let text = Text {
        zh: "日志来自旧备份或另一台设备，已启用新纪元".to_owned(),
        en: "the journal is a restored copy or comes from another machine; a new epoch was begun".to_owned(),
    };
    let params = [("reason", Some(cut(reason))), ("old_epoch", Some(old.to_string()))];
    event(at, ("store.restored", Severity::Critical), params, text)
}

/// The disk is full: a commit failed for it (`struck`), or little is left.
pub(super) fn full(at: &Stamp, struck: bool, free: u64, total: u64) -> Draft {
    let text = Text {
        zh: "磁盘已满，正在清理遥测数据；请检查其他程序占用的空间".to_owned(),
        en: "the disk is full; telemetry is being forgotten; look for what else fills it".to_owned(),
    };
    let severity = if struck { Severity::Critical } else { Severity::Major };
    event(at, (FULL, severity), room_params(free, total), text)
}

/// The disk has room again.
pub(super) fn room(at: &Stamp, free: u64, total: u64) -> Draft {
    let text = Text { zh: "磁盘空间已恢复".to_owned(), en: "the disk has room again".to_owned() };
    event(at, ("store.room", Severity::Warning), room_params(free, total), text)
}

fn room_params(free: u64, total: u64) -> [(&'static str, Option<String>); 2] {
    [("free_bytes", Some(free.to_string())), ("total_bytes", Some(total.to_string()))]
}

/// The disk cannot be written: what comes is kept in memory only.
pub(super) fn lost(at: &Stamp, reason: &str) -> Draft {
    let text = Text {
        zh: "记录库所在磁盘无法写入，新记录仅存于内存，断电即失；请检查磁盘".to_owned(),
        en: "the journal's disk cannot be written; new records are kept in memory only and a power cut loses them; \
             look at the disk"
            .to_owned(),
    };
    event(at, ("store.lost", Severity::Critical), [("reason", Some(cut(reason)))], text)
}

/// The disk is written again.
pub(super) fn back(at: &Stamp, lost_ms: u64, stored: u64, dropped: u64) -> Draft {
    let text = Text {
        zh: format!("记录库恢复写入：补存 {stored} 条，丢弃 {dropped} 条"),
        en: format!("the journal is written again: {stored} records stored late, {dropped} dropped"),
    };
    let severity = if dropped > 0 { Severity::Major } else { Severity::Warning };
    let mut draft = event::<0>(at, ("store.back", severity), [], text);
    if let Body::Event(event) = &mut draft.body {
        for (name, number) in [("lost_ms", lost_ms), ("stored", stored), ("dropped", dropped)] {
            event.params.insert(name.to_owned(), Value::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        }
    }
    draft
}

fn cut(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

fn event<const N: usize>(
    at: &Stamp,
    (name, severity): (&str, Severity),
    params: [(&str, Option<String>); N],
    text: Text,
) -> Draft {
    let params: BTreeMap<String, Value> = params
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), Value::Text(value?.into()))))
        .collect();
    Draft::of_gateway(at, None, (name, Some(severity)), params, text)
}
