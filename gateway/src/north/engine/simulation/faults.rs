//! How often what breaks, drawn anew for each seed.

#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    /// Out of 1000 messages each.
    pub(super) swallowed: u32,
    pub(super) nobody: u32,
    pub(super) busy: u32,
    pub(super) refused: u32,
    /// Out of 1000 commits.
    pub(super) broken_commits: u32,
    /// Out of 1000 turns each.
    pub(super) cut: u32,
    pub(super) silent_cut: u32,
    pub(super) crash: u32,
    pub(super) unreadable: u32,
    pub(super) broken_reads: u32,
    pub(super) forget: u32,
    pub(super) fork: u32,
    pub(super) replay: u32,
    pub(super) platform_crash: u32,
    pub(super) delay_ms_max: u64,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self {
            swallowed: 0,
            nobody: 0,
            busy: 0,
            refused: 0,
            broken_commits: 0,
            cut: 0,
            silent_cut: 0,
            crash: 0,
            unreadable: 0,
            broken_reads: 0,
            forget: 0,
            fork: 0,
            replay: 0,
            platform_crash: 0,
            delay_ms_max: 20,
        }
    }

    pub(super) fn drawn(rng: &mut fastrand::Rng, receipt: bool) -> Self {
        let mut some = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
        let mut faults = Self {
            swallowed: some(20),
            nobody: some(60),
            busy: some(60),
            refused: some(40),
            broken_commits: some(100),
            cut: some(15),
            silent_cut: some(5),
            crash: some(8),
            unreadable: some(8),
            broken_reads: some(20),
            forget: some(20),
            fork: some(3),
            replay: some(10),
            platform_crash: some(10),
            delay_ms_max: 5,
        };
        faults.delay_ms_max = if rng.bool() { 30 } else { 900 };
        if receipt {
            // A platform that takes nothing behind a hole cannot pass over what is refused or lost for good.
            faults = Self { refused: 0, unreadable: 0, forget: 0, fork: 0, replay: 0, ..faults };
        } else {
            faults.platform_crash = 0;
        }
        faults
    }
}
