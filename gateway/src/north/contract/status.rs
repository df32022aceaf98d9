//! What the gateway says of itself: state and will, snapshot, answers to commands.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::envelope::{Label, Unsequenced, rfc3339};
use super::wire::{self, Open, Sequence};
use super::{CONTRACT, Frame, Outgoing, outgoing, schema};
use crate::model::alarm::Stage;
use crate::model::cursor::SeqRange;
use crate::model::ids::{BootId, Epoch, Seq};
use crate::model::limits::{BACKLOG_RANGES_MAX, PLATFORM_PAYLOAD_BYTES_MAX};
use crate::model::record::{Alarm, AlarmState, Body, Class};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::north::config::Delivery;

/// `rev` of the last word of a connection: nothing of the same connection comes after it.
pub const LAST_REV: u64 = 2_147_483_647;

/// Corrections of earlier boots that `up/state` carries, the newest.
pub const CORRECTIONS_MAX: usize = 16;

/// Names of commands that `up/state` carries.
const COMMANDS_MAX: usize = 64;

/// Longest detail of an answer, in characters.
const DETAIL_CHARS_MAX: usize = 1_024;

/// Why a state was sent. Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    /// A connection was made.
    Connected,
    /// The pending ranges have changed.
    Progress,
    /// The clock was mended, or the time is asked for (`clock.nonce`), or no longer.
    Clock,
    /// Another state stood on the topic: a late will, or a second box under this name.
    Corrected,
    /// The gateway says goodbye.
    Shutdown,
    /// The broker lost the gateway (the will).
    Lost,
}

/// One class as it stands for this uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassState {
    /// The highest number below `live_from` that this uplink may see; 0: none.
    pub last: Seq,
    /// The head that was fixed at connect, plus one.
    pub live_from: Seq,
    /// Still to come in the backlog stream, records set aside included.
    pub pending: Vec<SeqRange>,
}

/// Wall time of a boot: milliseconds since 1970 = monotonic + `offset_ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootClock {
    pub boot: BootId,
    pub offset_ms: i64,
    pub trust: ClockTrust,
}

/// The clock beside the stamp of sending, which is in the frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClockState {
    /// Boots whose records bear a lower trust, newest first.
    pub corrections: Vec<BootClock>,
    /// Set while the gateway asks for the time.
    pub nonce: Option<String>,
}

/// What `up/state` and the will are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateData {
    /// Grows with each connection of this epoch, by at least one.
    pub conn: u64,
    /// Grows with each state of a connection. Not used when `online` is false: that is the last word.
    pub rev: u64,
    pub online: bool,
    pub epoch: Epoch,
    pub reason: StateReason,
    /// The software's version.
    pub version: String,
    /// When the process started.
    pub started: Stamp,
    pub clock: ClockState,
    pub classes: BTreeMap<Class, ClassState>,
    pub delivery: Delivery,
    /// Commands that this gateway understands.
    pub commands: Vec<String>,
}

/// Joins ranges into at most `max`, oldest first, by closing the smallest of the distances between neighbours. What
/// lay between is then announced too, which delays the finding of a hole there and never makes one.
fn merged(ranges: &[SeqRange], max: usize) -> Vec<SeqRange> {
    let mut sorted: Vec<SeqRange> = ranges.iter().copied().filter(|range| range.from <= range.to).collect();
    sorted.sort_by_key(|range| range.from);
    let mut joined: Vec<SeqRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.from <= last.to.saturating_add(1) => last.to = last.to.max(range.to),
            _ => joined.push(range),
        }
    }
    if joined.len() <= max {
        return joined;
    }
    let mut distances: Vec<(u64, usize)> =
        joined.windows(2).enumerate().map(|(index, pair)| (pair[1].from - pair[0].to, index + 1)).collect();
    distances.sort_unstable();
    let closed: std::collections::BTreeSet<usize> =
        distances.iter().take(joined.len() - max.max(1)).map(|(_, index)| *index).collect();
    let mut few: Vec<SeqRange> = Vec::with_capacity(max);
    for (index, range) in joined.into_iter().enumerate() {
        match few.last_mut() {
            Some(last) if closed.contains(&index) => last.to = range.to,
            _ => few.push(range),
        }
    }
    few
}

fn progress(state: &ClassState, ranges_max: usize) -> wire::Progress {
    let pending = merged(&state.pending, ranges_max);
    wire::Progress {
        last: Sequence(state.last),
        live_from: Sequence(state.live_from),
        pending: pending
            .iter()
            .map(|range| wire::Range { from: Sequence(range.from), to: Sequence(range.to) })
            .collect(),
    }
}

fn clock(state: &ClockState, now: &Stamp) -> wire::Clock {
    let offset = now.wall_ms.checked_sub_unsigned(now.mono_ms).filter(|_| now.trust > ClockTrust::None);
    wire::Clock {
        trust: Open::Known(now.trust),
        offset_ms: offset,
        corrections: state
            .corrections
            .iter()
            .take(CORRECTIONS_MAX)
            .map(|boot| wire::BootOffset {
                bootid: boot.boot.to_string(),
                offset_ms: boot.offset_ms,
                trust: Open::Known(boot.trust),
            })
            .collect(),
        nonce: state.nonce.clone(),
    }
}

fn envelope(state: &StateData, frame: &Frame<'_>, ranges_max: usize) -> Unsequenced<wire::State> {
    let rev = if state.online { state.rev.min(LAST_REV - 1) } else { LAST_REV };
    let classes = state.classes.iter().filter(|(class, _)| state.online && frame.view.carries(**class));
    let running = state.started.age_ms(frame.now).map(|age| age / 1_000);
    let data = wire::State {
        compound: frame.compound.to_owned(),
        conn: state.conn,
        rev,
        online: state.online,
        reason: Open::Known(state.reason),
        contract: CONTRACT.to_owned(),
        version: state.version.clone(),
        delivery: Open::Known(match state.delivery {
            Delivery::Broker => wire::DeliveryLevel::Broker,
            Delivery::Receipt => wire::DeliveryLevel::Receipt,
        }),
        started: rfc3339(&state.started),
        running_s: running,
        clock: clock(&state.clock, frame.now),
        classes: classes.map(|(class, at)| (class.as_str().to_owned(), progress(at, ranges_max))).collect(),
        commands: state.commands.iter().take(COMMANDS_MAX).cloned().collect(),
        shared: frame.view.shared(),
    };
    let label = Label {
        id: format!("{}-state-{}-{rev}", state.epoch, state.conn),
        gateway: frame.topics.gateway.to_string(),
        r#type: schema::STATE,
        epoch: state.epoch,
        test: false,
    };
    label.unsequenced(frame.now, data)
}

/// The retained state. An event class is listed even when only its gap records are visible.
pub fn state_message(state: &StateData, frame: &Frame<'_>) -> Outgoing {
    let mut ranges_max = BACKLOG_RANGES_MAX;
    loop {
        let message = outgoing(frame.topics.state(), true, &envelope(state, frame, ranges_max));
        match message {
            Ok(message) => return message,
            Err(error) if ranges_max <= 1 => {
                unreachable!("a state with one range a class is under 16 KiB: {error}")
            }
            Err(_too_large) => ranges_max /= 2,
        }
    }
}

/// The will that goes with a connection: `state` is the first state of that connection. It says what was true when
/// the connection was made and bears no time, since nobody knows when the broker will publish it.
pub fn will_message(state: &StateData, frame: &Frame<'_>) -> Outgoing {
    let lost = StateData { online: false, reason: StateReason::Lost, ..state.clone() };
    let mut message = envelope(&lost, frame, 1);
    message.time = None;
    message.data.running_s = None;
    message.data.clock.nonce = None;
    outgoing(frame.topics.state(), true, &message)
        .unwrap_or_else(|error| unreachable!("a will holds no ranges and is under 16 KiB: {error}"))
}

/// Whether an alarm in this state is open.
pub const fn is_open(state: AlarmState) -> bool {
    !matches!(state, AlarmState::Normal)
}

/// An open alarm and the number of the record that holds its state.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenAlarm {
    pub seq: Seq,
    pub test: bool,
    pub alarm: Alarm,
}

/// What a snapshot is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotData {
    /// Tells snapshots of one connection apart.
    pub number: u32,
    pub conn: u64,
    pub epoch: Epoch,
    /// By class, the last number that this uplink may see; absent: none.
    pub last: BTreeMap<Class, Seq>,
    /// All open alarms; those that this uplink may not see are left out here.
    pub alarms: Vec<OpenAlarm>,
}

/// The snapshot in pages under the limit, at least one. Alarms under test follow in a snapshot of their own below
/// `up/test/`, only if there are any.
pub fn snapshot_pages(snapshot: &SnapshotData, frame: &Frame<'_>) -> Vec<Outgoing> {
    let visible = |test: bool| -> Vec<wire::SnapshotAlarm> {
        let chosen = snapshot
            .alarms
            .iter()
            .filter(|open| open.test == test && is_open(open.alarm.state) && sees_alarm(open, frame));
        chosen.map(alarm_in_short).collect()
    };
    let mut pages = branch_pages(snapshot, false, &visible(false), frame);
    let under_test = visible(true);
    if !under_test.is_empty() {
        pages.extend(branch_pages(snapshot, true, &under_test, frame));
    }
    pages
}

fn sees_alarm(open: &OpenAlarm, frame: &Frame<'_>) -> bool {
    frame.view.sees_body(&Body::Alarm(Box::new(open.alarm.clone())))
}

/// An open alarm as snapshots tell it.
pub fn alarm_in_short(open: &OpenAlarm) -> wire::SnapshotAlarm {
    let alarm = &open.alarm;
    wire::SnapshotAlarm {
        alarm: alarm.alarm.clone(),
        rev: alarm.rev,
        state: Open::Known(alarm.state),
        category: Open::Known(alarm.raised.category),
        name: alarm.raised.name.clone(),
        severity: alarm.severity().map(Open::Known),
        device: alarm.raised.device.id.to_string(),
        sequence: Sequence(open.seq),
        rule: alarm.rule.as_ref().map(ToString::to_string),
        active: (alarm.count > 0).then_some(alarm.active),
        count: (alarm.count > 0).then_some(alarm.count),
        stage: Some(alarm.handling.stage).filter(|stage| *stage != Stage::Open).map(Open::Known),
    }
}

fn branch_pages(
    snapshot: &SnapshotData,
    test: bool,
    alarms: &[wire::SnapshotAlarm],
    frame: &Frame<'_>,
) -> Vec<Outgoing> {
    // An envelope and a page's own fields stay under 2 KiB.
    let room = PLATFORM_PAYLOAD_BYTES_MAX - 2_048;
    let mut cuts: Vec<Vec<wire::SnapshotAlarm>> = vec![Vec::new()];
    let mut bytes = 0_usize;
    for alarm in alarms {
        let size = serde_json::to_vec(alarm).map_or(0, |text| text.len() + 1);
        if bytes + size > room && bytes > 0 {
            cuts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(page) = cuts.last_mut() {
            page.push(alarm.clone());
        }
    }
    let pages = u32::try_from(cuts.len()).unwrap_or(u32::MAX);
    let name = format!("{}-{}", snapshot.conn, snapshot.number);
    let numbered = cuts.into_iter().zip(1_u32..);
    numbered
        .filter_map(|(alarms, page)| {
            let branch = if test { "test-" } else { "" };
            let label = Label {
                id: format!("{}-{branch}snapshot-{name}-{page}", snapshot.epoch),
                gateway: frame.topics.gateway.to_string(),
                r#type: schema::SNAPSHOT,
                epoch: snapshot.epoch,
                test,
            };
            let data = wire::Snapshot {
                compound: frame.compound.to_owned(),
                snapshot: name.clone(),
                conn: snapshot.conn,
                page,
                pages,
                last: last_numbers(snapshot, frame),
                alarms,
            };
            // An alarm in short is far smaller than a page: names are bounded where alarms are made.
            outgoing(frame.topics.snapshot(test), false, &label.unsequenced(frame.now, data)).ok()
        })
        .collect()
}

fn last_numbers(snapshot: &SnapshotData, frame: &Frame<'_>) -> BTreeMap<String, Sequence> {
    let classes = Class::ALL.into_iter().filter(|class| frame.view.carries(*class));
    classes
        .map(|class| {
            let last = snapshot.last.get(&class).copied().unwrap_or(0);
            (class.as_str().to_owned(), Sequence(last))
        })
        .collect()
}

/// How a command ended, or that it is under way. Open on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Taken; another answer follows.
    Accepted,
    /// Not taken, nothing was done.
    Rejected,
    /// Done.
    Done,
    /// Tried and not done.
    Failed,
    /// Too old when it came, nothing was done.
    Expired,
    /// Begun before a restart; whether it was done is not known, and it is not tried again.
    Unknown,
}

impl Outcome {
    /// Whether nothing follows.
    pub const fn is_last(self) -> bool {
        !matches!(self, Self::Accepted)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

/// An answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandResult {
    /// The command's id.
    pub id: String,
    /// What was asked; empty if unreadable.
    pub command: String,
    pub epoch: Epoch,
    pub outcome: Outcome,
    /// Reason code, `ok` or as in `Refusal`.
    pub code: String,
    /// For a person.
    pub detail: String,
    /// What the command gave.
    pub data: Option<serde_json::Value>,
}

impl CommandResult {
    /// Identity of the message. One id can be refused for several reasons (a second command may bear it), and each is an
    /// answer of its own.
    fn message_id(&self) -> String {
        let (id, outcome) = (&self.id, self.outcome.as_str());
        match self.outcome {
            Outcome::Rejected => format!("command-{id}-{outcome}-{}", self.code),
            _ => format!("command-{id}-{outcome}"),
        }
    }
}

/// The answer as a message. What does not fit is left out and said to be.
pub fn command_result(result: &CommandResult, frame: &Frame<'_>) -> Outgoing {
    let message = |data: Option<serde_json::Value>, truncated: bool| {
        let answer = wire::Answer {
            compound: frame.compound.to_owned(),
            command_id: result.id.clone(),
            command: result.command.clone(),
            outcome: Open::Known(result.outcome),
            last: result.outcome.is_last(),
            code: result.code.clone(),
            detail: result.detail.chars().take(DETAIL_CHARS_MAX).collect(),
            data,
            truncated,
        };
        let label = Label {
            id: result.message_id(),
            gateway: frame.topics.gateway.to_string(),
            r#type: schema::COMMAND_RESULT,
            epoch: result.epoch,
            test: false,
        };
        outgoing(frame.topics.command_result(), false, &label.unsequenced(frame.now, answer))
    };
    message(result.data.clone(), false)
        .or_else(|_too_large| message(None, true))
        .unwrap_or_else(|error| unreachable!("an answer without data is under 16 KiB: {error}"))
}
