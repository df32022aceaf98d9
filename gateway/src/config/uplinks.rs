//! What an uplink claims for itself alone.

use super::UplinkTable;
use crate::model::check::{Claim, Resource};
use crate::model::ids::UplinkName;

/// One gateway's topics at one broker: two uplinks there would overwrite each other's state.
pub(super) fn claim(name: &UplinkName, table: &UplinkTable) -> Claim {
    let UplinkTable::Mqtt(uplink) = table;
    let path = ["uplinks", name.as_str(), "mqtt", "url"].map(str::to_owned).to_vec();
    let resource = Resource::Topics { broker: uplink.peer().authority(), root: uplink.root.clone() };
    Claim { path, resource }
}
