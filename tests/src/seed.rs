//! Seeds: printed, so that a failure can be replayed with `GATEHOUSE_SEED=… cargo test …`.

/// The seed of this run.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("GATEHOUSE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: GATEHOUSE_SEED={seed}");
    seed
}

/// A generator seeded by [`seed`].
pub fn rng(test: &str) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed(test))
}
