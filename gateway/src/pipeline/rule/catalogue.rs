//! What could be watched at all: the models that the box knows, whether a device uses them or not.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::{PointName, ProfileName};
use crate::pipeline::directory::PointType;

/// All known device models, by profile.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub models: BTreeMap<ProfileName, Model>,
}

/// What devices of one profile can tell.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub kind: String,
    pub points: BTreeMap<PointName, PointType>,
    pub events: BTreeSet<String>,
    /// Events that end another: the ending one and the one it ends.
    pub ends: BTreeMap<String, String>,
}
