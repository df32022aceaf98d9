//! What is wrong with a configuration, and what it claims for itself alone. Drivers report in these terms; `config`
//! turns a path into file, line and column.

use std::fmt;

/// A mistake, or something a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Keys from the root: `["buses", "lan", "broker", "listen"]`.
    pub path: Vec<String>,
    pub weight: Weight,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What to write instead, if known.
    pub hint: Option<String>,
}

/// Whether a problem stops the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    Error,
    Warning,
}

impl Problem {
    pub fn error(path: &[&str], message: impl Into<String>) -> Self {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        Self { path, weight: Weight::Error, message: message.into(), hint: None }
    }

    pub fn warning(path: &[&str], message: impl Into<String>) -> Self {
        Self { weight: Weight::Warning, ..Self::error(path, message) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Something that only one part may hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A TCP port on an address.
    Tcp(std::net::SocketAddr),
    /// A serial line, by its path.
    Line(String),
    /// A server of ours alone, as `host:port`: two masters behind one Modbus server would wait for each other.
    Server(String),
    /// An MQTT client id at one broker.
    ClientId(String),
    /// What one gateway says at one broker: `{root}/v1/{gateway}/…`.
    Topics { broker: String, root: String },
    /// A device's address behind one client or on one bus.
    Address { on: String, address: String },
}

impl Resource {
    /// Whether both cannot be held at once; a wildcard address overlaps every address of its port.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let any = a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() == b.port() && a.port() != 0 && (any || a.ip() == b.ip())
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "TCP {address}"),
            Self::Line(path) => write!(out, "serial line {path}"),
            Self::Server(address) => write!(out, "Modbus server {address}"),
            Self::ClientId(id) => write!(out, "MQTT client id {id:?}"),
            Self::Topics { broker, root } => write!(out, "topic tree {root:?} at {broker}"),
            Self::Address { on, address } => write!(out, "address {address:?} on {on}"),
        }
    }
}

/// A resource and the place in the configuration that claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub path: Vec<String>,
    pub resource: Resource,
}
