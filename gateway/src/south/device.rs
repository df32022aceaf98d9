//! `[devices.ID]`: a device, where it is, and who speaks for it; and the roster, which tells for each topic whom it is
//! about. Must not know the broker.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::freshness::{Promise, Watch};
use super::profile::{Channel, DeviceState, Profile, Subject};
use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::{BusName, ClientName, DeviceId, ProfileName};
use crate::model::limits::TOPIC_BYTES_MAX;
use crate::model::place::Place;
use crate::model::record::DeviceRef;
use crate::model::topic::topic_of;

/// One device. Only a person adds devices.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// The profile that describes it: a file name in config/profiles/ without its ending.
    pub profile: ProfileName,
    /// The client of the embedded broker that speaks for it: `[clients.NAME]`.
    pub client: Option<ClientName>,
    /// The bus it hangs on, where no client of the embedded broker speaks for it: `[buses.NAME]`.
    pub bus: Option<BusName>,
    /// Modbus: the unit (slave address) that answers, 1 to 247; on Modbus TCP up to 255.
    #[schemars(range(max = 255))]
    pub unit: Option<u8>,
    /// Modbus: added to the addresses of the profile, so that each input of one module can be a device of its own.
    pub offset: Option<u16>,
    /// Modbus: how often it is read, if not as the profile says.
    #[schemars(range(min = 20, max = 86_400_000))]
    pub poll_ms: Option<u32>,
    /// What stands for `{address}` in the profile's topics: the Zigbee2MQTT friendly name, for example.
    #[schemars(length(min = 1, max = 128))]
    pub address: Option<String>,
    /// A door: the device whose contact shows it open, if it has none of its own: `[devices.ID]`.
    pub contact: Option<DeviceId>,
    /// Where it is.
    #[serde(default)]
    pub place: Place,
    /// Free words to select devices by.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub tags: Vec<String>,
    /// How often it says something at least, seconds; the profile's if not given. Silent for half as long again, its
    /// values are stale; three times as long, and it is offline.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub heartbeat_s: Option<u32>,
    /// Under maintenance: what it says goes to `up/test/…` and calls nobody.
    #[serde(default)]
    pub maintenance: bool,
}

impl DeviceConfig {
    /// Mistakes beyond types; paths start at `devices.ID`.
    pub fn problems(&self, id: &DeviceId) -> Vec<Problem> {
        let at = |key| ["devices", id.as_str(), key];
        let mut out = Vec::new();
        match (&self.client, &self.bus) {
            (None, None) => {
                let problem = Problem::error(&["devices", id.as_str()], "nothing says where the device is");
                out.push(problem.hint("write `client` for one behind the embedded broker, else `bus`"));
            }
            (Some(_), Some(_)) => {
                let problem = Problem::error(&at("bus"), "`client` and `bus` exclude each other");
                out.push(problem.hint("a client knows its bus: leave `bus` out"));
            }
            _ => {}
        }
        if self.unit == Some(0) {
            let problem = Problem::error(&at("unit"), "unit 0 is the broadcast: nobody answers it");
            out.push(problem.hint("units are 1 to 247"));
        }
        let Some(address) = &self.address else { return out };
        let bad = |c: char| matches!(c, '+' | '#') || c.is_control();
        if let Some(character) = address.chars().find(|c| bad(*c)) {
            let message = format!("{character:?} cannot stand in a topic, and the address does");
            out.push(Problem::error(&at("address"), message));
        }
        if address.is_empty() || address.len() > 128 {
            out.push(Problem::error(&at("address"), "an address is 1 to 128 bytes long"));
        }
        out
    }

    /// What must be written for a device with this profile. Paths start at `devices.ID`.
    pub fn lacks(&self, id: &DeviceId, profile: &Profile) -> Vec<Problem> {
        let mut out = Vec::new();
        if profile.mqtt.is_some() && self.address.is_none() {
            let message = format!("[devices.{id}] lacks the key `address`");
            let hint = "it stands for `{address}` in the profile's topics";
            out.push(Problem::error(&["devices", id.as_str()], message).hint(hint));
        }
        let at = |key| ["devices", id.as_str(), key];
        if profile.modbus.is_some() {
            if self.unit.is_none() {
                let message = format!("[devices.{id}] lacks the key `unit`");
                let hint = "it is the address that the device answers to, 1 to 247";
                out.push(Problem::error(&["devices", id.as_str()], message).hint(hint));
            }
            if self.client.is_some() {
                let problem =
                    Problem::error(&at("client"), "the profile speaks Modbus, and a client speaks MQTT");
                out.push(problem.hint("write `bus`, the name of a [buses.NAME.modbus]"));
            }
            if self.address.is_some() {
                let problem = Problem::error(&at("address"), "`address` is for devices that speak MQTT");
                out.push(problem.hint("write `unit` and, where inputs are devices, `offset`"));
            }
        } else {
            let written = [
                ("unit", self.unit.is_some()),
                ("offset", self.offset.is_some()),
                ("poll_ms", self.poll_ms.is_some()),
            ];
            for (key, _) in written.into_iter().filter(|(_, written)| *written) {
                let message = format!("`{key}` is for devices that speak Modbus");
                out.push(Problem::error(&at(key), message).hint("its profile says [mqtt]"));
            }
        }
        out
    }

    /// Who speaks for it.
    pub fn speaker(&self) -> Option<Speaker> {
        match (&self.client, &self.bus) {
            (Some(client), _) => Some(Speaker::Client(client.clone())),
            (None, Some(bus)) => Some(Speaker::Bus(bus.clone())),
            (None, None) => None,
        }
    }

    /// The address behind its speaker: two devices cannot hold one.
    pub fn claim(&self, id: &DeviceId) -> Option<Claim> {
        // One device twice, and not two that share a unit: those are read together.
        if let (Some(bus), Some(unit)) = (&self.bus, self.unit) {
            let address =
                format!("unit {unit}, offset {}, profile {}", self.offset.unwrap_or(0), self.profile);
            return Some(Claim {
                path: vec!["devices".into(), id.as_str().into(), "unit".into()],
                resource: Resource::Address { on: format!("bus {bus}"), address },
            });
        }
        Some(Claim {
            path: vec!["devices".into(), id.as_str().into(), "address".into()],
            resource: Resource::Address { on: self.speaker()?.to_string(), address: self.address.clone()? },
        })
    }
}

/// Who speaks for a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaker {
    /// A client of the embedded broker.
    Client(ClientName),
    /// A bus of its own.
    Bus(BusName),
}

impl fmt::Display for Speaker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(out, "client {client}"),
            Self::Bus(bus) => write!(out, "bus {bus}"),
        }
    }
}

/// A device as the south knows it.
#[derive(Debug)]
pub struct Device {
    pub speaker: Speaker,
    pub profile: Arc<Profile>,
    pub subject: Subject,
    pub promise: Promise,
    /// Held from the mapping of a message to its commit, so that two messages cannot both be the first. Who holds those
    /// of several devices takes them in the order of ids.
    pub memory: Mutex<Memory>,
}

/// What is remembered of a device between messages. Lost with the process.
#[derive(Debug, Clone)]
pub struct Memory {
    pub state: DeviceState,
    pub watch: Watch,
}

impl Device {
    pub const fn id(&self) -> &DeviceId {
        &self.subject.device.id
    }
}

/// Why a roster cannot be made; `check` finds these first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    #[error("device {device} names profile {profile}, which does not exist")]
    Profile { device: DeviceId, profile: ProfileName },
    #[error("device {device} has the profile {profile}, which does not speak MQTT")]
    Speech { device: DeviceId, profile: ProfileName },
    #[error("device {device} has no address")]
    Address { device: DeviceId },
    #[error("device {device} has the topic {topic:?}, longer than {TOPIC_BYTES_MAX} bytes")]
    Topic { device: DeviceId, topic: String },
}

/// All devices of one bus that speak MQTT, by topic. Outlives restarts of its driver, and with it what is remembered of each device.
#[derive(Debug, Default)]
pub struct Roster {
    devices: Vec<Arc<Device>>,
    routes: HashMap<String, Vec<(Arc<Device>, Channel)>>,
    ignored: BTreeMap<Speaker, Vec<String>>,
}

impl Roster {
    /// Resolves profiles and topics. `bases` holds the speakers of this bus; devices of others are left out. Their
    /// silence counts from `now_ms`, monotonic milliseconds.
    ///
    /// # Errors
    /// A profile that does not exist or does not speak MQTT, no address, a topic that is too long.
    pub fn new(
        bus: &BusName,
        bases: &BTreeMap<Speaker, String>,
        devices: &BTreeMap<DeviceId, DeviceConfig>,
        profiles: &BTreeMap<ProfileName, Arc<Profile>>,
        now_ms: u64,
    ) -> Result<Self, RosterError> {
        let mut roster = Self::default();
        for (id, config) in devices {
            let Some((speaker, base)) = config.speaker().and_then(|speaker| bases.get_key_value(&speaker))
            else {
                continue;
            };
            let profile = profiles.get(&config.profile).ok_or_else(|| RosterError::Profile {
                device: id.clone(),
                profile: config.profile.clone(),
            })?;
            roster.add((bus, speaker, base), id, (config, profile), now_ms)?;
        }
        Ok(roster)
    }

    fn add(
        &mut self,
        (bus, speaker, base): (&BusName, &Speaker, &str),
        id: &DeviceId,
        (config, profile): (&DeviceConfig, &Arc<Profile>),
        now_ms: u64,
    ) -> Result<(), RosterError> {
        let mqtt = profile
            .mqtt
            .as_ref()
            .ok_or_else(|| RosterError::Speech { device: id.clone(), profile: config.profile.clone() })?;
        let address = config.address.as_ref().ok_or_else(|| RosterError::Address { device: id.clone() })?;
        let device = DeviceRef {
            id: id.clone(),
            kind: profile.kind.clone(),
            profile: Some(config.profile.clone()),
            bus: Some(bus.clone()),
        };
        let device = Arc::new(Device {
            speaker: speaker.clone(),
            profile: Arc::clone(profile),
            subject: Subject { device, place: config.place.clone(), test: config.maintenance },
            promise: Promise::new(profile, config.heartbeat_s),
            memory: Mutex::new(Memory { state: DeviceState::default(), watch: Watch::new(now_ms) }),
        });
        let expand = |template: &str| topic_of(template, base, address);
        let mut channels = vec![(expand(&mqtt.topic), Channel::Message)];
        if let Some(availability) = &mqtt.availability {
            channels.push((expand(&availability.topic), Channel::Availability));
        }
        for topic in profile.answer_topics().map(expand) {
            if channels.iter().all(|(known, _)| *known != topic) {
                channels.push((topic, Channel::Answer));
            }
        }
        for (topic, channel) in channels {
            if topic.len() > TOPIC_BYTES_MAX {
                return Err(RosterError::Topic { device: id.clone(), topic });
            }
            self.routes.entry(topic).or_default().push((Arc::clone(&device), channel));
        }
        let ignored = self.ignored.entry(speaker.clone()).or_default();
        ignored.extend(mqtt.ignore.iter().map(|filter| expand(filter)));
        self.devices.push(device);
        Ok(())
    }

    /// In the order of their ids.
    pub fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// Every topic on which something is said of a device.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(String::as_str)
    }

    /// Whom a message of this topic is about, in the order of their ids.
    pub fn route(&self, topic: &str) -> &[(Arc<Device>, Channel)] {
        self.routes.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Topic filters of what a speaker also publishes and nobody needs.
    pub fn ignored(&self, speaker: &Speaker) -> &[String] {
        self.ignored.get(speaker).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::south::profile::shipped_profiles;

    fn z2m() -> Speaker {
        Speaker::Client(ClientName::new("z2m").unwrap())
    }

    fn roster(devices: &str) -> Result<Roster, RosterError> {
        let devices: BTreeMap<DeviceId, DeviceConfig> = toml::from_str(devices).unwrap();
        let profiles = shipped_profiles().unwrap().into_iter().map(|(name, p)| (name, Arc::new(p))).collect();
        let bases = BTreeMap::from([(z2m(), "site/z2m".to_owned())]);
        Roster::new(&BusName::new("lan").unwrap(), &bases, &devices, &profiles, 0)
    }

    fn names(roster: &Roster, topic: &str) -> Vec<(String, Channel)> {
        let route = roster.route(topic).iter();
        route.map(|(device, channel)| (device.id().as_str().to_owned(), *channel)).collect()
    }

    #[test]
    fn topics_lead_to_devices() {
        let text = r#"
            [b1]
            profile = "z2m-button-sos"
            client = "z2m"
            address = "三楼/{base}"
            maintenance = true
            [bridge]
            profile = "z2m-bridge"
            client = "z2m"
            address = "bridge"
            [elsewhere]
            profile = "z2m-lock"
            client = "another-bus"
            address = "lock"
        "#;
        let roster = roster(text).unwrap();
        assert_eq!(names(&roster, "site/z2m/三楼/{base}"), [("b1".to_owned(), Channel::Message)]);
        let availability = "site/z2m/三楼/{base}/availability";
        assert_eq!(names(&roster, availability), [("b1".to_owned(), Channel::Availability)]);
        assert_eq!(names(&roster, "site/z2m/bridge/state"), [("bridge".to_owned(), Channel::Availability)]);
        assert_eq!(names(&roster, "site/z2m/lock"), []);
        assert_eq!(roster.ignored(&z2m()), ["site/z2m/bridge/#"]);
        assert!(roster.devices().iter().any(|device| device.subject.test));
        assert_eq!(roster.devices().len(), 2);
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let missing = "[a]\nprofile = 'none'\nclient = 'z2m'\naddress = 'x'";
        assert!(roster(missing).unwrap_err().to_string().contains("none"));
        let long =
            format!("[a]\nprofile = 'z2m-lock'\nclient = 'z2m'\naddress = '{}'", "x".repeat(TOPIC_BYTES_MAX));
        assert!(matches!(roster(&long), Err(RosterError::Topic { .. })));
        let bad: DeviceConfig =
            toml::from_str("profile = 'z2m-lock'\nclient = 'z2m'\naddress = 'a/#'").unwrap();
        let id = DeviceId::new("a").unwrap();
        assert_eq!(bad.problems(&id)[0].path, ["devices", "a", "address"]);
        assert_eq!(bad.claim(&id).unwrap().resource.to_string(), "address \"a/#\" on client z2m");
    }
}
