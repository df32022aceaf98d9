//! Connections from the door to rmqtt's inner port, by their port number: whence each really comes, what its
//! certificate says, and how its login went. A connection to the inner port that is not in here is nobody's, and
//! is refused.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::ids::ClientName;
use crate::model::refusal::Refusal;

/// How the login of a visit went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is known yet.
    Knocking,
    /// Logged in as.
    Inside(ClientName),
    /// Turned away.
    Refused(Refusal),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) from: SocketAddr,
    /// Common name of the client certificate; none on the plain port.
    pub(super) certificate: Option<String>,
    pub(super) stage: watch::Sender<Stage>,
    /// Cuts the connection.
    pub(super) leave: CancellationToken,
}

/// All connections of one broker.
#[derive(Debug, Default)]
pub(super) struct Visits {
    by_port: Mutex<HashMap<u16, Arc<Visit>>>,
}

/// Takes the visit off the list when the connection ends, before its port is free for others.
#[derive(Debug)]
pub(super) struct Entry {
    visits: Arc<Visits>,
    port: u16,
    pub(super) visit: Arc<Visit>,
}

impl Visits {
    /// Puts a connection on the list, before it is made.
    pub(super) fn enter(self: &Arc<Self>, port: u16, from: SocketAddr, certificate: Option<String>) -> Entry {
        let visit = Arc::new(Visit {
            from,
            certificate,
            stage: watch::Sender::new(Stage::Knocking),
            leave: CancellationToken::new(),
        });
        self.lock().insert(port, Arc::clone(&visit));
        Entry { visits: Arc::clone(self), port, visit }
    }

    /// The connection from this address of the inner port's peer.
    pub(super) fn find(&self, peer: Option<SocketAddr>) -> Option<Arc<Visit>> {
        let peer = peer.filter(|peer| peer.ip().is_loopback())?;
        self.by_port(peer.port())
    }

    /// The connection from this port.
    pub(super) fn by_port(&self, port: u16) -> Option<Arc<Visit>> {
        self.lock().get(&port).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Arc<Visit>>> {
        self.by_port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.visits.lock().remove(&self.port);
    }
}
