//! The pipeline's directory and catalogue, from devices and profiles.

use std::collections::BTreeMap;

use super::{BusConfig, Settings};
use crate::model::ids::{BusName, ClientName, DeviceId, PointName, ProfileName};
use crate::model::topic::topic_of;
use crate::pipeline::directory::{Abilities, Directory, Entry, PointType, Speaker, Topics};
use crate::pipeline::rule::{Catalogue, Model};
use crate::south::broker::config::ClientConfig;
use crate::south::device::DeviceConfig;
use crate::south::modbus::check::door_outputs;
use crate::south::profile::acts::Reach;
use crate::south::profile::{Point, PointKind, Profile};

/// The kind of a device that speaks for others: they share its client, or its bus.
const BRIDGE: &str = "bridge";

/// Every device whose profile is known.
pub(super) fn directory(
    devices: &BTreeMap<DeviceId, DeviceConfig>,
    clients: &BTreeMap<ClientName, ClientConfig>,
    buses: &BTreeMap<BusName, BusConfig>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Directory {
    let broker = buses.iter().find(|(_, bus)| matches!(bus, BusConfig::Broker(_))).map(|(name, _)| name);
    let is_bridge =
        |device: &DeviceConfig| profiles.get(&device.profile).is_some_and(|profile| profile.kind == BRIDGE);
    let bridges: BTreeMap<_, &DeviceId> = devices
        .iter()
        .filter(|(_, device)| is_bridge(device))
        .map(|(id, device)| ((&device.client, &device.bus), id))
        .collect();
    let releasing = door_outputs(devices, profiles);
    let entries = devices.iter().filter_map(|(id, device)| {
        let profile = profiles.get(&device.profile)?;
        let client = device.client.as_ref();
        let behind = client.and_then(|client| clients.get(client)?.bus.clone()).or_else(|| broker.cloned());
        let base = client.and_then(|name| Some(clients.get(name)?.base(name))).or_else(|| {
            match buses.get(device.bus.as_ref()?)? {
                BusConfig::Mqtt(mqtt) => Some(mqtt.base.as_str()),
                BusConfig::Broker(_) | BusConfig::Modbus(_) => None,
            }
        });
        let mut abilities = abilities_of(profile);
        abilities.outputs.retain(|output| !releasing.contains_key(&(id.clone(), output.clone())));
        abilities.topics = base.and_then(|base| topics(profile, base, device.address.as_ref()?));
        let entry = Entry {
            kind: profile.kind.clone(),
            profile: device.profile.clone(),
            bus: device.bus.clone().or(client.and(behind)),
            bridge: bridges
                .get(&(&device.client, &device.bus))
                .filter(|_| !is_bridge(device))
                .map(|bridge| (*bridge).clone()),
            place: device.place.clone(),
            tags: device.tags.iter().cloned().collect(),
            points: points(profile),
            events: model(profile).events,
            heartbeat_s: device.heartbeat_s.or(profile.heartbeat_s),
            maintenance: device.maintenance,
            abilities,
        };
        Some((id.clone(), entry))
    });
    Directory { devices: entries.collect() }
}

/// What a device with this profile can be asked to do.
pub fn abilities_of(profile: &Profile) -> Abilities {
    let speaker = profile.speaker.as_ref().map(|speaker| Speaker {
        lan: speaker.reach == Reach::Lan,
        confirms_played: speaker.ack.as_ref().is_some_and(|ack| ack.means.happened()),
        text_chars_max: speaker.text_chars_max.into(),
    });
    let door = profile.door.as_ref();
    let holds = door.is_some_and(|door| door.output.is_some());
    let outputs = profile.outputs().cloned().collect();
    Abilities { speaker, door: door.is_some(), holds, outputs, topics: None }
}

fn topics(profile: &Profile, base: &str, address: &str) -> Option<Topics> {
    let mqtt = profile.mqtt.as_ref()?;
    let heard = [Some(&mqtt.topic), mqtt.availability.as_ref().map(|availability| &availability.topic)];
    let orders = profile.door.as_ref().and_then(|door| door.topic.as_ref());
    let own = heard.into_iter().chain([orders]).flatten().map(String::as_str).chain(profile.answer_topics());
    let own = own.map(|template| topic_of(template, base, address)).collect();
    Some(Topics { base: base.to_owned(), address: address.to_owned(), own })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::south::profile::shipped_profiles;

    const COMPOUND: &str = r#"
        [gateway]
        name = "gate"
        compound = "c"
        [buses.lan.broker]
        listen = "127.0.0.1:1883"
        [buses.rs485.modbus]
        tcp = "127.0.0.1:502"
        [clients.z2m]
        [devices.button]
        profile = "z2m-button-sos"
        client = "z2m"
        address = "b"
        tags = ["lobby"]
        place = { building = "3", unit = "1" }
        [devices.z2m]
        profile = "z2m-bridge"
        client = "z2m"
        address = "bridge"
        [devices.io]
        profile = "waveshare-io8"
        bus = "rs485"
        unit = 1
        maintenance = true
    "#;

    #[test]
    fn devices_are_found_with_what_their_profiles_say() {
        let settings: Settings = toml::from_str(COMPOUND).unwrap();
        let directory = settings.directory(&shipped_profiles().unwrap());
        let of = |id: &str| directory.devices.get(&DeviceId::new(id).unwrap()).unwrap();
        let button = of("button");
        assert_eq!((button.kind.as_str(), button.maintenance), ("button", false));
        assert_eq!(button.bus.as_ref().map(BusName::as_str), Some("lan"));
        assert!(button.tags.contains("lobby") && button.place.building.as_deref() == Some("3"));
        assert!(button.events.contains("button.pressed") && button.events.len() > 2, "{:?}", button.events);
        let point = |name: &str| PointName::new(name).unwrap();
        assert_eq!(button.points.get(&point("battery")), Some(&PointType::Float));
        let bridge = |id: &str| of(id).bridge.as_ref().map(DeviceId::as_str);
        assert_eq!((bridge("button"), bridge("z2m"), bridge("io")), (Some("z2m"), None, None));
        let io = of("io");
        assert!(io.maintenance && io.bus.as_ref().is_some_and(|bus| bus.as_str() == "rs485"));
        assert_eq!(io.abilities.outputs.len(), 8, "{:?}", io.abilities);
        assert!(io.points.values().all(|kind| *kind == PointType::Bool));
    }

    #[test]
    fn what_releases_a_door_is_no_output_of_another_device() {
        let door = "[devices.gate]\nprofile = \"modbus-door\"\nbus = \"rs485\"\nunit = 1\noffset = 2\n";
        let outputs = |door: &str| {
            let settings: Settings = toml::from_str(&format!("{COMPOUND}{door}")).unwrap();
            let directory = settings.directory(&shipped_profiles().unwrap());
            let io = directory.devices.get(&DeviceId::new("io").unwrap()).unwrap();
            io.abilities.outputs.iter().map(|output| output.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(outputs(door), ["do1", "do2", "do4", "do5", "do6", "do7", "do8"]);
        assert_eq!(outputs(&door.replace("unit = 1", "unit = 2")).len(), 8, "it is another module");
    }
}
