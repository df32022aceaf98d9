//! Waiting for something with a deadline.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Runs `look` until it gives something, and panics after `within` with `what` was awaited.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// The same for conditions that must ask a peer: `Err` carries what was seen instead, and is shown at the end.
pub async fn eventually_ok<T, E: Debug>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < end, "not within {within:?}: {what}; last seen: {seen:?}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Holds that nothing happens for a while: panics as soon as `look` gives something.
pub async fn never<T: Debug>(what: &str, during: Duration, mut look: impl FnMut() -> Option<T>) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        if let Some(found) = look() {
            panic!("{what}: {found:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}
