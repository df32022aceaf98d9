//! The commands that this gateway knows, and what holds for each.

use crate::model::limits::{ACTING_LIFETIME_S_MAX, DOOR_LIFETIME_S_MAX};

/// A command by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// Send a range of records again.
    Replay,
    /// The open alarms.
    Snapshot,
    Acknowledge,
    Assign,
    Handle,
    Close,
    Shelve,
    Unshelve,
    OutOfService,
    InService,
    Speak,
    Hush,
    OpenDoor,
    ResetDoor,
    Relay,
    Set,
    Diagnose,
    PutRules,
}

impl Known {
    pub const ALL: [Self; 18] = [
        Self::Replay,
        Self::Snapshot,
        Self::Acknowledge,
        Self::Assign,
        Self::Handle,
        Self::Close,
        Self::Shelve,
        Self::Unshelve,
        Self::OutOfService,
        Self::InService,
        Self::Speak,
        Self::Hush,
        Self::OpenDoor,
        Self::ResetDoor,
        Self::Relay,
        Self::Set,
        Self::Diagnose,
        Self::PutRules,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Snapshot => "snapshot",
            Self::Acknowledge => "alarm.acknowledge",
            Self::Assign => "alarm.assign",
            Self::Handle => "alarm.handle",
            Self::Close => "alarm.close",
            Self::Shelve => "alarm.shelve",
            Self::Unshelve => "alarm.unshelve",
            Self::OutOfService => "alarm.out_of_service",
            Self::InService => "alarm.in_service",
            Self::Speak => "speak",
            Self::Hush => "speak.stop",
            Self::OpenDoor => "door.open",
            Self::ResetDoor => "door.reset",
            Self::Relay => "relay",
            Self::Set => "set",
            Self::Diagnose => "diagnose",
            Self::PutRules => "rules.put",
        }
    }

    /// The command of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// Whether a pattern of `allow` means it: its name, or the beginning of it and `.*`.
    pub fn is_meant(self, pattern: &str) -> bool {
        match pattern.strip_suffix(".*") {
            Some(group) => self.as_str().strip_prefix(group).is_some_and(|rest| rest.starts_with('.')),
            None => self.as_str() == pattern,
        }
    }

    /// Whether it may be done though nobody can say how old it is. What acts on the world may not: above all no door is
    /// opened by an order from an unknown time.
    pub const fn harmless_when_late(self) -> bool {
        !matches!(
            self,
            Self::Speak | Self::OpenDoor | Self::ResetDoor | Self::Relay | Self::Set | Self::PutRules
        )
    }

    /// Whether it concerns the whole compound, so that who may order a part of it may not give it.
    pub const fn needs_whole(self) -> bool {
        matches!(self, Self::Diagnose | Self::PutRules)
    }

    /// Longest life in seconds, whatever the command says; none: what it says.
    pub const fn lifetime_s_max(self) -> Option<u32> {
        match self {
            Self::OpenDoor | Self::ResetDoor => Some(DOOR_LIFETIME_S_MAX),
            Self::Speak | Self::Hush | Self::Relay | Self::Set | Self::PutRules => {
                Some(ACTING_LIFETIME_S_MAX)
            }
            _ => None,
        }
    }

    /// Whether it waits for a device or reads the past, so that it is answered `accepted` first.
    pub const fn takes_long(self) -> bool {
        matches!(
            self,
            Self::Speak
                | Self::Hush
                | Self::OpenDoor
                | Self::ResetDoor
                | Self::Relay
                | Self::Set
                | Self::Diagnose
                | Self::PutRules
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_patterns_mean_whole_levels() {
        for known in Known::ALL {
            assert_eq!(Known::of(known.as_str()), Some(known));
            assert!(known.is_meant(known.as_str()));
            // What acts is forgotten before its id is.
            assert!(known.harmless_when_late() || known.lifetime_s_max().is_some(), "{known:?}");
        }
        assert_eq!(Known::of("door.open_all"), None);
        assert!(Known::Close.is_meant("alarm.*") && Known::OpenDoor.is_meant("door.*"));
        for (known, pattern) in [
            (Known::Close, "alar.*"),
            (Known::Close, "alarm"),
            (Known::Close, "*"),
            (Known::Close, ".*"),
            (Known::Speak, "speak.*"),
        ] {
            assert!(!known.is_meant(pattern), "{pattern}");
        }
        assert!(Known::Hush.is_meant("speak.*"));
    }
}
