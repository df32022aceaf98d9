//! The last de-duplication keys of each device: a ring of [`DEDUP_KEYS_PER_DEVICE`] hashes, in memory and in the file.
//!
//! A commit works on copies of the rings it touches; they take the place of the old ones when it is on disk.

use std::collections::{HashMap, VecDeque};

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use crate::model::ids::DeviceId;
use crate::model::limits::DEDUP_KEYS_PER_DEVICE;

use super::row::{int, number};

type Key = [u8; 16];

#[derive(Debug, Clone, Default)]
struct Ring {
    /// How many keys the device ever had: the number of the next one.
    next: u64,
    keys: VecDeque<Key>,
}

impl Ring {
    fn push(&mut self, key: Key) {
        if self.keys.len() >= DEDUP_KEYS_PER_DEVICE {
            self.keys.pop_front();
        }
        self.keys.push_back(key);
        self.next = self.next.saturating_add(1);
    }
}

/// The rings as the file holds them.
#[derive(Debug, Default)]
pub(super) struct Rings(HashMap<DeviceId, Ring>);

/// The rings that a commit in progress has changed.
#[derive(Debug, Default)]
pub(super) struct Touched(HashMap<DeviceId, Ring>);

impl Rings {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut rings: HashMap<DeviceId, Ring> = HashMap::new();
        let mut statement = conn.prepare("SELECT device, n, key FROM dedup ORDER BY device, n")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let device: String = row.get(0)?;
            // A name that is none any more stands for a device that cannot speak.
            let Ok(device) = DeviceId::new(&device) else { continue };
            let ring = rings.entry(device).or_default();
            ring.next = number(row.get(1)?);
            ring.push(row.get(2)?);
        }
        Ok(Self(rings))
    }

    /// Whether a record with this key is on disk.
    pub(super) fn knows(&self, device: &DeviceId, key: &str) -> bool {
        self.0.get(device).is_some_and(|ring| ring.keys.contains(&hash(key)))
    }

    pub(super) fn settle(&mut self, touched: Touched) {
        self.0.extend(touched.0);
    }
}

impl Touched {
    /// Whether the key is new; if so it is remembered, in the file too.
    pub(super) fn remember(
        &mut self,
        rings: &Rings,
        conn: &Connection,
        device: &DeviceId,
        key: &str,
    ) -> rusqlite::Result<bool> {
        let key = hash(key);
        let ring =
            self.0.entry(device.clone()).or_insert_with(|| rings.0.get(device).cloned().unwrap_or_default());
        if ring.keys.contains(&key) {
            return Ok(false);
        }
        let slot = ring.next % DEDUP_KEYS_PER_DEVICE as u64;
        conn.prepare_cached("REPLACE INTO dedup (device, slot, n, key) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![device.as_str(), int(slot), int(ring.next), key])?;
        ring.push(key);
        Ok(true)
    }
}

fn hash(key: &str) -> Key {
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let mut short = Key::default();
    short.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&Key::default()));
    short
}
