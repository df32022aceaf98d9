//! The plan: which reads bring all points of one unit, merged where they lie close, within the protocol's limits. Pure.
//!
//! Merging is worth it because a request costs 8 bytes, an answer 5, and two silences; bridging a gap of a few registers
//! costs less. A device may refuse a bridged gap (exception 2): then the block is split, and stays so.

use super::frame::{Request, Table};
use crate::south::profile::modbus::{READ_BITS_MAX, READ_REGISTERS_MAX};

/// Registers that nobody wants and that are read all the same to save a request: 16 bytes, about what a request and its
/// silences cost.
pub(super) const GAP_REGISTERS_MAX: u16 = 8;

/// The same for bits: 16 bytes.
pub(super) const GAP_BITS_MAX: u16 = 128;

/// One point's place in the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Want {
    pub(super) table: Table,
    pub(super) at: u16,
    /// Registers or bits, 1 to 4: never divided between two reads.
    pub(super) count: u16,
    /// Whose it is: (device, point), as their lists count them.
    pub(super) device: usize,
    pub(super) point: usize,
}

impl Want {
    const fn end(&self) -> u32 {
        self.at as u32 + self.count as u32
    }
}

/// Largest reads of the unit's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) registers: u16,
    pub(super) bits: u16,
}

impl Limits {
    /// What the protocol allows.
    pub(super) const PROTOCOL: Self = Self { registers: READ_REGISTERS_MAX, bits: READ_BITS_MAX };

    /// The smaller of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { registers: self.registers.min(other.registers), bits: self.bits.min(other.bits) }
    }

    fn of(self, table: Table) -> u32 {
        u32::from(if table.bits() { self.bits } else { self.registers })
    }
}

/// One read and the points that it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) table: Table,
    pub(super) at: u16,
    pub(super) count: u16,
    /// By address.
    pub(super) wants: Vec<Want>,
}

impl Block {
    pub(super) fn request(&self) -> Request {
        Request::Read { table: self.table, at: self.at, count: self.count }
    }

    fn of(wants: Vec<Want>) -> Option<Self> {
        let first = wants.first()?;
        let end = wants.iter().map(Want::end).max()?;
        let count = u16::try_from(end.saturating_sub(u32::from(first.at))).ok()?;
        Some(Self { table: first.table, at: first.at, count, wants })
    }

    /// The block in two, where it hurts least: at its widest gap, else in the middle. None if it cannot be divided.
    pub(super) fn split(&self) -> Option<(Self, Self)> {
        let mut end = 0;
        let mut cuts = Vec::new();
        for (index, want) in self.wants.iter().enumerate() {
            if index > 0 && u32::from(want.at) >= end {
                cuts.push((u32::from(want.at) - end, index));
            }
            end = end.max(want.end());
        }
        let middle = self.wants.len() / 2;
        let (_, cut) =
            cuts.into_iter().max_by_key(|(gap, index)| (*gap, std::cmp::Reverse(index.abs_diff(middle))))?;
        let (head, tail) = self.wants.split_at(cut);
        Some((Self::of(head.to_vec())?, Self::of(tail.to_vec())?))
    }
}

/// Merges what one unit is asked at one interval.
pub(super) fn plan(mut wants: Vec<Want>, limits: Limits) -> Vec<Block> {
    wants.sort_unstable();
    let mut blocks = Vec::new();
    let mut open: Vec<Want> = Vec::new();
    let mut end = 0_u32;
    for want in wants {
        let fits = open.first().is_some_and(|first| {
            let gap = u32::from(if want.table.bits() { GAP_BITS_MAX } else { GAP_REGISTERS_MAX });
            want.table == first.table
                && u32::from(want.at) <= end + gap
                && want.end().max(end) - u32::from(first.at) <= limits.of(want.table)
        });
        if !fits {
            blocks.extend(Block::of(std::mem::take(&mut open)));
            end = 0;
        }
        end = end.max(want.end());
        open.push(want);
    }
    blocks.extend(Block::of(open));
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn want(table: Table, at: u16, count: u16) -> Want {
        Want { table, at, count, device: 0, point: usize::from(at) }
    }

    fn spans(blocks: &[Block]) -> Vec<(u16, u16)> {
        blocks.iter().map(|block| (block.at, block.count)).collect()
    }

    #[test]
    fn sixteen_inputs_of_sixteen_devices_are_one_read() {
        let wants =
            (0..16).map(|at| Want { device: usize::from(at), ..want(Table::Discrete, at, 1) }).collect();
        let blocks = plan(wants, Limits::PROTOCOL);
        assert_eq!(spans(&blocks), [(0, 16)]);
        assert_eq!(blocks[0].wants.len(), 16);
    }

    #[test]
    fn gaps_are_bridged_up_to_their_limit_and_tables_kept_apart() {
        let wants = vec![
            want(Table::Holding, 0, 2),
            want(Table::Holding, 10, 1),
            want(Table::Holding, 20, 1),
            want(Table::Input, 0, 1),
        ];
        assert_eq!(spans(&plan(wants, Limits::PROTOCOL)), [(0, 1), (0, 11), (20, 1)]);
    }

    #[test]
    fn a_poor_device_gets_small_reads() {
        let wants: Vec<Want> = (0..8).map(|n| want(Table::Input, n * 2, 2)).collect();
        let limits = Limits::PROTOCOL.and(Limits { registers: 5, bits: 9 });
        assert_eq!(spans(&plan(wants, limits)), [(0, 4), (4, 4), (8, 4), (12, 4)]);
    }

    #[test]
    fn a_split_goes_through_the_widest_gap_and_never_through_a_value() {
        let wants = vec![want(Table::Input, 0, 1), want(Table::Input, 1, 1), want(Table::Input, 5, 2)];
        let blocks = plan(wants, Limits::PROTOCOL);
        assert_eq!(spans(&blocks), [(0, 7)]);
        let (head, tail) = blocks[0].split().unwrap();
        assert_eq!(spans(&[head.clone(), tail.clone()]), [(0, 2), (5, 2)]);
        assert_eq!(tail.split(), None);
        let (a, b) = head.split().unwrap();
        assert_eq!(spans(&[a, b]), [(0, 1), (1, 1)]);
        // Two bits of one register cannot be parted.
        let shared = plan(vec![want(Table::Input, 3, 1), want(Table::Input, 3, 1)], Limits::PROTOCOL);
        assert_eq!(shared[0].split(), None);
    }

    fn table() -> impl Strategy<Value = Table> {
        prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Input), Just(Table::Holding)]
    }

    proptest! {
        /// Every point is brought by exactly one read, whole, and no read passes a limit; also after splits.
        #[test]
        fn every_point_is_covered_and_no_limit_passed(
            raw in prop::collection::vec((table(), 0_u16..3_000, 1_u16..5), 0..80),
            registers in 4_u16..=125,
            bits in 4_u16..=2_000,
            splits in 0_usize..40,
        ) {
            let wants: Vec<Want> = raw
                .into_iter()
                .enumerate()
                .map(|(point, (table, at, count))| Want { table, at, count, device: 0, point })
                .collect();
            let limits = Limits { registers, bits };
            let mut blocks = plan(wants.clone(), limits);
            for _ in 0..splits {
                let Some(at) = blocks.iter().position(|block| block.split().is_some()) else { break };
                let (head, tail) = blocks.remove(at).split().unwrap();
                blocks.extend([head, tail]);
            }
            let mut seen: Vec<Want> = blocks.iter().flat_map(|block| block.wants.clone()).collect();
            seen.sort_unstable_by_key(|want| want.point);
            prop_assert_eq!(seen, wants);
            for block in &blocks {
                prop_assert!(u32::from(block.count) <= limits.of(block.table));
                let end = u32::from(block.at) + u32::from(block.count);
                for want in &block.wants {
                    prop_assert_eq!(want.table, block.table);
                    prop_assert!(want.at >= block.at && want.end() <= end);
                }
            }
        }
    }
}
