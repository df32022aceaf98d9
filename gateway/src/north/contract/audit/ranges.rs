//! Sets of numbers as disjoint ranges: what was seen, announced, explained.

use std::collections::BTreeMap;

/// A set of numbers, kept as ranges `from..=to` that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `from..=to`; nothing if `from > to`.
    pub fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        let (mut low, mut high) = (from, to);
        // Every range that overlaps or touches begins at or before to + 1; all before `from` but the last end earlier.
        while let Some((&start, &end)) = self.ranges.range(..=high.saturating_add(1)).next_back() {
            if end.saturating_add(1) < low {
                break;
            }
            self.ranges.remove(&start);
            low = low.min(start);
            high = high.max(end);
        }
        self.ranges.insert(low, high);
    }

    pub fn extend(&mut self, other: &Self) {
        for (from, to) in other.iter() {
            self.insert(from, to);
        }
    }

    /// Takes `from..=to` out.
    pub fn remove(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..=to).next_back() {
            if end < from {
                break;
            }
            self.ranges.remove(&start);
            if end > to {
                self.ranges.insert(to.saturating_add(1), end);
            }
            if start < from {
                self.ranges.insert(start, from.saturating_sub(1));
            }
        }
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (from, to) in other.iter() {
            rest.remove(from, to);
        }
        rest
    }

    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| *end >= number)
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add((to - from).saturating_add(1)))
    }

    /// The highest number.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, to)| *to)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(from, to)| (*from, *to))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_their_numbers(
            steps in prop::collection::vec((any::<bool>(), 1_u64..60, 0_u64..12), 0..60),
            other in prop::collection::vec((1_u64..60, 0_u64..12), 0..6),
        ) {
            let (mut ranges, mut model) = (RangeSet::new(), BTreeSet::new());
            for (add, from, length) in steps {
                let to = from + length;
                if add {
                    ranges.insert(from, to);
                    model.extend(from..=to);
                } else {
                    ranges.remove(from, to);
                    model.retain(|number| !(from..=to).contains(number));
                }
                let flat: Vec<u64> = ranges.iter().flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(&flat, &model.iter().copied().collect::<Vec<_>>());
                let pairs: Vec<(u64, u64)> = ranges.iter().collect();
                prop_assert!(pairs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?} touch", pairs);
                prop_assert_eq!(ranges.count(), model.len() as u64);
            }
            let mut others = RangeSet::new();
            for (from, length) in other {
                others.insert(from, from + length);
            }
            for number in 0..80 {
                let expected = model.contains(&number) && !others.contains(number);
                prop_assert_eq!(ranges.without(&others).contains(number), expected);
            }
        }
    }
}
