//! `[devices.ID]`: a device, where it is, and who speaks for it.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::ids::{ClientName, ProfileName};
use crate::model::place::Place;

/// One device. Only a person adds devices.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// The profile that describes it: a file name in config/profiles/ without its ending.
    pub profile: ProfileName,
    /// The MQTT client that speaks for it: `[clients.NAME]`.
    pub client: ClientName,
    /// What stands for `{address}` in the profile's topics: the Zigbee2MQTT friendly name, for example.
    #[schemars(length(min = 1, max = 128))]
    pub address: String,
    /// Where it is.
    #[serde(default)]
    pub place: Place,
    /// Free words to select devices by.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub tags: Vec<String>,
    /// Under maintenance: what it says goes to `up/test/…` and calls nobody.
    #[serde(default)]
    pub maintenance: bool,
}
