//! The pipeline's directory and catalogue, from devices and profiles.

use std::collections::BTreeMap;

use super::{BusConfig, Settings};
use crate::model::ids::{BusName, ClientName, DeviceId, PointName, ProfileName};
use crate::pipeline::directory::{Abilities, Directory, Entry, PointType};
use crate::pipeline::rule::{Catalogue, Model};
use crate::south::broker::config::ClientConfig;
use crate::south::device::DeviceConfig;
use crate::south::profile::{Point, PointKind, Profile};

/// Every device whose profile is known.
pub(super) fn directory(
    devices: &BTreeMap<DeviceId, DeviceConfig>,
    clients: &BTreeMap<ClientName, ClientConfig>,
    buses: &BTreeMap<BusName, BusConfig>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Directory {
    let broker = buses.iter().find(|(_, bus)| matches!(bus, BusConfig::Broker(_))).map(|(name, _)| name);
    let entries = devices.iter().filter_map(|(id, device)| {
        let profile = profiles.get(&device.profile)?;
        let client = device.client.as_ref();
        let behind = client.and_then(|client| clients.get(client)?.bus.clone()).or_else(|| broker.cloned());
        let entry = Entry {
            kind: profile.kind.clone(),
            profile: device.profile.clone(),
            bus: device.bus.clone().or(client.and(behind)),
            place: device.place.clone(),
            tags: device.tags.iter().cloned().collect(),
            points: points(profile),
            events: model(profile).events,
            maintenance: device.maintenance,
            abilities: Abilities::default(),
        };
        Some((id.clone(), entry))
    });
    Directory { devices: entries.collect() }
}

/// What the known profiles can tell, whether a device uses them or not.
pub(super) fn catalogue(profiles: &BTreeMap<ProfileName, Profile>) -> Catalogue {
    Catalogue { models: profiles.iter().map(|(name, profile)| (name.clone(), model(profile))).collect() }
}

fn model(profile: &Profile) -> Model {
    let events = &profile.events;
    let ends =
        events.iter().filter_map(|(rule, event)| Some((event.name(rule).to_owned(), event.clears.clone()?)));
    Model {
        kind: profile.kind.clone(),
        points: points(profile),
        events: events.iter().map(|(rule, event)| event.name(rule).to_owned()).collect(),
        ends: ends.collect(),
    }
}

fn points(profile: &Profile) -> BTreeMap<PointName, PointType> {
    profile.points.iter().map(|(name, point)| (name.clone(), point_type(point))).collect()
}

fn point_type(point: &Point) -> PointType {
    let scaled = point.scale.is_some() || point.offset.is_some();
    let flag =
        point.coil.is_some() || point.discrete.is_some() || point.bit.is_some() || point.bands.is_some();
    match point.kind {
        _ if flag => PointType::Bool,
        Some(PointKind::Bool) => PointType::Bool,
        Some(PointKind::Text) => PointType::Text,
        Some(PointKind::Number | PointKind::F32 | PointKind::F64) => PointType::Float,
        _ if scaled => PointType::Float,
        _ => PointType::Int,
    }
}

impl Settings {
    /// The devices as the pipeline needs to know them.
    pub fn directory(&self, profiles: &BTreeMap<ProfileName, Profile>) -> Directory {
        directory(&self.devices, &self.clients, &self.buses, profiles)
    }
}
