//! Tests of the book: a bench that drives it as the pipeline does, without rules.

mod floods;
mod life;
mod properties;
mod supervising;
mod table;

use super::*;
use crate::model::alarm::Alarm;
use crate::model::alarm::{HandlingResult, Stage};
use crate::model::command::{Actor, AlarmVerb, Origin as From};
use crate::model::ids::{BootId, DeviceId, UplinkName};
use crate::model::place::Place;
use crate::model::record::{Body, Category, DeviceRef, Severity};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::pipeline::signal::Escalation;

pub(super) const EPOCH: Epoch = Epoch(0xabc);
/// Of every raise of the bench that says nothing else.
pub(super) const COOLDOWN_MS: u64 = 300_000;
const HOUR_MS: u64 = 3_600_000;

/// An alarm as it was told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) t_ms: u64,
    pub(super) test: bool,
    pub(super) alarm: Alarm,
}

/// The book, the time, and what came out.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) book: Book,
    pub(super) t_ms: u64,
    pub(super) pos: Pos,
    pub(super) told: Vec<Told>,
    pub(super) asked: Vec<Asked>,
    commands: u64,
}

pub(super) fn raise(rule: &str, subject: &str) -> Raise {
    let device = DeviceRef {
        id: DeviceId::new(subject).unwrap(),
        kind: "sensor".to_owned(),
        profile: None,
        bus: None,
    };
    let condition = Event {
        device,
        place: Place::default(),
        category: Category::Emergency,
        name: "thing.happened".to_owned(),
        severity: Some(Severity::Minor),
        params: BTreeMap::new(),
        text: None,
    };
    Raise {
        rule: RuleName::new(rule).unwrap(),
        subject: subject.to_owned(),
        at: stamp(0),
        condition,
        lasts: true,
        latched: false,
        cooldown_ms: COOLDOWN_MS,
        escalate: None,
        actions: Vec::new(),
        act_within_ms: 30_000,
        hides: Vec::new(),
        test: false,
    }
}

/// Some time after the start of a box that has run for a day.
pub(super) fn stamp(t_ms: u64) -> Stamp {
    Stamp {
        boot: BootId("b".into()),
        mono_ms: 86_400_000 + t_ms,
        wall_ms: 1_793_578_530_250,
        trust: ClockTrust::None,
    }
}

impl Bench {
    pub(super) fn new(config: &AlarmConfig) -> Self {
        let book = Book::new(config, Arc::new(Directory::default()), Names::default());
        Self { book, t_ms: 0, pos: 0, told: Vec::new(), asked: Vec::new(), commands: 0 }
    }

    pub(super) fn now(&self) -> Now {
        Now { t_ms: self.t_ms, at: stamp(self.t_ms) }
    }

    /// What came out is told and stored, as the journal does it.
    fn keep(&mut self, out: Out) {
        for draft in out.drafts {
            let Body::Alarm(alarm) = draft.body else { panic!("not an alarm") };
            let seq = self.told.len() as u64 + 1;
            let listed = Listed { seq, test: draft.test, at: draft.at, alarm: *alarm.clone() };
            self.book.stored(&listed);
            self.told.push(Told { t_ms: self.t_ms, test: draft.test, alarm: *alarm });
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        self.pos += 1;
        self.signal_of_record(signal);
    }

    fn signal_of_record(&mut self, signal: Signal) {
        let mut out = Out::default();
        self.asked.extend(self.book.signal(&self.now(), signal, (EPOCH, self.pos), &mut out));
        self.keep(out);
    }

    pub(super) fn raise(&mut self, raise: &Raise) {
        self.signal(Signal::Raise(Box::new(raise.clone())));
    }

    pub(super) fn clear(&mut self, raise: &Raise) {
        self.signal(Signal::Clear(Clear {
            rule: raise.rule.clone(),
            subject: raise.subject.clone(),
            at: stamp(self.t_ms),
            test: raise.test,
        }));
    }

    pub(super) fn order(&mut self, alarm: &str, rev: Option<u64>, verb: AlarmVerb) -> Verdict {
        self.pos += 1;
        self.commands += 1;
        let actor = Actor {
            operator: "duty-07".to_owned(),
            source: From::Platform(UplinkName::new("district").unwrap()),
            reason: "called".to_owned(),
        };
        let command = format!("c-{}", self.commands);
        let order = AlarmOrder { command, alarm: alarm.to_owned(), rev, verb, actor };
        let mut out = Out::default();
        let verdict = self.book.order(&self.now(), &order, &mut out);
        self.keep(out);
        verdict
    }

    /// Does it to the only open alarm.
    pub(super) fn obey(&mut self, verb: AlarmVerb) -> Verdict {
        let id = self.only().map(|alarm| alarm.alarm).unwrap_or_default();
        self.order(&id, None, verb)
    }

    pub(super) fn supervise(&mut self, body: Body) {
        self.pos += 1;
        let (class, now) = (body.class(), self.now());
        let record = Record {
            pos: self.pos,
            epoch: EPOCH,
            class,
            seq: self.pos,
            at: now.at.clone(),
            test: false,
            body,
        };
        let mut signals = Vec::new();
        self.book.supervise(&now, &record, &mut signals);
        for signal in signals {
            self.signal_of_record(signal);
        }
    }

    /// Time passes, and what falls due is done.
    pub(super) fn pass(&mut self, ms: u64) {
        let until_ms = self.t_ms + ms;
        while let Some((due_ms, key)) = self.book.next_due().filter(|(due_ms, _)| *due_ms <= until_ms) {
            self.t_ms = self.t_ms.max(due_ms);
            self.pos += 1;
            let (mut signals, mut out) = (Vec::new(), Out::default());
            self.asked.extend(self.book.fire(&self.now(), &key, &mut signals, &mut out));
            self.keep(out);
            for signal in signals {
                self.signal_of_record(signal);
            }
        }
        self.t_ms = until_ms;
    }

    pub(super) fn rows(&self) -> Vec<(String, Option<String>)> {
        let mut rows = Vec::new();
        self.book.unsaved(&mut rows);
        rows
    }

    pub(super) fn open(&self) -> Vec<Alarm> {
        self.book.open().into_iter().map(|listed| listed.alarm).collect()
    }

    pub(super) fn only(&self) -> Option<Alarm> {
        self.open().pop()
    }

    pub(super) fn changes(&self) -> Vec<ChangeKind> {
        self.told.iter().filter_map(|told| told.alarm.change.as_ref()).map(|change| change.what).collect()
    }
}

use crate::model::record::Record;
