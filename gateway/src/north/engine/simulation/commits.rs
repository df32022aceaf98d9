//! The devices and the writer: what is asked of the journal waits for company, is committed together, and is answered
//! for only then.

use super::journal::Journal;
use super::{World, draft};
use crate::model::record::{Body, Class, Draft};
use crate::rt::clock::Clock;
use crate::store::{Answer, Op};

/// Who is told what became of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A device, or the gateway itself: a success is an acknowledgement.
    Device,
    /// The engine, under its ticket.
    Settlement(u64),
    /// Nobody: it is held for company.
    Nobody,
}

impl<J: Journal> World<J> {
    pub(super) fn make_records(&mut self) {
        for _ in 0..self.rng.usize(0..3) {
            let count = self.rng.usize(1..3);
            let drafts = (0..count).map(|_| self.make_record()).collect();
            self.waiting.push((Op::Append { drafts }, Waiter::Device));
        }
    }

    fn make_record(&mut self) -> Draft {
        self.made += 1;
        let class = [Class::Event, Class::Telemetry, Class::Telemetry, Class::Alarm][self.rng.usize(0..4)];
        draft(class, self.made, &self.clock.now())
    }

    /// The writer commits all that waits at once where somebody is to be told, and the rest within a second.
    pub(super) fn commit_at_times(&mut self) {
        let urgent = self.waiting.iter().any(|(_, waiter)| *waiter != Waiter::Nobody);
        if self.rng.u8(0..12) < if urgent { 8 } else { 2 } {
            self.commit();
        }
    }

    pub(super) fn commit(&mut self) {
        let (ops, waiters): (Vec<Op>, Vec<Waiter>) = self.waiting.drain(..).unzip();
        if ops.is_empty() {
            return;
        }
        let fault = self.chance(self.faults.broken_commits);
        let before = self.journal.heads().unwrap();
        let written = match self.journal.commit(&ops, fault, &mut self.rng) {
            Ok(answers) => {
                let stored = answers.iter().all(|done| matches!(done, Answer::Committed(_) | Answer::Done));
                assert!(stored, "{answers:?}, seed {}", self.seed);
                self.acknowledge(&ops);
                true
            }
            Err(_refused) => {
                self.refused += 1;
                // What waits for a commit has drafts nearly always; then the heads tell that it happened.
                self.late += u32::from(self.journal.heads().unwrap() != before);
                false
            }
        };
        // While a gap record is still owed, each commit could be the one that lets a cursor pass too early.
        let owing = !written || !self.engine.lost.is_empty();
        let now_ms = self.clock.mono_ms();
        for waiter in waiters {
            if let Waiter::Settlement(ticket) = waiter {
                self.engine.settled(ticket, written, now_ms);
            }
        }
        if owing {
            self.check_nothing_lost();
        }
    }

    /// Devices are told. The last numbers of the journal are those of this commit, without a gap.
    fn acknowledge(&mut self, ops: &[Op]) {
        let mut heads = self.journal.heads().unwrap();
        let drafts = ops.iter().rev().flat_map(|op| {
            match op {
                Op::Append { drafts } | Op::Settle { drafts, .. } => drafts.as_slice(),
                _ => &[],
            }
            .iter()
            .rev()
        });
        for draft in drafts {
            let class = draft.body.class();
            let head = heads.get_mut(&class).unwrap();
            let seq = head.last;
            head.last -= 1;
            let before = self.acknowledged.insert((class, seq), draft.body.clone());
            assert!(before.is_none(), "{class:?} {seq} was given out twice, seed {}", self.seed);
            if !matches!(draft.body, Body::Gap(_)) && self.rng.u32(0..1_000) < self.faults.unreadable {
                self.journal.spoil(class, seq);
                self.spoiled.insert((class, seq));
            }
        }
    }

    pub(super) fn is_settling(&self) -> bool {
        self.waiting.iter().any(|(_, waiter)| matches!(waiter, Waiter::Settlement(_)))
    }
}
