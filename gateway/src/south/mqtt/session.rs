//! The session that a broker keeps for us, from our end. Our own part of it is always empty, since we publish nothing
//! ([`OurPart`]). Whether the broker should still have its part ([`Known`]) is known from this process's earlier connections, and over restarts
//! from a small file, written when a session begins and not again. Without the file a session that was lost while the
//! gateway was away would go unnoticed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use rumqttc::{PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey};

/// Largest file that is read: an address and a client id.
const FILE_BYTES_MAX: usize = 1_024;

/// The session of one bus.
#[derive(Debug)]
pub(super) struct Known {
    file: PathBuf,
    /// Broker and client id: with another of them it is another session.
    identity: String,
}

impl Known {
    pub(super) fn new(file: PathBuf, authority: &str, client_id: &str) -> Self {
        Self { file, identity: format!("{authority} {client_id}\n") }
    }

    /// Whether a session with this identity was begun before. What cannot be read was not.
    pub(super) fn begun(&self) -> bool {
        let text = std::fs::read(&self.file).unwrap_or_default();
        text.len() <= FILE_BYTES_MAX && text == self.identity.as_bytes()
    }

    /// Notes that a session has begun. Does nothing if that is known.
    ///
    /// # Errors
    /// The file cannot be written: a session lost over the next restart will go unnoticed.
    pub(super) fn note(&self) -> std::io::Result<()> {
        if self.begun() {
            return Ok(());
        }
        let folder = self.file.parent().unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder)?;
        // Never half a file: the old one stands until the new one is on disk.
        let fresh = self.file.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(self.identity.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.file)
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

/// What the MQTT library must know to go on with a session: what we had sent and was not answered. There is nothing of
/// that kind. Without this the library takes a session that only the broker knows for a mistake, or lets us send no
/// SUBSCRIBE in it.
#[derive(Debug)]
pub(super) struct OurPart;

impl SessionStore for OurPart {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Answer<'a, Option<PersistedSession>> {
        let empty = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: None,
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(Some(empty))))
    }

    fn save<'a>(&'a self, _key: &'a SessionStoreKey, _session: &'a PersistedSession) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _key: &'a SessionStoreKey) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_broker_and_client_id() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sessions/lan");
        let known = Known::new(file.clone(), "h:1883", "gatehouse-g-lan");
        assert!(!known.begun());
        known.note().unwrap();
        known.note().unwrap();
        assert!(known.begun());
        assert!(!Known::new(file.clone(), "h:1884", "gatehouse-g-lan").begun());
        assert!(!Known::new(file.clone(), "h:1883", "other").begun());
        std::fs::write(&file, vec![b'x'; FILE_BYTES_MAX + 1]).unwrap();
        assert!(!known.begun());
        known.note().unwrap();
        assert!(known.begun());
    }
}
