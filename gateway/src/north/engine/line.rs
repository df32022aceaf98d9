//! One class of one uplink: its live and its backlog stream, and the records set aside. Turns into the stored cursor
//! and back.

use std::collections::BTreeMap;

use crate::model::cursor::{ClassCursor, Head};
use crate::model::ids::Seq;
use crate::model::limits::BACKLOG_RANGES_MAX;
use crate::model::record::Class;

use super::ranges::RangeSet;
use super::stream::{Kind, Stream};

/// Where a record that was set aside stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AsideState {
    Waiting { until_ms: u64 },
    Sent(u64),
    Acked { at_ms: u64 },
    Settling,
}

/// A record that the platform refused for its own sake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aside {
    pub(super) tries: u32,
    pub(super) state: AsideState,
}

/// One class.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) class: Class,
    pub(super) live: Stream,
    pub(super) backlog: Stream,
    /// The number after the last known record.
    pub(super) end: Seq,
    /// The lowest number stored.
    pub(super) first: Seq,
    /// Where the live stream began on this connection.
    pub(super) live_from: Seq,
    /// The last number before it that this uplink may see, as `previous` will say it.
    pub(super) last_seen: Seq,
    pub(super) aside: BTreeMap<Seq, Aside>,
    /// When the backlog may start on this connection.
    pub(super) backlog_at_ms: u64,
    /// A critical record waits among what is not delivered.
    pub(super) critical: bool,
    /// Up to where was looked for critical records.
    pub(super) scanned: Seq,
}

impl Line {
    /// Takes up where the cursor stands. A cursor that points beyond the journal (a restored or damaged one) cannot
    /// be trusted: then everything stored is sent again under the same ids.
    pub(super) fn new(class: Class, cursor: Option<&ClassCursor>, head: Option<Head>) -> Self {
        let (first, last) = head.map_or((1, 0), |head| (head.first.max(1), head.last));
        let believed = cursor.filter(|cursor| cursor.live_next <= last.saturating_add(1));
        let mut line = Self {
            class,
            live: Stream::default(),
            backlog: Stream::default(),
            end: last.saturating_add(1),
            first,
            live_from: last.saturating_add(1),
            last_seen: 0,
            aside: BTreeMap::new(),
            backlog_at_ms: 0,
            critical: false,
            scanned: 0,
        };
        match believed {
            None => line.live.unsent.insert(first, last),
            Some(cursor) => {
                line.live.unsent.insert(cursor.live_next.max(first), last);
                line.backlog.unsent = RangeSet::of(&cursor.backlog);
                line.backlog.unsent.clamp(first, last);
                let within = cursor.aside.iter().filter(|(seq, _)| (first..=last).contains(*seq));
                line.aside = within
                    .map(|(&seq, &tries)| (seq, Aside { tries, state: AsideState::Waiting { until_ms: 0 } }))
                    .collect();
            }
        }
        line.scanned = line.lowest().unwrap_or(line.end).saturating_sub(1);
        line
    }

    /// New records join the live stream. What the journal has forgotten is waited for no longer: whoever dropped it has
    /// left a gap record.
    pub(super) fn extend(&mut self, head: Head) {
        let first = head.first.max(1);
        if first > self.first {
            self.live.forget_below(first);
            self.backlog.forget_below(first);
        }
        self.first = first;
        if head.last >= self.end {
            self.live.unsent.insert(self.end.max(first), head.last);
            self.end = head.last + 1;
        }
    }

    /// What is not sent at this moment becomes backlog; what comes after is live.
    pub(super) fn fix_head(&mut self) {
        let waiting = std::mem::take(&mut self.live.unsent);
        self.live.ahead.clear();
        self.live.chain = None;
        self.live_from = self.end;
        self.add_backlog(&waiting);
    }

    pub(super) fn add_backlog(&mut self, ranges: &RangeSet) {
        self.backlog.unsent.merge(ranges);
        self.backlog.unsent.bound(BACKLOG_RANGES_MAX);
        self.backlog.ahead.clear();
        self.backlog.chain = None;
    }

    /// The connection is gone: nothing is under way any more.
    pub(super) fn ground(&mut self, now_ms: u64) {
        self.live.ground();
        self.backlog.ground();
        for aside in self.aside.values_mut() {
            if matches!(aside.state, AsideState::Sent(_) | AsideState::Acked { .. }) {
                aside.state = AsideState::Waiting { until_ms: now_ms };
            }
        }
        self.scanned = self.lowest().unwrap_or(self.end).saturating_sub(1);
        self.critical = false;
    }

    pub(super) fn stream(&mut self, kind: Kind) -> &mut Stream {
        match kind {
            Kind::Live => &mut self.live,
            Kind::Backlog => &mut self.backlog,
        }
    }

    /// A gap record for `seq` is on disk.
    pub(super) fn covered(&mut self, seq: Seq) {
        self.live.covered(seq);
        self.backlog.covered(seq);
        self.aside.remove(&seq);
    }

    /// The lowest number of both streams that is not delivered.
    pub(super) fn lowest(&self) -> Option<Seq> {
        [self.live.lowest(false), self.backlog.lowest(false)].into_iter().flatten().min()
    }

    /// Records not delivered, those that this uplink may not see included where nobody looked yet.
    pub(super) fn pending(&self) -> u64 {
        let mut left = self.live.left(false);
        left.merge(&self.backlog.left(false));
        left.count()
    }

    /// What to store. With `settled`, records whose gap record is written in the same commit count as delivered.
    pub(super) fn cursor(&self, settled: bool) -> ClassCursor {
        let mut backlog = self.backlog.left(settled);
        backlog.bound(BACKLOG_RANGES_MAX);
        let aside = self.aside.iter().filter(|(_, aside)| !(settled && aside.state == AsideState::Settling));
        ClassCursor {
            live_next: self.live.lowest(settled).unwrap_or(self.end),
            backlog: backlog.as_slice().to_vec(),
            aside: aside.map(|(&seq, aside)| (seq, aside.tries)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::SeqRange;
    use crate::model::ids::Epoch;

    fn head(first: Seq, last: Seq) -> Head {
        Head { epoch: Epoch(1), first, last }
    }

    fn cursor(live_next: Seq, backlog: &[(Seq, Seq)], aside: &[Seq]) -> ClassCursor {
        ClassCursor {
            live_next,
            backlog: backlog.iter().map(|&(from, to)| SeqRange { from, to }).collect(),
            aside: aside.iter().map(|&seq| (seq, 1)).collect(),
        }
    }

    #[test]
    fn a_line_takes_up_where_its_cursor_stands() {
        // cursor, head, cursor after the head was fixed
        let table = [
            (None, head(1, 0), cursor(1, &[], &[])),
            (None, head(4, 9), cursor(10, &[(4, 9)], &[])),
            (Some(cursor(5, &[], &[])), head(1, 9), cursor(10, &[(5, 9)], &[])),
            (Some(cursor(5, &[(1, 2)], &[3])), head(1, 4), cursor(5, &[(1, 2)], &[3])),
            // The journal has forgotten what the cursor still wanted.
            (Some(cursor(5, &[(1, 2)], &[3])), head(8, 9), cursor(10, &[(8, 9)], &[])),
            // A cursor beyond the head: nothing is skipped, and nothing waits for ever.
            (Some(cursor(50, &[(20, 30)], &[40])), head(1, 9), cursor(10, &[(1, 9)], &[])),
        ];
        for (before, head, after) in table {
            let mut line = Line::new(Class::Event, before.as_ref(), Some(head));
            line.fix_head();
            assert_eq!(line.cursor(false), after, "from {before:?} with {head:?}");
        }
    }

    #[test]
    fn what_is_forgotten_is_not_waited_for() {
        let mut line = Line::new(Class::Event, Some(&cursor(8, &[(2, 4)], &[])), Some(head(1, 9)));
        assert_eq!(line.pending(), 5);
        line.extend(head(9, 9));
        assert_eq!(line.pending(), 1);
        assert_eq!(line.cursor(false), cursor(9, &[], &[]));
        line.extend(head(11, 10));
        assert_eq!(line.cursor(false), cursor(11, &[], &[]), "nothing is left");
    }

    #[test]
    fn a_crash_resumes_at_what_was_not_delivered() {
        let mut line = Line::new(Class::Event, None, Some(head(1, 3)));
        line.fix_head();
        line.extend(head(1, 6));
        let stored = line.cursor(false);
        assert_eq!(stored, cursor(4, &[(1, 3)], &[]));
        let mut again = Line::new(Class::Event, Some(&stored), Some(head(1, 8)));
        again.fix_head();
        assert_eq!(again.cursor(false), cursor(9, &[(1, 8)], &[]));
    }
}
