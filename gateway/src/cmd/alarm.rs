//! `gatehouse alarm`: what is open, and what a person at the box does about it. Asks the running daemon by its local
//! socket; the same orders as a platform's, by the same desk.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Subcommand, ValueEnum};

use super::ConfigArg;
use super::journal::time;
use crate::config;
use crate::console::socket::{Answer, Question, ask};
use crate::model::alarm::{Alarm, AlarmState, HandlingResult, Stage};
use crate::model::command::{AlarmVerb, Done, End, Verb};
use crate::model::record::Severity;
use crate::model::roll::Listed;

/// Alarms: see what is open, and handle it (报警处置).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// The daemon's socket, if it is not where the configuration says.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Language of what is shown; by LANG if not given.
    #[arg(long, global = true, value_enum)]
    lang: Option<Lang>,
    #[command(subcommand)]
    verb: AlarmCommand,
}

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    Zh,
    En,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum AlarmCommand {
    /// List open alarms, gravest first (列出).
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one alarm with all that is known of it (详情).
    Show(Which),
    /// Acknowledge (确认).
    Ack(Order),
    /// Assign to a role or a number (指派).
    Assign {
        #[command(flatten)]
        order: Order,
        /// Who is to see to it: a role or a number, never a name.
        #[arg(long, value_name = "WHO")]
        to: String,
    },
    /// Say what it turned out to be (处置).
    Handle {
        #[command(flatten)]
        order: Order,
        /// What it was.
        #[arg(long, value_enum)]
        result: ResultArg,
        /// For people, without personal data.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Close (关闭).
    Close(Order),
    /// Put aside for a time; it raises nothing meanwhile (搁置).
    Shelve {
        #[command(flatten)]
        order: Order,
        /// For how long: 30m, 2h.
        #[arg(long, value_name = "TIME", value_parser = super::span)]
        r#for: Duration,
    },
    /// Take down from the shelf (取消搁置).
    Unshelve(Order),
    /// Put aside until it is taken back (停用).
    OutOfService(Order),
    /// Take back into service (恢复).
    InService(Order),
}

/// Which alarm.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The alarm's id, or any part of it that only one open alarm has.
    alarm: String,
}

/// An order about one alarm.
#[derive(Debug, clap::Args)]
pub struct Order {
    #[command(flatten)]
    which: Which,
    /// The revision you have seen: if the alarm has changed since, nothing is done.
    #[arg(long)]
    rev: Option<u64>,
    /// Why; kept in the audit trail.
    #[arg(long, default_value = "at the box")]
    reason: String,
    /// Who you are, if the account is shared.
    #[arg(long, value_name = "WHO")]
    operator: Option<String>,
}

/// What an alarm turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResultArg {
    /// 属实
    Genuine,
    /// 误报
    False,
    /// 测试
    Test,
    /// 重复
    Duplicate,
    /// 转办
    Transferred,
    /// 未发现异常
    Nothing,
}

impl From<ResultArg> for HandlingResult {
    fn from(arg: ResultArg) -> Self {
        match arg {
            ResultArg::Genuine => Self::Genuine,
            ResultArg::False => Self::False,
            ResultArg::Test => Self::Test,
            ResultArg::Duplicate => Self::Duplicate,
            ResultArg::Transferred => Self::Transferred,
            ResultArg::Nothing => Self::Nothing,
        }
    }
}

/// What is to be printed.
pub async fn run(args: Args) -> anyhow::Result<String> {
    let socket = match args.socket {
        Some(socket) => socket,
        None => config::load(&args.config.config)?.settings.gateway.socket(),
    };
    let lang = args.lang.unwrap_or_else(usual);
    let open = open(&socket).await?;
    let (order, act) = match args.verb {
        AlarmCommand::List { json: true } => {
            let lines: Result<Vec<String>, _> = open.iter().map(serde_json::to_string).collect();
            return Ok(lines?.iter().fold(String::new(), |text, line| text + line + "\n"));
        }
        AlarmCommand::List { json: false } => return Ok(table(&open, lang)),
        AlarmCommand::Show(which) => {
            return Ok(serde_json::to_string_pretty(find(&open, &which.alarm, lang)?)? + "\n");
        }
        AlarmCommand::Ack(order) => (order, AlarmVerb::Acknowledge),
        AlarmCommand::Assign { order, to } => (order, AlarmVerb::Assign { assignee: to }),
        AlarmCommand::Handle { order, result, note } => {
            (order, AlarmVerb::Handle { result: result.into(), note })
        }
        AlarmCommand::Close(order) => (order, AlarmVerb::Close),
        AlarmCommand::Shelve { order, r#for } => (order, AlarmVerb::Shelve { for_s: r#for.as_secs() }),
        AlarmCommand::Unshelve(order) => (order, AlarmVerb::Unshelve),
        AlarmCommand::OutOfService(order) => (order, AlarmVerb::TakeOutOfService),
        AlarmCommand::InService(order) => (order, AlarmVerb::ReturnToService),
    };
    let alarm = &find(&open, &order.which.alarm, lang)?.alarm;
    let question = Question::Order {
        order: Verb::Alarm { alarm: alarm.alarm.clone(), rev: order.rev, act: act.clone() },
        operator: order.operator,
        reason: order.reason,
    };
    match ask(&socket, &question).await? {
        Answer::Done(done) => told((alarm, &act), &done, lang),
        other => strange(other, &socket),
    }
}

fn strange<T>(answer: Answer, socket: &std::path::Path) -> anyhow::Result<T> {
    match answer {
        Answer::Error(error) => bail!("the daemon at {} refused: {error}", socket.display()),
        _ => bail!("the daemon at {} answered another question; is it of another version?", socket.display()),
    }
}

/// All open alarms, gravest first.
async fn open(socket: &std::path::Path) -> anyhow::Result<Vec<Listed>> {
    let (mut open, mut after) = (Vec::new(), String::new());
    loop {
        match ask(socket, &Question::Alarms { after }).await? {
            Answer::Alarms { alarms, more } => {
                open.extend(alarms);
                let last = open.last().map(|listed| listed.alarm.alarm.clone());
                match last.filter(|_| more) {
                    Some(last) => after = last,
                    None => break,
                }
            }
            other => return strange(other, socket),
        }
    }
    open.sort_by_key(|listed| std::cmp::Reverse(listed.alarm.severity()));
    Ok(open)
}

fn find<'a>(open: &'a [Listed], wanted: &str, lang: Lang) -> anyhow::Result<&'a Listed> {
    if let Some(exact) = open.iter().find(|listed| listed.alarm.alarm == wanted) {
        return Ok(exact);
    }
    let mut partly = open.iter().filter(|listed| listed.alarm.alarm.contains(wanted));
    match (partly.next(), partly.next(), lang) {
        (Some(only), None, _) => Ok(only),
        (None, _, Lang::En) => bail!("no open alarm is called {wanted:?}; see `gatehouse alarm list`"),
        (None, _, Lang::Zh) => bail!("没有编号含 {wanted:?} 的未结束报警；用 `gatehouse alarm list` 查看"),
        (Some(_), Some(_), Lang::En) => {
            bail!("{wanted:?} is a part of several open alarms; write more of it")
        }
        (Some(_), Some(_), Lang::Zh) => bail!("编号含 {wanted:?} 的未结束报警不止一条；请多写几位"),
    }
}

fn told(ordered: (&Alarm, &AlarmVerb), done: &Done, lang: Lang) -> anyhow::Result<String> {
    let alarm = &ordered.0.alarm;
    let rev = done.data.as_ref().and_then(|data| data.get("rev")?.as_u64());
    let rev = rev.map(|rev| format!(" rev {rev}")).unwrap_or_default();
    match (done.end, lang) {
        (End::Done, Lang::En) if done.code == "already" => Ok(format!("{alarm}: it was so already{rev}\n")),
        (End::Done, Lang::Zh) if done.code == "already" => Ok(format!("{alarm}：已是该状态{rev}\n")),
        (End::Done, Lang::En) => Ok(format!("{alarm}: done{rev}\n")),
        (End::Done, Lang::Zh) => Ok(format!("{alarm}：已完成{rev}\n")),
        (_, Lang::En) => bail!("{alarm}: not done ({}): {}", done.code, done.detail),
        (_, Lang::Zh) => bail!("{alarm}：未完成（{}）：{}{rev}", done.code, why_not(ordered, &done.code)),
    }
}

/// Why an order was not carried out, in Chinese. The desk gives its reasons in English, and a code for each.
fn why_not((alarm, act): (&Alarm, &AlarmVerb), code: &str) -> &'static str {
    match (code, act) {
        ("alarm_unknown", _) => "没有这条未结束的报警",
        ("outdated", _) => "报警已有变化，请重新查看后再操作",
        ("store_failed", _) => "记录库无法写入，未做任何操作",
        ("unknown", _) => "结果未知，请重新查看报警",
        ("not_possible", AlarmVerb::Close) => "报警条件仍未消除，请等其消除，或先停用再关闭",
        ("not_possible", AlarmVerb::Shelve { .. }) if alarm.state == AlarmState::OutOfService => {
            "报警已停用，请先恢复"
        }
        ("not_possible", AlarmVerb::Shelve { .. }) => "搁置时间超出允许范围",
        ("not_possible", AlarmVerb::Assign { .. }) => "指派对象为空或过长",
        ("not_possible", AlarmVerb::Handle { .. }) => "备注过长",
        ("not_possible", _) => "须写明操作人和原因",
        _ => "详见日志",
    }
}

/// By the environment, as other programs do.
fn usual() -> Lang {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = set("LC_ALL").or_else(|| set("LC_MESSAGES")).or_else(|| set("LANG"));
    if named.is_some_and(|named| named.starts_with("zh")) { Lang::Zh } else { Lang::En }
}

const fn severity(severity: Option<Severity>, lang: Lang) -> &'static str {
    match (severity, lang) {
        (Some(severity), Lang::Zh) => severity.words().0,
        (Some(severity), Lang::En) => severity.words().1,
        (None, _) => "-",
    }
}

const fn state(alarm: &Alarm, lang: Lang) -> &'static str {
    match (alarm.state, lang) {
        (AlarmState::Normal, Lang::Zh) => "正常",
        (AlarmState::Normal, Lang::En) => "normal",
        (AlarmState::Unacknowledged, Lang::Zh) => "未确认",
        (AlarmState::Unacknowledged, Lang::En) => "unacknowledged",
        (AlarmState::Acknowledged, Lang::Zh) => "已确认",
        (AlarmState::Acknowledged, Lang::En) => "acknowledged",
        (AlarmState::ReturnedUnacknowledged, Lang::Zh) => "已恢复未确认",
        (AlarmState::ReturnedUnacknowledged, Lang::En) => "returned, unacknowledged",
        (AlarmState::Shelved, Lang::Zh) => "搁置",
        (AlarmState::Shelved, Lang::En) => "shelved",
        (AlarmState::OutOfService, Lang::Zh) => "停用",
        (AlarmState::OutOfService, Lang::En) => "out of service",
    }
}

const fn stage(stage: Stage, lang: Lang) -> &'static str {
    match (stage, lang) {
        (Stage::Open, _) => "-",
        (Stage::Assigned, Lang::Zh) => "已指派",
        (Stage::Assigned, Lang::En) => "assigned",
        (Stage::Handled, Lang::Zh) => "已处置",
        (Stage::Handled, Lang::En) => "handled",
        (Stage::Closed, Lang::Zh) => "已关闭",
        (Stage::Closed, Lang::En) => "closed",
    }
}

/// Open alarms as a table.
fn table(open: &[Listed], lang: Lang) -> String {
    if open.is_empty() {
        return match lang {
            Lang::Zh => "没有未结束的报警\n".to_owned(),
            Lang::En => "no alarm is open\n".to_owned(),
        };
    }
    let head = match lang {
        Lang::Zh => ["级别", "状态", "处置", "次数", "时间", "设备", "位置", "内容", "报警"],
        Lang::En => ["severity", "state", "handling", "count", "since", "device", "place", "what", "alarm"],
    };
    let rows = open.iter().map(|listed| {
        let (alarm, raised) = (&listed.alarm, &listed.alarm.raised);
        let text = raised.text.as_ref().map(|text| if lang == Lang::Zh { &text.zh } else { &text.en });
        let what = text.unwrap_or(&raised.name);
        let place = &raised.place;
        let floor = place.floor.map(|floor| floor.to_string());
        let place = [&place.building, &place.unit, &floor, &place.household];
        let place: Vec<&str> = place.into_iter().flatten().map(String::as_str).collect();
        let test = if listed.test { "* " } else { "" };
        [
            severity(alarm.severity(), lang).to_owned(),
            state(alarm, lang).to_owned(),
            stage(alarm.handling.stage, lang).to_owned(),
            alarm.count.max(1).to_string(),
            time(alarm.arose.as_ref().unwrap_or(&listed.at)).unwrap_or_default(),
            raised.device.id.to_string(),
            place.join("/"),
            format!("{test}{what}"),
            format!("{} rev {}", alarm.alarm, alarm.rev),
        ]
    });
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows);
    columns(&all)
}

/// Chinese characters take two columns of a terminal.
fn width(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum()
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (most, cell) in widths.iter_mut().zip(row) {
            *most = (*most).max(width(cell));
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, most) in row.iter().zip(widths) {
            let gap = most.saturating_sub(width(cell)).saturating_add(2);
            // Writing to a String cannot fail.
            write!(line, "{cell}{}", " ".repeat(gap)).unwrap_or_default();
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::BootId;
    use crate::model::record::{Body, Draft, Text};
    use crate::model::stamp::{ClockTrust, Stamp};

    fn listed(id: &str, level: Severity) -> Listed {
        let at = Stamp { boot: BootId("b".into()), mono_ms: 1, wall_ms: 0, trust: ClockTrust::Ntp };
        let text = Text { zh: "烟雾报警".to_owned(), en: "smoke".to_owned() };
        let draft = Draft::of_gateway(
            &at,
            None,
            ("smoke.detected", Some(level)),
            std::collections::BTreeMap::new(),
            text,
        );
        let Body::Event(raised) = draft.body else { panic!("no event") };
        Listed {
            seq: 1,
            test: false,
            at,
            alarm: Alarm::new(id.to_owned(), AlarmState::Unacknowledged, *raised),
        }
    }

    #[test]
    fn a_table_speaks_the_readers_language_and_an_id_may_be_short() {
        let open = [listed("e-5-smoke", Severity::Critical), listed("e-51-smoke", Severity::Minor)];
        let english = table(&open, Lang::En);
        assert!(english.contains("critical  unacknowledged") && english.contains("smoke"), "{english}");
        let chinese = table(&open, Lang::Zh);
        assert!(chinese.contains("紧急  未确认") && chinese.contains("烟雾报警"), "{chinese}");
        let mut old = listed("e-6-smoke", Severity::Minor);
        old.alarm.arose = Some(Stamp { wall_ms: -60_000, ..old.at.clone() });
        assert!(table(&[old], Lang::En).contains("1969-12-31T23:59:00"), "not since it was acknowledged");
        let starts: Vec<_> = chinese.lines().map(|line| width(line.split("烟雾").next().unwrap())).collect();
        assert_eq!(starts[1], starts[2], "{chinese}");
        assert_eq!(table(&[], Lang::Zh), "没有未结束的报警\n");
        for (lang, words) in [(Lang::En, ["several", "no open alarm"]), (Lang::Zh, ["不止一条", "没有"])]
        {
            assert_eq!(find(&open, "-5-", lang).unwrap().alarm.alarm, "e-5-smoke");
            assert_eq!(find(&open, "e-51-smoke", lang).unwrap().alarm.alarm, "e-51-smoke");
            for (wanted, word) in ["smoke", "gas"].into_iter().zip(words) {
                let error = find(&open, wanted, lang).unwrap_err().to_string();
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn what_was_not_done_is_a_failure() {
        let done = |end, code: &str| Done {
            end,
            code: code.to_owned(),
            detail: "why".to_owned(),
            data: Some(serde_json::json!({ "rev": 4 })),
        };
        let alarm = listed("e-5", Severity::Minor).alarm;
        let said = |act: AlarmVerb, end, code: &str, lang| told((&alarm, &act), &done(end, code), lang);
        assert_eq!(said(AlarmVerb::Close, End::Done, "ok", Lang::En).unwrap(), "e-5: done rev 4\n");
        let english = said(AlarmVerb::Close, End::Rejected, "not_possible", Lang::En).unwrap_err();
        assert_eq!(english.to_string(), "e-5: not done (not_possible): why");
        // The desk's own words are English.
        let acts = [
            AlarmVerb::Close,
            AlarmVerb::Shelve { for_s: 0 },
            AlarmVerb::Assign { assignee: String::new() },
            AlarmVerb::Acknowledge,
        ];
        let codes = ["not_possible", "outdated", "alarm_unknown", "store_failed", "unknown"];
        for (act, code) in acts.iter().flat_map(|act| codes.map(|code| (act, code))) {
            let chinese = said(act.clone(), End::Rejected, code, Lang::Zh).unwrap_err().to_string();
            let (_, why) = chinese.split_once("）：").unwrap();
            assert!(!why.contains("why") && !why.contains("详见日志"), "{chinese}");
        }
    }
}
