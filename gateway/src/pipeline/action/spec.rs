//! `[[rule.do]]`: what a rule asks devices to do, as it stands in the rule's file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One entry of `[[rule.do]]`. Also stored in rows, where an alarm that has to wait keeps what it will ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {}
