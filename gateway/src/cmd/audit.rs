//! `gatehouse audit`: who ordered what, when, from where, and what became of it; and what people did with alarms. From the
//! journal alone, read-only, also while the daemon runs.

use std::io::Write;

use anyhow::bail;
use serde::Serialize;

use super::journal::{SourceArgs, moment, open, time};
use super::until_unread;
use crate::model::alarm::{Alarm, ChangeKind};
use crate::model::audit;
use crate::model::clock::Clocks;
use crate::model::record::{Body, Class, Event, Record, Value};
use crate::store::{Read, Selection, Walk};

/// Show who ordered what, and what people did with alarms (审计).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// From this time on: RFC 3339, or a date, which begins at midnight UTC.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<i64>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<i64>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// One line of the trail.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// The record that says so.
    record: String,
    time: Option<String>,
    /// `command.ordered`, `command.ended` or `alarm.changed`.
    entry: &'static str,
    source: String,
    operator: String,
    /// The command's id, as its orderer gave it.
    command: String,
    /// What was ordered, or what was done with the alarm.
    what: String,
    /// Arguments, or the alarm.
    target: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    code: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    reason: String,
    repeated: bool,
    /// Commands of this kind before it that came too fast to be told.
    untold: i64,
}

/// Lists the trail.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        bail!("--to is not after --from: nothing lies between");
    }
    until_unread(list(args, out))
}

fn list(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let reader = open(&args.source)?;
    let clocks = reader.clocks()?;
    let classes = vec![Class::Alarm, Class::Event];
    let selection = Selection { classes, devices: Vec::new(), from_ms: args.from, until_ms: args.to };
    let mut walk = Walk::new(&reader, selection)?;
    while let Some(read) = walk.next(&reader)? {
        let Read::Record(record) = read else { continue };
        let Some(line) = line(&record, &clocks) else { continue };
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        } else {
            writeln!(out, "{}", line.text())?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The line that a record makes, if it belongs to the trail.
fn line(record: &Record, clocks: &Clocks) -> Option<Line> {
    let at = clocks.mend(&record.at).unwrap_or_else(|| record.at.clone());
    let (record_id, time) = (record.id(), time(&at));
    if let Some(event) = audit::entry(record) {
        return Some(Line { record: record_id, time, ..of_command(event) });
    }
    match &record.body {
        Body::Alarm(alarm) => of_alarm(alarm).map(|line| Line { record: record_id, time, ..line }),
        _ => None,
    }
}

fn of_command(event: &Event) -> Line {
    let text = |name: &str| match event.params.get(name) {
        Some(Value::Text(text)) => text.to_string(),
        _ => String::new(),
    };
    let ordered = event.name == audit::COMMAND_ORDERED;
    Line {
        record: String::new(),
        time: None,
        entry: if ordered { audit::COMMAND_ORDERED } else { audit::COMMAND_ENDED },
        source: text("source"),
        operator: text("operator"),
        command: text("command"),
        what: text("verb"),
        target: text("args"),
        outcome: text("outcome"),
        code: text("code"),
        detail: text("detail"),
        reason: text("reason"),
        repeated: event.params.get("repeated") == Some(&Value::Bool(true)),
        untold: match event.params.get("untold") {
            Some(Value::Int(untold)) => *untold,
            _ => 0,
        },
    }
}

/// A change that a person made, or that a rule made in a person's stead.
fn of_alarm(alarm: &Alarm) -> Option<Line> {
    let change = alarm.change.as_ref()?;
    let by_person = change.command.is_some() || change.source != "rule";
    let by_itself = matches!(
        change.what,
        ChangeKind::Raised
            | ChangeKind::RaisedAgain
            | ChangeKind::Returned
            | ChangeKind::Escalated
            | ChangeKind::Flapping
            | ChangeKind::Folded
    );
    if !by_person || by_itself {
        return None;
    }
    let what = serde_json::to_value(change.what).ok()?;
    let command = change.command.clone().unwrap_or_default();
    Some(Line {
        record: String::new(),
        time: None,
        entry: "alarm.changed",
        source: change.source.clone(),
        operator: change.actor.clone(),
        command: command.split_once('/').map_or(command.as_str(), |(_, id)| id).to_owned(),
        what: what.as_str().unwrap_or_default().to_owned(),
        target: format!("{} rev {}", alarm.alarm, alarm.rev),
        outcome: String::new(),
        code: String::new(),
        detail: String::new(),
        reason: change.reason.clone().unwrap_or_default(),
        repeated: false,
        untold: 0,
    })
}

impl Line {
    fn text(&self) -> String {
        let time = self.time.as_deref().unwrap_or("time unknown 时间未知");
        let entry = match self.entry {
            audit::COMMAND_ORDERED => "ordered 下达",
            audit::COMMAND_ENDED => "ended 结果",
            _ => "alarm 报警",
        };
        let mut text = format!(
            "{time}  {entry}  {}  {}  {}  {}  {}",
            self.source, self.operator, self.command, self.what, self.target
        );
        for part in [&self.outcome, &self.code, &self.detail] {
            if !part.is_empty() {
                text.push_str("  ");
                text.push_str(part);
            }
        }
        if self.repeated {
            text.push_str("  repeated 重复");
        }
        if self.untold > 0 {
            text.push_str("  before it untold 之前未逐条记录: ");
            text.push_str(&self.untold.to_string());
        }
        text.push_str("  — ");
        text.push_str(&self.reason);
        on_one_line(&text)
    }
}

/// What came from outside must neither begin a line of its own nor steer the terminal: what would is shown as `\u{1b}`.
fn on_one_line(text: &str) -> String {
    let steers = |character: char| {
        character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::alarm::{AlarmState, Change};
    use crate::model::command::{Actor, Origin};
    use crate::model::ids::{BootId, Epoch, UplinkName};
    use crate::model::record::{Draft, Text};
    use crate::model::stamp::{ClockTrust, Stamp};

    fn record(draft: Draft) -> Record {
        let class = draft.body.class();
        let Draft { at, test, body, .. } = draft;
        Record { pos: 1, epoch: Epoch(1), class, seq: 1, at, test, body }
    }

    #[test]
    fn the_trail_shows_commands_and_what_people_did() {
        let at = Stamp {
            boot: BootId("b".into()),
            mono_ms: 1,
            wall_ms: 1_767_225_600_000,
            trust: ClockTrust::Ntp,
        };
        let source = Origin::Platform(UplinkName::new("street").unwrap());
        let actor = Actor { operator: "duty-07".to_owned(), source, reason: "visitor".to_owned() };
        let entry = audit::Entry {
            command: "c-1".to_owned(),
            verb: "door.open".to_owned(),
            actor,
            args: r#"{"door":"door-1"}"#.to_owned(),
        };
        let ended = audit::Ended {
            outcome: "done".to_owned(),
            code: "relay_pulsed".to_owned(),
            ..Default::default()
        };
        let line_of = |record: &Record| line(record, &Clocks::default());
        let shown = line_of(&record(entry.ended(&at, &ended))).unwrap().text();
        for part in
            ["2026-01-01T00:00:00", "platform street", "duty-07", "door.open", "relay_pulsed", "visitor"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let forging =
            audit::Ended { detail: "unknown field `a\n2026 \u{1b}[2J\u{202e}`".to_owned(), ..ended };
        let shown = line_of(&record(entry.ended(&at, &forging))).unwrap().text();
        assert!(shown.contains(r"`a\u{a}2026 \u{1b}[2J\u{202e}`"), "{shown}");
        let other = Draft::of_gateway(
            &at,
            None,
            ("clock.changed", None),
            std::collections::BTreeMap::new(),
            Text::default(),
        );
        let Body::Event(raised) = other.body.clone() else { panic!("no event") };
        assert_eq!(line_of(&record(other)), None);

        let mut alarm = Alarm::new("1-2-smoke".to_owned(), AlarmState::Acknowledged, *raised);
        let change = |what, source: &str| Change {
            what,
            actor: "duty-07".to_owned(),
            source: source.to_owned(),
            command: Some("street/c-2".to_owned()),
            reason: None,
        };
        for (what, source, told) in [
            (ChangeKind::Acknowledged, "platform street", true),
            (ChangeKind::Unshelved, "console", true),
            (ChangeKind::Raised, "rule", false),
        ] {
            alarm.change = Some(change(what, source));
            let draft = Draft {
                at: at.clone(),
                test: false,
                dedup: None,
                body: Body::Alarm(Box::new(alarm.clone())),
            };
            let shown = line_of(&record(draft));
            assert_eq!(shown.is_some(), told, "{what:?}");
            assert!(shown.is_none_or(|line| line.command == "c-2"));
        }
    }
}
