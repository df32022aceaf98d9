//! Where something is: every event bears it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place in the compound. Codes of upstream systems are configuration; personal names never stand here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Place {
    /// Administrative code (GB/T 2260 and its extensions, 行政区划代码), 6 to 20 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{6,20}$"))]
    pub code: Option<String>,
    /// Grid (网格) of the community's grid management.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub grid: Option<String>,
    /// Building (楼栋).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub building: Option<String>,
    /// Unit, that is staircase (单元).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub unit: Option<String>,
    /// Floor (楼层); negative below ground.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -20, max = 200))]
    pub floor: Option<i16>,
    /// Household (户), as a number or code, never a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub household: Option<String>,
}
