//! Free TCP ports, none given twice: also not to tests that run at the same time in other processes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};

/// Below the range that the kernel takes outgoing connections' ports from (32768 and up).
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Locks of the ports that this process has taken; they end with the process.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free port on loopback, reserved for this process until it ends.
pub fn free() -> SocketAddr {
    let folder = std::env::temp_dir().join("gatehouse-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder for locks can be made");
    for _ in 0..1_000 {
        let port = fastrand::u16(RANGE);
        let Ok(lock) = File::create(folder.join(port.to_string())) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            TAKEN.lock().unwrap().push(lock);
            return address;
        }
    }
    panic!("no free port between {} and {}", RANGE.start, RANGE.end);
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports_differ() {
        let mut ports: Vec<_> = (0..20).map(|_| super::free().port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
