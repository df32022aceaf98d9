//! `[[rule.do]]`: what a rule asks devices to do, as it stands in the rule's file.

use schemars::JsonSchema;
use serde::Deserialize;

/// One entry of `[[rule.do]]`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {}
