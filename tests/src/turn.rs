//! Taking turns: tests that measure time run alone, all others beside each other. By a file lock, so that it also
//! holds between test programs and between processes of nextest.

use std::fs::{File, OpenOptions};

use rustix::fs::{FlockOperation, flock};

/// Held until dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

fn take(operation: FlockOperation) -> Turn {
    let path = std::env::temp_dir().join("gatehouse-test-turn");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
    flock(&lock, operation).expect("a lock on a file of the temporary folder");
    Turn { _lock: lock }
}

/// Beside others.
pub fn shared() -> Turn {
    take(FlockOperation::LockShared)
}

/// Alone.
pub fn alone() -> Turn {
    take(FlockOperation::LockExclusive)
}
