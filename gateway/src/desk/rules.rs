//! Rule files by order: checked, tried on the past, put in place by whoever keeps the rules.

use serde_json::json;

use crate::model::command::{Done, RulesPut};

use super::{Desk, answers};

/// Findings in one answer; the rest is seen after the first are mended.
const FINDINGS_MAX: usize = 20;

impl Desk {
    pub(super) async fn put_rules(&self, name: &str, toml: &str) -> Done {
        match self.parts.rules.put(name, toml).await {
            Ok(RulesPut::Taken { rehearsal, detail }) => answers::done("ok", detail).with(rehearsal),
            Ok(RulesPut::Refused { findings }) => {
                let detail = format!("mistakes: {}; nothing was changed", findings.len());
                let shown: Vec<_> = findings.iter().take(FINDINGS_MAX).collect();
                answers::rejected("rules_wrong", detail).with(json!({ "findings": shown }))
            }
            Err(error) => answers::failed("rules_failed", error),
        }
    }
}
