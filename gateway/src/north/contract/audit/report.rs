//! What the audit found, for people, for `--json`, and for tests.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What kind of thing was found. Each is a broken promise of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Numbers that should have come, are not announced as pending, and are in no gap record.
    Hole,
    /// One id with two contents.
    IdReused,
    /// A message that its schema does not allow.
    Schema,
    /// A message that contradicts its own topic, id or numbering.
    Contradiction,
    /// Old news in the live stream.
    Late,
    /// A value in the live stream older than one that came before.
    LatestBackwards,
    /// A state of an earlier connection that says "online".
    ConnBackwards,
    /// Two boxes speak under one name.
    TwoBoxes,
    /// A message above 16 KiB.
    Oversize,
    /// Retained where it must not be, or the other way round.
    RetainFlag,
    /// A snapshot of which pages never came.
    SnapshotIncomplete,
}

impl FindingKind {
    /// English and Chinese, as the report shows it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Hole => "hole 缺号",
            Self::IdReused => "one id, two contents 同号异文",
            Self::Schema => "schema break 格式不符",
            Self::Contradiction => "contradiction 自相矛盾",
            Self::Late => "late data 迟到数据",
            Self::LatestBackwards => "latest value went backwards 最新值倒退",
            Self::ConnBackwards => "connection number went backwards 连接号倒退",
            Self::TwoBoxes => "two boxes under one name 两台网关同名",
            Self::Oversize => "oversize 超长",
            Self::RetainFlag => "wrong retain flag 保留标志错误",
            Self::SnapshotIncomplete => "incomplete snapshot 快照不全",
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// `{root}/v1/{gateway}`, or the topic where there is none.
    pub gateway: String,
    /// What exactly, for a person.
    pub detail: String,
    /// Milliseconds since listening began.
    pub at_ms: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}: {}", self.gateway, self.kind.title(), self.detail)
    }
}

/// One class of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClassReport {
    /// Distinct records that came.
    pub records: u64,
    /// Of these, first seen in the backlog stream.
    pub replayed: u64,
    /// Records that came again, the same: harmless.
    pub duplicates: u64,
    /// Records of the live stream that came after a later one: harmless where subscriptions are shared.
    pub reordered: u64,
    /// Highest number that came.
    pub last: u64,
    /// Numbers missing and not explained. At a filtered platform some of them may be nobody's: the hole is real, its
    /// width is the most that can be missing.
    pub missing: u64,
    /// The first of the ranges of missing numbers, both ends included.
    pub holes: Vec<(u64, u64)>,
    /// Numbers announced as still to come.
    pub pending: u64,
    /// Numbers that gap records explain.
    pub gaps: u64,
}

/// One gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GatewayReport {
    /// What the newest state says; none if no state came.
    pub online: Option<bool>,
    pub conn: Option<u64>,
    /// Wills and goodbyes of earlier connections, ignored as the contract says.
    pub late_wills: u64,
    /// By epoch and class.
    pub epochs: BTreeMap<String, BTreeMap<String, ClassReport>>,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub messages: u64,
    /// Messages on topics that this release does not know: later releases may add some.
    pub unknown: u64,
    /// Records that the box had in memory only when it sent them.
    pub volatile: u64,
    pub records: u64,
    pub duplicates: u64,
    /// Missing and unexplained, over all gateways.
    pub missing: u64,
    pub pending: u64,
    pub gaps: u64,
    pub gateways: BTreeMap<String, GatewayReport>,
    /// How often each kind was found, also beyond those kept in `findings`.
    pub counts: BTreeMap<FindingKind, u64>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether there is nothing to report.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn count(&self, kind: FindingKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "messages 消息     {:>9}", self.messages)?;
        writeln!(out, "records 记录      {:>9}", self.records)?;
        writeln!(out, "duplicates 重复   {:>9}", self.duplicates)?;
        writeln!(out, "missing 缺失      {:>9}", self.missing)?;
        writeln!(out, "pending 待补      {:>9}", self.pending)?;
        writeln!(out, "gaps 已说明缺口   {:>9}", self.gaps)?;
        if self.volatile > 0 {
            writeln!(out, "volatile records 未落盘记录 {}", self.volatile)?;
        }
        if self.unknown > 0 {
            writeln!(out, "unknown topics 未知主题 {}", self.unknown)?;
        }
        for (name, gateway) in &self.gateways {
            let online = match gateway.online {
                Some(true) => "online 在线",
                Some(false) => "offline 离线",
                None => "no state 无状态",
            };
            let conn = gateway.conn.map_or_else(|| "-".to_owned(), |conn| conn.to_string());
            writeln!(out, "\n{name}: {online}, conn {conn}, late wills {}", gateway.late_wills)?;
            for (epoch, classes) in &gateway.epochs {
                for (class, report) in classes {
                    writeln!(
                        out,
                        "  {epoch} {class:<9} records {} (replayed {}), duplicates {}, last {}, missing {}, pending {}, gaps {}",
                        report.records,
                        report.replayed,
                        report.duplicates,
                        report.last,
                        report.missing,
                        report.pending,
                        report.gaps
                    )?;
                }
            }
        }
        for (kind, count) in &self.counts {
            writeln!(out, "\n{}: {count}", kind.title())?;
            let shown = self.findings.iter().filter(|finding| finding.kind == *kind);
            for finding in shown.take(10) {
                writeln!(out, "  +{} ms {}: {}", finding.at_ms, finding.gateway, finding.detail)?;
            }
        }
        if self.is_clean() {
            writeln!(out, "\nnothing to report 未发现问题")?;
        }
        Ok(())
    }
}
