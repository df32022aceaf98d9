//! Names and numbers that identify things: each its own type, so that they cannot be swapped.
//!
//! A name is what a person writes in the configuration: 1 to 64 bytes of `a-z 0-9 _ -`, starting with a letter or
//! a digit. It stands in topics and file names without quoting.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::NAME_BYTES_MAX;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is 1 to {NAME_BYTES_MAX} bytes long, this has {0}")]
    Length(usize),
    #[error("a name is made of a-z, 0-9, '_' and '-' and starts with a letter or a digit; found {0:?}")]
    Character(char),
}

fn validate(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NameError::Length(text.len()));
    }
    for (index, character) in text.chars().enumerate() {
        let plain = character.is_ascii_lowercase() || character.is_ascii_digit();
        if !plain && (index == 0 || !matches!(character, '_' | '-')) {
            return Err(NameError::Character(character));
        }
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            pub fn new(text: &str) -> Result<Self, NameError> {
                validate(text)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$" })
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{:?}", self.as_str())
            }
        }
    };
}

name! {
    /// The gateway's own name: one per box, the third level of every topic.
    GatewayName
}
name! {
    /// A device: `[devices.ID]`.
    DeviceId
}
name! {
    /// One value or input of a device, as its profile names it.
    PointName
}
name! {
    /// A bus or listener: `[buses.NAME.KIND]`.
    BusName
}
name! {
    /// An account at the embedded broker: `[clients.NAME]`.
    ClientName
}
name! {
    /// A platform: `[uplinks.NAME.mqtt]`.
    UplinkName
}
name! {
    /// A rule: `[[rule]]` in config/rules/.
    RuleName
}
name! {
    /// A household that is cared for: `[care.NAME]`.
    CareName
}
name! {
    /// Whom people are told by: `[notifiers.NAME.webhook]`.
    NotifierName
}
name! {
    /// A device profile: a file in config/profiles/.
    ProfileName
}

/// The kernel's boot id: 32 lower-case hexadecimal digits, new at each boot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub Arc<str>);

impl fmt::Display for BootId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A random number made with each journal file, 16 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// Why a text is not an epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 16 lower-case hexadecimal digits")]
pub struct EpochError;

impl TryFrom<String> for Epoch {
    type Error = EpochError;

    fn try_from(text: String) -> Result<Self, EpochError> {
        let plain =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !plain {
            return Err(EpochError);
        }
        u64::from_str_radix(&text, 16).map(Self).map_err(|_not_hex| EpochError)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.to_string()
    }
}

/// The number of a record within its class: 1, 2, 3 … without gaps. 0 means "none yet".
pub type Seq = u64;

/// The place of a record in the one total order of all records of a journal, from 1.
pub type Pos = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "0", "btn-12_3", &"x".repeat(64)] {
            assert_eq!(DeviceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "_a", "A", "a/b", "a b", "a+", "按钮", &"x".repeat(65)] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?} was taken as a name");
        }
    }

    #[test]
    fn an_epoch_reads_back_as_written() {
        let epoch = Epoch(0x00ab_cdef);
        assert_eq!(Epoch::try_from(epoch.to_string()), Ok(epoch));
        assert_eq!(Epoch::try_from("00ABCDEF00000000".to_owned()), Err(EpochError));
        assert_eq!(Epoch::try_from("+123456789abcdef".to_owned()), Err(EpochError));
    }
}
