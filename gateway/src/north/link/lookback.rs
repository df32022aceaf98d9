//! Looking back for the last record that an uplink may see, where a filter hides nearly all of them: in bounded pieces,
//! and never twice over the same records. Without it a filter that shows one building would read days of telemetry at
//! each connection, while nothing is acknowledged and the line is taken for dead.

use crate::model::ids::Seq;

/// Records looked at in one call; one that needs more goes on where it stood.
pub(super) const RECORDS_AT_ONCE: u64 = 8_192;
/// Stretches remembered: the live stream's, and those of a few backlog ranges.
const STRETCHES_MAX: usize = 8;

/// Numbers that were looked at: none of `bottom..top` may be seen, but for `found`, which is then `bottom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    top: Seq,
    bottom: Seq,
    found: Option<Seq>,
}

/// What is known of one class.
#[derive(Debug, Default)]
pub(super) struct Lookback {
    /// The newest last.
    stretches: Vec<Stretch>,
}

/// What a call came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    Found(Seq),
    Nothing,
    /// The bound was reached: to be called again.
    NotYet,
}

impl Lookback {
    /// The highest number in `floor..below` that may be seen. `look(from, to)` says the highest one in `from..=to`, and
    /// from where on it knows: below `from` where nothing is stored in between.
    pub(super) fn look<E>(
        &mut self,
        below: Seq,
        floor: Seq,
        page: u64,
        mut look: impl FnMut(Seq, Seq) -> Result<(Option<Seq>, Seq), E>,
    ) -> Result<Looked, E> {
        let mut here = Stretch { top: below, bottom: below, found: None };
        let mut left = RECORDS_AT_ONCE;
        let looked = loop {
            if let Some(found) = here.found {
                break if found >= floor { Looked::Found(found) } else { Looked::Nothing };
            }
            if here.bottom <= floor {
                break Looked::Nothing;
            }
            if let Some(known) = self.join(here.bottom) {
                here = Stretch { top: here.top, ..known };
                continue;
            }
            if left == 0 {
                break Looked::NotYet;
            }
            let from = here.bottom.saturating_sub(page.min(left)).max(floor);
            let (found, known_from) = look(from, here.bottom - 1)?;
            left = left.saturating_sub(here.bottom - from);
            here.found = found;
            here.bottom = found.unwrap_or(known_from.min(from).max(floor));
        };
        self.keep(here);
        Ok(looked)
    }

    /// A stretch that goes on below `bottom`.
    fn join(&self, bottom: Seq) -> Option<Stretch> {
        let goes_on = |known: &&Stretch| known.bottom < bottom && bottom <= known.top;
        self.stretches.iter().find(goes_on).copied()
    }

    fn keep(&mut self, here: Stretch) {
        self.stretches.retain(|known| known.bottom < here.bottom || known.top > here.top);
        if here.bottom == here.top {
            return;
        }
        if self.stretches.len() >= STRETCHES_MAX {
            self.stretches.remove(0);
        }
        self.stretches.push(here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(lookback: &mut Lookback, below: Seq, floor: Seq, seen: &[Seq], read: &mut u64) -> Looked {
        let highest = |from: Seq, to: Seq| {
            *read += to - from + 1;
            Ok::<_, ()>((seen.iter().copied().filter(|seq| (from..=to).contains(seq)).max(), from))
        };
        lookback.look(below, floor, 64, highest).unwrap()
    }

    #[test]
    fn a_long_way_back_is_gone_in_pieces_and_only_once() {
        let (mut lookback, mut read) = (Lookback::default(), 0);
        let (below, seen) = (100_000, [7]);
        let mut calls = 0;
        while look(&mut lookback, below, 1, &seen, &mut read) == Looked::NotYet {
            calls += 1;
            assert!(read <= calls * RECORDS_AT_ONCE, "{read} records in {calls} calls");
        }
        assert!(calls > 10);
        read = 0;
        assert_eq!(look(&mut lookback, below, 1, &seen, &mut read), Looked::Found(7));
        assert_eq!(look(&mut lookback, below + 10, 1, &seen, &mut read), Looked::Found(7));
        assert!(read <= 64, "{read} records read again");
        assert_eq!(look(&mut lookback, below + 10, 8, &seen, &mut read), Looked::Nothing, "another epoch");
    }

    #[test]
    fn what_is_not_stored_is_passed_at_once() {
        let (mut lookback, mut calls) = (Lookback::default(), 0);
        // Thinned: a record in a million, and the one looked for is not the first.
        let stored = [1_000_000, 2_000_000, 3_000_000];
        let highest = |from: Seq, to: Seq| {
            calls += 1;
            let found = (from..=to).contains(&1_000_000).then_some(1_000_000);
            let here = stored.iter().any(|seq| (from..=to).contains(seq));
            let next = stored.iter().copied().filter(|seq| *seq < from).max().map_or(0, |seq| seq + 1);
            Ok::<_, ()>((found, if here { from } else { next }))
        };
        assert_eq!(lookback.look(3_500_000, 1, 64, highest), Ok(Looked::Found(1_000_000)));
        assert!(calls < 10, "{calls} calls");
    }

    #[test]
    fn any_question_gets_the_plain_answer() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut lookback = Lookback::default();
            let mut seen: Vec<Seq> = (1..3_000).filter(|_| rng.u32(0..400) == 0).collect();
            let mut end = 3_000;
            for _ in 0..30 {
                let (below, floor) = (rng.u64(1..=end), rng.u64(1..200));
                let expected = seen.iter().copied().filter(|seq| (floor..below).contains(seq)).max();
                let looked = look(&mut lookback, below, floor, &seen, &mut 0);
                let plain = expected.map_or(Looked::Nothing, Looked::Found);
                assert_eq!(looked, plain, "seed {seed}, {floor}..{below}");
                // New records come at the end.
                end += 50;
                if rng.bool() {
                    seen.push(end - 1);
                }
            }
        }
    }
}
