//! One ordered stream of one class, live or backlog: what is still to be sent, what is under way, and how far the
//! acknowledged prefix reaches. Knows no messages and no clock beyond the numbers it is given.
//!
//! The flights tile the numbers that were taken from `unsent`, records that are not to be sent included, so the
//! prefix of settled flights is exactly what the cursor may pass.

use std::collections::VecDeque;

use crate::model::ids::{Epoch, Seq};

use super::ranges::RangeSet;
use super::source::Read;

/// Which of the two streams of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Live,
    Backlog,
}

/// Where a part of a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlightState {
    /// Published under this token, no PUBACK yet.
    Sent(u64),
    /// The broker has it; the platform's receipt is awaited.
    Acked { at_ms: u64 },
    /// To be replaced by a gap record that is not on disk yet.
    Settling,
    /// Delivered, set aside, covered by a gap record, or not for this uplink.
    Done,
}

/// A message under way, with the numbers it settles.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// Covered numbers, also those between its records that this uplink may not see.
    pub(super) from: Seq,
    pub(super) to: Seq,
    /// The records in the message.
    pub(super) records: Vec<Seq>,
    pub(super) epoch: Option<Epoch>,
    /// The record is itself a gap record.
    pub(super) gap: bool,
    pub(super) state: FlightState,
}

/// A stream that waits after "busy" or "nobody listens".
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) since_ms: u64,
    pub(super) until_ms: u64,
    pub(super) failures: u32,
    /// The one message that tries whether the platform takes records again.
    pub(super) probe: Option<u64>,
}

/// The last record that the uplink may see, among the numbers up to `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) seq: Seq,
    /// Not known of a record that cannot be read.
    pub(super) epoch: Option<Epoch>,
    pub(super) until: Seq,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// What was not sent yet, lowest first.
    pub(super) unsent: RangeSet,
    flights: VecDeque<Flight>,
    /// Records read ahead; they all lie in the first range of `unsent`.
    pub(super) ahead: VecDeque<Read>,
    /// What `previous` is for the record after the numbers taken last, if known.
    pub(super) chain: Option<Chain>,
    pub(super) pause: Option<Pause>,
    /// How often the stream was sent again because receipts stayed away.
    pub(super) silences: u32,
}

impl Stream {
    /// The numbers up to `to` leave `unsent` and become the last flight.
    pub(super) fn take(&mut self, to: Seq, records: Vec<Seq>, epoch: Option<Epoch>, state: FlightState) {
        let Some(range) = self.unsent.first() else { return };
        let to = to.min(range.to);
        self.unsent.remove(range.from, to);
        self.chain = self.chain_at(range.from).map(|chain| Chain { until: to, ..chain });
        if state == FlightState::Done
            && let Some(last) = self.flights.back_mut()
            && last.state == FlightState::Done
            && last.to + 1 == range.from
        {
            last.to = to;
        } else {
            self.flights.push_back(Flight { from: range.from, to, records, epoch, gap: false, state });
        }
        self.pop_done();
    }

    /// The chain, if it reaches up to the number `from`.
    pub(super) fn chain_at(&self, from: Seq) -> Option<Chain> {
        self.chain.filter(|chain| chain.until.saturating_add(1) == from)
    }

    /// Marks the last flight as one that carries a gap record.
    pub(super) fn mark_gap(&mut self) {
        if let Some(last) = self.flights.back_mut() {
            last.gap = true;
        }
    }

    /// The record at the front leaves the stream and is tried apart from it.
    pub(super) fn pass_aside(&mut self, seq: Seq, epoch: Epoch) {
        self.ahead.pop_front();
        self.take(seq, Vec::new(), None, FlightState::Done);
        self.chain = Some(Chain { seq, epoch: Some(epoch), until: seq });
    }

    /// Numbers below `first` are not stored any more.
    pub(super) fn forget_below(&mut self, first: Seq) {
        self.unsent.remove(0, first.saturating_sub(1));
        self.ahead.retain(|read| read.seq() >= first);
    }

    fn pop_done(&mut self) {
        while self.flights.front().is_some_and(|flight| flight.state == FlightState::Done) {
            self.flights.pop_front();
        }
    }

    pub(super) fn flight(&self, token: u64) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.state == FlightState::Sent(token))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.iter().filter(|flight| matches!(flight.state, FlightState::Sent(_))).count()
    }

    /// Records that the broker has and the platform has not confirmed.
    pub(super) fn unconfirmed(&self) -> usize {
        let acked = self.flights.iter().filter(|flight| matches!(flight.state, FlightState::Acked { .. }));
        acked.map(|flight| flight.records.len()).sum()
    }

    /// The flight of `token` is over.
    pub(super) fn settle(&mut self, token: u64, state: FlightState) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.state == FlightState::Sent(token))
        {
            flight.state = state;
        }
        self.pop_done();
    }

    /// Sends again from the flight of `token` on, in order. Returns the tokens that lose their meaning.
    pub(super) fn go_back(&mut self, token: u64) -> Vec<u64> {
        let place = self.flights.iter().position(|flight| flight.state == FlightState::Sent(token));
        place.map_or_else(Vec::new, |place| self.recall(place))
    }

    /// Sends again everything that is not settled. Returns the tokens that lose their meaning.
    pub(super) fn go_back_all(&mut self) -> Vec<u64> {
        self.recall(0)
    }

    /// Flights from `place` on return to `unsent`; gap records under way keep their place.
    fn recall(&mut self, place: usize) -> Vec<u64> {
        let mut orphans = Vec::new();
        let mut kept = VecDeque::new();
        for flight in self.flights.drain(place..) {
            match flight.state {
                FlightState::Done | FlightState::Settling => kept.push_back(flight),
                FlightState::Sent(token) => {
                    orphans.push(token);
                    self.unsent.insert(flight.from, flight.to);
                }
                FlightState::Acked { .. } => self.unsent.insert(flight.from, flight.to),
            }
        }
        self.flights.append(&mut kept);
        self.ahead.clear();
        self.chain = None;
        self.pop_done();
        orphans
    }

    /// Forgets what is under way: the connection is gone.
    pub(super) fn ground(&mut self) {
        self.recall(0);
        self.pause = None;
        self.silences = 0;
    }

    /// A gap record for `seq` is on disk.
    pub(super) fn covered(&mut self, seq: Seq) {
        for flight in &mut self.flights {
            if flight.state == FlightState::Settling && flight.from <= seq && seq <= flight.to {
                flight.state = FlightState::Done;
            }
        }
        self.pop_done();
    }

    /// The platform has stored this stream up to the record `upto`: everything sent up to it is delivered. Returns
    /// how many records that are, and the tokens that lose their meaning.
    pub(super) fn receipt(&mut self, upto: Seq, epoch: Epoch) -> (usize, Vec<u64>) {
        let holds = |flight: &Flight| {
            flight.epoch == Some(epoch)
                && flight.records.last().is_some_and(|last| *last <= upto)
                && upto <= flight.to
        };
        // In the middle of a batch: everything before the batch.
        let inside = |flight: &Flight| {
            flight.epoch == Some(epoch)
                && flight.from <= upto
                && flight.records.last().is_some_and(|last| upto < *last)
        };
        let end = match self.flights.iter().rposition(holds) {
            Some(place) => place + 1,
            None => match self.flights.iter().rposition(inside) {
                Some(place) => place,
                None => return (0, Vec::new()),
            },
        };
        let (mut count, mut orphans) = (0, Vec::new());
        for flight in self.flights.iter_mut().take(end) {
            match flight.state {
                FlightState::Sent(token) => orphans.push(token),
                FlightState::Acked { .. } => {}
                FlightState::Settling | FlightState::Done => continue,
            }
            count += flight.records.len();
            flight.state = FlightState::Done;
        }
        if count > 0 {
            self.silences = 0;
        }
        self.pop_done();
        (count, orphans)
    }

    /// When the oldest message that waits for a receipt was acknowledged by the broker.
    pub(super) fn unconfirmed_since_ms(&self) -> Option<u64> {
        let acked = self.flights.iter().filter_map(|flight| match flight.state {
            FlightState::Acked { at_ms } => Some(at_ms),
            _ => None,
        });
        acked.min()
    }

    /// What is not delivered. With `settled`, records whose gap record is being written count as delivered.
    pub(super) fn left(&self, settled: bool) -> RangeSet {
        let mut left = self.unsent.clone();
        for flight in &self.flights {
            let over = match flight.state {
                FlightState::Done => true,
                FlightState::Settling => settled,
                FlightState::Sent(_) | FlightState::Acked { .. } => false,
            };
            if !over {
                left.insert(flight.from, flight.to);
            }
        }
        left
    }

    /// The first number that the cursor may not pass. With `settled` as in [`Stream::left`].
    pub(super) fn lowest(&self, settled: bool) -> Option<Seq> {
        self.left(settled).first().map(|range| range.from)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.unsent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(7);

    /// A stream of 1..=6, each record under the token of its number.
    fn sent() -> Stream {
        let mut stream = Stream::default();
        stream.unsent.insert(1, 10);
        for seq in 1..=6 {
            stream.take(seq, vec![seq], Some(EPOCH), FlightState::Sent(seq));
        }
        stream
    }

    #[test]
    fn the_cursor_passes_the_acknowledged_prefix_only() {
        let mut stream = sent();
        for (token, lowest) in [(2, 1), (3, 1), (1, 4), (5, 4), (4, 6), (6, 7)] {
            stream.settle(token, FlightState::Done);
            assert_eq!(stream.lowest(false), Some(lowest), "after {token}");
        }
    }

    #[test]
    fn going_back_sends_again_in_order_what_is_not_settled() {
        let mut stream = sent();
        stream.settle(5, FlightState::Done);
        assert_eq!(stream.go_back(3), vec![3, 4, 6]);
        assert_eq!(stream.unsent, RangeSet::of(&[range(3, 4), range(6, 10)]));
        assert_eq!(stream.lowest(false), Some(1));
        assert_eq!(stream.in_flight(), 2);
    }

    #[test]
    fn a_receipt_settles_what_was_sent_up_to_it() {
        let mut stream = sent();
        stream.settle(1, FlightState::Acked { at_ms: 5 });
        assert_eq!(stream.receipt(3, Epoch(8)), (0, vec![]), "another journal's number");
        assert_eq!(stream.receipt(9, EPOCH), (0, vec![]), "never sent");
        assert_eq!(stream.receipt(3, EPOCH), (3, vec![2, 3]));
        assert_eq!(stream.lowest(false), Some(4));
    }

    #[test]
    fn a_receipt_inside_a_batch_settles_what_was_before_it() {
        let mut stream = Stream::default();
        stream.unsent.insert(1, 10);
        stream.take(3, vec![1, 3], Some(EPOCH), FlightState::Sent(1));
        stream.take(8, vec![4, 6, 7], Some(EPOCH), FlightState::Sent(2));
        assert_eq!(stream.receipt(6, EPOCH), (2, vec![1]));
        assert_eq!(stream.lowest(false), Some(4));
        assert_eq!(stream.receipt(7, EPOCH), (3, vec![2]));
        assert_eq!(stream.lowest(false), Some(9));
    }

    #[test]
    fn a_backlog_receipt_means_the_order_of_sending() {
        let mut stream = Stream::default();
        stream.unsent.insert(20, 21);
        stream.take(21, vec![20, 21], Some(EPOCH), FlightState::Acked { at_ms: 0 });
        stream.unsent.insert(3, 4);
        stream.take(4, vec![3, 4], Some(EPOCH), FlightState::Acked { at_ms: 0 });
        assert_eq!(stream.receipt(21, EPOCH).0, 2, "the later, lower range is not stored by that");
        assert_eq!(stream.lowest(false), Some(3));
    }

    #[test]
    fn a_gap_being_written_holds_the_cursor_until_it_is_on_disk() {
        let mut stream = Stream::default();
        stream.unsent.insert(1, 3);
        stream.take(1, vec![1], Some(EPOCH), FlightState::Settling);
        stream.take(2, vec![], None, FlightState::Done);
        assert_eq!((stream.lowest(false), stream.lowest(true)), (Some(1), Some(3)));
        stream.ground();
        assert_eq!(stream.lowest(false), Some(1));
        stream.covered(1);
        assert_eq!(stream.lowest(false), Some(3));
    }

    fn range(from: Seq, to: Seq) -> crate::model::cursor::SeqRange {
        crate::model::cursor::SeqRange { from, to }
    }
}
