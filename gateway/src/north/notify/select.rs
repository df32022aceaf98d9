//! Which changes of which alarms are told.

use super::config::{Tell, WebhookConfig};
use crate::model::alarm::{Alarm, ChangeKind};
use crate::model::record::{Record, Severity};

impl Tell {
    const fn of(change: ChangeKind) -> Option<Self> {
        match change {
            ChangeKind::Raised => Some(Self::Raised),
            ChangeKind::RaisedAgain | ChangeKind::Flapping => Some(Self::RaisedAgain),
            ChangeKind::Escalated => Some(Self::Escalated),
            ChangeKind::Acknowledged => Some(Self::Acknowledged),
            ChangeKind::Assigned | ChangeKind::Handled => Some(Self::Handled),
            ChangeKind::Returned | ChangeKind::Calmed => Some(Self::Returned),
            ChangeKind::Closed => Some(Self::Closed),
            ChangeKind::Shelved
            | ChangeKind::Unshelved
            | ChangeKind::OutOfService
            | ChangeKind::InService
            | ChangeKind::Folded => None,
        }
    }
}

/// Whether people are to hear of this record.
pub(super) fn wanted(config: &WebhookConfig, record: &Record, alarm: &Alarm) -> bool {
    let change = match &alarm.change {
        Some(change) => Tell::of(change.what),
        // Raised by nobody's rule, and nothing changed it since.
        None => (alarm.rev == 1 && alarm.is_open()).then_some(Tell::Raised),
    };
    let grave = alarm.severity().unwrap_or(Severity::Warning) >= config.severity;
    let category = config.categories.as_ref().is_none_or(|wanted| wanted.contains(&alarm.raised.category));
    let building = config.buildings.as_ref().is_none_or(|wanted| {
        alarm.raised.place.building.as_ref().is_some_and(|building| wanted.contains(building))
    });
    (config.tests || !record.test)
        && grave
        && category
        && building
        && change.is_some_and(|change| config.tell.contains(&change))
}
