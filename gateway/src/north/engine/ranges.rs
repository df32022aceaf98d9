//! Sets of sequence numbers as sorted, disjoint ranges. Pure data.

use crate::model::cursor::SeqRange;
use crate::model::ids::Seq;

/// Sequence numbers, kept as ranges that neither overlap nor touch, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    ranges: Vec<SeqRange>,
}

impl RangeSet {
    /// Empty ranges (`from > to`) and the number 0, which is no record, are left out.
    pub(super) fn of(ranges: &[SeqRange]) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range.from, range.to);
        }
        set
    }

    pub(super) fn insert(&mut self, from: Seq, to: Seq) {
        let mut from = from.max(1);
        let mut to = to;
        if from > to {
            return;
        }
        // Ranges that overlap or touch the new one melt into it.
        let start = self.ranges.partition_point(|range| range.to.saturating_add(1) < from);
        let end = self.ranges.partition_point(|range| range.from <= to.saturating_add(1));
        if let Some(touched) = self.ranges.get(start..end)
            && let (Some(first), Some(last)) = (touched.first(), touched.last())
        {
            from = from.min(first.from);
            to = to.max(last.to);
        }
        self.ranges.splice(start..end.max(start), [SeqRange { from, to }]);
    }

    pub(super) fn remove(&mut self, from: Seq, to: Seq) {
        if from > to {
            return;
        }
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for range in &self.ranges {
            if range.to < from || range.from > to {
                left.push(*range);
                continue;
            }
            if range.from < from {
                left.push(SeqRange { from: range.from, to: from - 1 });
            }
            if range.to > to {
                left.push(SeqRange { from: to + 1, to: range.to });
            }
        }
        self.ranges = left;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for range in &other.ranges {
            self.insert(range.from, range.to);
        }
    }

    /// Only what lies within `from..=to` stays.
    pub(super) fn clamp(&mut self, from: Seq, to: Seq) {
        self.ranges.retain(|range| range.to >= from && range.from <= to);
        for range in &mut self.ranges {
            range.from = range.from.max(from);
            range.to = range.to.min(to);
        }
    }

    /// At most `max` ranges: the neighbours with the fewest numbers between them are merged first.
    pub(super) fn bound(&mut self, max: usize) {
        while self.ranges.len() > max.max(1) {
            let gap = |pair: &[SeqRange]| match pair {
                [a, b] => b.from - a.to,
                _ => Seq::MAX,
            };
            let narrowest =
                self.ranges.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair)).map(|(index, _)| index);
            let Some(index) = narrowest else { return };
            let next = self.ranges.remove(index + 1);
            if let Some(range) = self.ranges.get_mut(index) {
                range.to = next.to;
            }
        }
    }

    pub(super) fn first(&self) -> Option<SeqRange> {
        self.ranges.first().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in the set.
    pub(super) fn count(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.to - range.from + 1))
    }

    pub(super) fn as_slice(&self) -> &[SeqRange] {
        &self.ranges
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn set(ranges: &[(Seq, Seq)]) -> RangeSet {
        RangeSet { ranges: ranges.iter().map(|&(from, to)| SeqRange { from, to }).collect() }
    }

    #[test]
    fn inserting_melts_what_touches() {
        type Pairs = &'static [(Seq, Seq)];
        let table: &[(Pairs, (Seq, Seq), Pairs)] = &[
            (&[], (5, 7), &[(5, 7)]),
            (&[], (7, 5), &[]),
            (&[], (0, 2), &[(1, 2)]),
            (&[(5, 7)], (8, 9), &[(5, 9)]),
            (&[(5, 7)], (1, 4), &[(1, 7)]),
            (&[(5, 7)], (1, 3), &[(1, 3), (5, 7)]),
            (&[(5, 7), (11, 12)], (6, 20), &[(5, 20)]),
            (&[(5, 7), (11, 12)], (8, 10), &[(5, 12)]),
            (&[(5, 9)], (6, 7), &[(5, 9)]),
        ];
        for (before, (from, to), after) in table {
            let mut ranges = set(before);
            ranges.insert(*from, *to);
            assert_eq!(ranges, set(after), "{before:?} with {from}..={to}");
        }
    }

    #[test]
    fn any_sequence_of_changes_equals_the_plain_set() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut ranges, mut plain) = (RangeSet::default(), BTreeSet::new());
            for _ in 0..40 {
                let from = rng.u64(1..60);
                let to = from + rng.u64(0..8);
                if rng.u8(0..3) > 0 {
                    ranges.insert(from, to);
                    plain.extend(from..=to);
                } else {
                    ranges.remove(from, to);
                    plain.retain(|number| !(from..=to).contains(number));
                }
                let listed: Vec<Seq> = ranges.as_slice().iter().flat_map(|r| r.from..=r.to).collect();
                assert_eq!(listed, plain.iter().copied().collect::<Vec<_>>(), "seed {seed}");
                let apart = ranges.as_slice().windows(2).all(|pair| pair[0].to + 1 < pair[1].from);
                assert!(apart, "ranges touch, seed {seed}: {ranges:?}");
            }
        }
    }

    #[test]
    fn the_bound_merges_the_nearest_and_loses_nothing() {
        let mut ranges = set(&[(1, 2), (10, 11), (13, 14), (30, 31)]);
        ranges.bound(3);
        assert_eq!(ranges, set(&[(1, 2), (10, 14), (30, 31)]));
        ranges.bound(1);
        assert_eq!(ranges, set(&[(1, 31)]));
        ranges.clamp(5, 20);
        assert_eq!(ranges, set(&[(5, 20)]));
    }
}
