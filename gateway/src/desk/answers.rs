//! Answers to orders, and what a device's report means as one.

use serde_json::Value;

use crate::model::action::{Deed, Progress, Report};
use crate::model::command::{Done, End};

pub(super) fn answer(end: End, code: &str, detail: impl Into<String>) -> Done {
    Done { end, code: code.to_owned(), detail: detail.into(), data: None }
}

pub(super) fn done(code: &str, detail: impl Into<String>) -> Done {
    answer(End::Done, code, detail)
}

pub(super) fn failed(code: &str, detail: impl Into<String>) -> Done {
    answer(End::Failed, code, detail)
}

pub(super) fn rejected(code: &str, detail: impl Into<String>) -> Done {
    answer(End::Rejected, code, detail)
}

impl Done {
    /// The same with data beside it.
    pub(super) fn with(self, data: Value) -> Self {
        Self { data: Some(data), ..self }
    }
}

/// The outcome as it stands on the wire and in the trail.
pub(super) const fn word(end: End) -> &'static str {
    match end {
        End::Done => "done",
        End::Failed => "failed",
        End::Rejected => "rejected",
        End::Expired => "expired",
        End::Unknown => "unknown",
    }
}

/// What is known to have happened. That a relay was pulsed does not say that a door opened.
const fn success(deed: &Deed, confirmed: bool) -> &'static str {
    match (deed, confirmed) {
        (Deed::Speak { .. }, false) => "text_accepted",
        (Deed::Speak { .. }, true) => "played",
        (Deed::Hush, false) => "stop_accepted",
        (Deed::Hush, true) => "stopped",
        (Deed::Unlock { .. }, false) => "relay_pulsed",
        (Deed::Unlock { .. }, true) => "contact_opened",
        (Deed::Lock, false) => "release_ended",
        (Deed::Lock, true) => "contact_closed",
        (Deed::Relay { .. } | Deed::Set { .. }, false) => "written",
        (Deed::Relay { .. } | Deed::Set { .. }, true) => "read_back",
        (Deed::Publish { .. }, _) => "published",
    }
}

/// The answer that a device's last report makes.
pub(super) fn of_report(deed: &Deed, report: &Report) -> Done {
    let detail = report.detail.as_str();
    match report.progress {
        Progress::Accepted => done(success(deed, false), detail),
        Progress::Confirmed => done(success(deed, true), detail),
        // It did what was asked, and did not end: the door stands open.
        Progress::Failed if report.leaves_on() => failed("left_open", detail),
        Progress::Failed => failed("device_failed", detail),
        Progress::Preempted => failed("preempted", detail),
        Progress::Expired => answer(End::Expired, "not_in_time", detail),
        // An attempt that is not the last one is no answer.
        Progress::Unknown | Progress::Retrying => answer(End::Unknown, "unknown", detail),
    }
}
