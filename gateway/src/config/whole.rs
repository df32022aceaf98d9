//! What must fit between parts: references, claims, limits, and what a person should know of the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use toml::de::DeTable;

use super::assemble::{Parts, entries, locate};
use super::report::Note;
use super::schema::{listed, nearest};
use super::syntax::Node;
use super::{BusConfig, UplinkTable};
use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::{BusName, ClientName, ProfileName};
use crate::model::limits::{POINTS_MAX, UPLINKS_MAX};
use crate::rt::mqtt::Peer;
use crate::south::broker::config::{BrokerConfig, ClientConfig, client_problems};
use crate::south::profile::Profile;

/// The tree and what was lost of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'t> {
    pub(super) root: &'t DeTable<'t>,
    pub(super) lost: &'t BTreeSet<String>,
    /// Where mistakes of the whole stand.
    pub(super) start: usize,
}

impl View<'_> {
    fn place(&self, path: &[&str]) -> Range<usize> {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        locate(self.root, &self.start(), &path)
    }

    pub(super) fn start(&self) -> Range<usize> {
        self.start..self.start + 1
    }

    pub(super) fn names(&self, list: &str) -> BTreeSet<&str> {
        entries(self.root, list).map(|(name, _, _)| name).collect()
    }
}

/// Names that stand for other parts: each must exist. Read from the tree, so that a mistake elsewhere in the same
/// part does not hide a wrong name.
pub(super) fn references(view: View<'_>, profiles: &BTreeSet<&str>) -> Vec<Note> {
    let (clients, buses, brokers) = (view.names("clients"), view.names("buses"), broker_names(view));
    let mut notes = Vec::new();
    let mut check = |list: &str, key: &str, what: &str, valid: &BTreeSet<&str>, add: &str| {
        for (_, _, node) in entries(view.root, list) {
            let Some(value) = node.get_ref().as_table().and_then(|table| table.get(key)) else { continue };
            let Some(name) = value.get_ref().as_str() else { continue };
            // A text that is no name at all has been noted already.
            if valid.contains(name) || view.lost.contains(name) || ClientName::new(name).is_err() {
                continue;
            }
            let hint = match nearest(name, valid.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if valid.is_empty() => add.replace("NAME", name),
                None => format!("there is: {}", listed(valid)),
            };
            notes.push(Note::error(value.span(), format!("there is no {what} \"{name}\"")).hint(hint));
        }
    };
    check("devices", "client", "client", &clients, "add [clients.NAME]");
    check("devices", "bus", "bus", &buses, "add [buses.NAME.KIND]");
    check("devices", "profile", "profile", profiles, "write it as NAME.toml in `profiles_dir`");
    check("devices", "contact", "device", &view.names("devices"), "add [devices.NAME]");
    check("clients", "bus", "broker", &brokers, "add [buses.NAME.broker]");
    notes
}

/// Two parts that claim the same port, line, client id or address.
pub(super) fn claims(view: View<'_>, claims: Vec<Claim>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut claims: Vec<(Range<usize>, Claim)> =
        claims.into_iter().map(|claim| (locate(view.root, &view.start(), &claim.path), claim)).collect();
    claims.sort_by_key(|(span, _)| span.start);
    let mut held: BTreeMap<Resource, (Range<usize>, Vec<String>)> = BTreeMap::new();
    for (span, claim) in claims {
        // Ports overlap without being equal; there are few of them. All else is equal or does not overlap.
        let holder = match &claim.resource {
            Resource::Tcp(_) => held.iter().find(|(held, _)| held.overlaps(&claim.resource)),
            exact => held.get_key_value(exact),
        };
        let Some((resource, (first, owner))) = holder else {
            held.insert(claim.resource, (span, claim.path));
            continue;
        };
        let (owner, second) = (owner.join("."), claim.path.join("."));
        let message = format!("{} is claimed by both `{owner}` and `{second}`", claim.resource);
        notes.push(Note::error(span, message).also(first.clone(), format!("`{owner}` claims {resource}")));
    }
    notes
}

/// What sound parts say of themselves and of each other, and what all claim, as far as they could be read.
pub(super) fn told(view: View<'_>, parts: &Parts, partial: &Parts) -> (Vec<Problem>, Vec<Claim>) {
    let (mut problems, mut claims) = gateway(view);
    let storage = parts.gateway.iter().map(|gateway| &gateway.storage);
    problems.extend(storage.flat_map(|storage| storage.problems(&["gateway", "storage"])));
    claims.extend(south_claims(view, partial));
    claims.extend(partial.uplinks.iter().map(|(name, uplink)| super::uplinks::claim(name, uplink)));
    problems.extend(south_problems(view, parts));
    for (path, peer) in peers(parts) {
        problems.extend(super::peers::problems(&path, &peer));
    }
    for (name, UplinkTable::Mqtt(uplink)) in &parts.uplinks {
        let table = ["uplinks", name.as_str(), "mqtt", "commands"];
        problems.extend(crate::north::commands::authority::problems(
            &table,
            &uplink.commands,
            &uplink.filter,
        ));
    }
    // A URL can be judged by itself, also where another key of the same table is wrong.
    problems.extend(
        peers(partial).into_iter().filter_map(|(path, peer)| super::peers::url_problem(&path, &peer)),
    );
    (problems, claims)
}

/// The brokers that others run, platforms' and on the local network, with their tables' paths.
fn peers(parts: &Parts) -> Vec<([&str; 3], Peer<'_>)> {
    let uplinks = parts
        .uplinks
        .iter()
        .map(|(name, UplinkTable::Mqtt(uplink))| (["uplinks", name.as_str(), "mqtt"], uplink.peer()));
    let buses = parts.buses.iter().filter_map(|(name, bus)| match bus {
        BusConfig::Mqtt(mqtt) => Some((["buses", name.as_str(), "mqtt"], mqtt.peer())),
        BusConfig::Broker(_) | BusConfig::Modbus(_) => None,
    });
    uplinks.chain(buses).collect()
}

/// What buses, clients and devices claim for themselves alone.
fn south_claims(view: View<'_>, parts: &Parts) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (name, bus) in &parts.buses {
        match bus {
            BusConfig::Broker(broker) => claims.extend(broker.claims(name)),
            BusConfig::Mqtt(mqtt) => {
                claims.push(mqtt.claim(parts.gateway.as_ref().map(|gateway| &gateway.name), name));
            }
            BusConfig::Modbus(modbus) => claims.extend(modbus.claims(name)),
        }
    }
    let buses = broker_names(view);
    for (name, client) in &parts.clients {
        let bus = client.bus.as_ref().map(BusName::as_str).or_else(|| buses.first().copied());
        let id = format!("{}/{}", bus.unwrap_or_default(), client.client_id(name));
        let path = ["clients", name.as_str(), "client_id"].map(str::to_owned).to_vec();
        claims.push(Claim { path, resource: Resource::ClientId(id) });
    }
    claims.extend(parts.devices.iter().filter_map(|(id, device)| device.claim(id)));
    claims
}

/// What buses, clients and devices find wrong with themselves.
fn south_problems(view: View<'_>, parts: &Parts) -> Vec<Problem> {
    let mut brokers = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, bus) in &parts.buses {
        match bus {
            BusConfig::Broker(broker) => {
                problems.extend(broker.problems(name));
                brokers.insert(name.clone(), broker);
            }
            BusConfig::Mqtt(mqtt) => problems.extend(mqtt.problems(name)),
            BusConfig::Modbus(modbus) => problems.extend(modbus.problems(name)),
        }
    }
    // A client is judged only where its broker is known and sound: otherwise that mistake has been told.
    let all_sound = brokers.len() == broker_names(view).len() && !view.lost.contains("buses");
    let judged = |client: &ClientConfig| match &client.bus {
        Some(bus) => brokers.contains_key(bus),
        None => all_sound,
    };
    let clients = parts.clients.iter().filter(|(_, client)| judged(client));
    let clients = clients.map(|(name, client)| (name.clone(), client.clone())).collect();
    // Two equal client ids are told by their claims, with both places.
    let twice = |problem: &Problem| problem.path.last().is_some_and(|key| key == "client_id");
    problems.extend(client_problems(&clients, &brokers).into_iter().filter(|problem| !twice(problem)));
    problems.extend(parts.devices.iter().flat_map(|(id, device)| device.problems(id)));
    for (id, device) in &parts.devices {
        // It would never be heard: whoever speaks at the embedded broker has an account there.
        let mute = device.bus.as_ref().filter(|bus| brokers.contains_key(*bus) && device.unit.is_none());
        if let Some(bus) = mute {
            let message = format!("the bus {bus:?} is the embedded broker: say which of its clients speaks");
            let problem = Problem::error(&["devices", id.as_str(), "bus"], message);
            problems.push(problem.hint("write client = one of [clients.NAME] instead"));
        }
    }
    problems
}

/// Kinds of buses to which no client logs in.
const NO_BROKERS: [&str; 2] = ["modbus", "mqtt"];

/// The names of the embedded brokers, also of those with a mistake in their kind.
fn broker_names(view: View<'_>) -> BTreeSet<&str> {
    let other = |node: &Node<'_>| {
        node.get_ref().as_table().is_some_and(|table| NO_BROKERS.iter().any(|kind| table.contains_key(*kind)))
    };
    entries(view.root, "buses").filter(|(_, _, node)| !other(node)).map(|(name, _, _)| name).collect()
}

/// What devices lack for their profiles.
pub(super) fn lacking(partial: &Parts, profiles: &BTreeMap<ProfileName, Profile>) -> Vec<Problem> {
    let known =
        partial.devices.iter().filter_map(|(id, device)| Some((id, device, profiles.get(&device.profile)?)));
    known.flat_map(|(id, device, profile)| device.lacks(id, profile)).collect()
}

/// What does not fit between Modbus buses, their devices and profiles, or a person should know of them.
pub(super) fn fields(
    parts: &Parts,
    partial: &Parts,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Vec<Problem> {
    let mut out = Vec::new();
    for (name, bus) in &parts.buses {
        if let BusConfig::Modbus(modbus) = bus {
            out.extend(crate::south::modbus::check::problems(name, modbus, &partial.devices, profiles));
        }
    }
    for (id, device) in &partial.devices {
        let bus = device.bus.as_ref().and_then(|bus| parts.buses.get(bus));
        let modbus = profiles.get(&device.profile).is_some_and(|profile| profile.modbus.is_some());
        if modbus && bus.is_some_and(|bus| !matches!(bus, BusConfig::Modbus(_))) {
            let path = ["devices", id.as_str(), "bus"];
            let problem = Problem::error(&path, "the profile speaks Modbus, and the bus does not");
            out.push(problem.hint("name a [buses.NAME.modbus]"));
        }
    }
    out
}

/// What the gateway's own table claims and breaks. Read from the tree: its address is judged also where its name is
/// missing.
fn gateway(view: View<'_>) -> (Vec<Problem>, Vec<Claim>) {
    let table = view.root.get("gateway").and_then(|node| node.get_ref().as_table());
    let text = table.and_then(|table| table.get("http")).and_then(|node| node.get_ref().as_str());
    let Some(http) = text.and_then(|text| text.parse::<SocketAddr>().ok()) else {
        return Default::default();
    };
    let path = ["gateway", "http"];
    let claim = Claim { path: path.map(str::to_owned).to_vec(), resource: Resource::Tcp(http) };
    let problems = if http.ip().is_loopback() {
        Vec::new()
    } else {
        let message = format!("`http` listens on {}, which others can reach", http.ip());
        let local = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), http.port());
        vec![Problem::error(&path, message).hint(format!("it has no passwords: write \"{local}\""))]
    };
    (problems, vec![claim])
}

/// Limits of the whole, at the first entry beyond them.
pub(super) fn limits(view: View<'_>, parts: &Parts, profiles: &BTreeMap<ProfileName, Profile>) -> Vec<Note> {
    let mut uplinks: Vec<_> = entries(view.root, "uplinks").map(|(_, span, _)| span).collect();
    uplinks.sort_by_key(|span| span.start);
    let beyond = uplinks.get(UPLINKS_MAX).cloned();
    let note =
        |span| Note::error(span, format!("{} uplinks, at most {UPLINKS_MAX} are allowed", uplinks.len()));
    let mut notes: Vec<Note> = beyond.map(note).into_iter().collect();
    let mut points = 0_usize;
    for (name, device) in &parts.devices {
        points += profiles.get(&device.profile).map_or(0, |profile| profile.points.len());
        if points > POINTS_MAX {
            let place = view.place(&["devices", name.as_str()]);
            let note =
                Note::error(place, format!("with this device there are more than {POINTS_MAX} points"));
            notes.push(note.hint("share the devices between two gateways"));
            break;
        }
    }
    notes
}

/// What starts, but may not be what was meant.
pub(super) fn warnings(view: View<'_>, parts: &Parts) -> Vec<Note> {
    let mut notes = Vec::new();
    let absent = |list: &str| view.names(list).is_empty() && !view.lost.contains(list);
    if absent("uplinks") {
        let note = Note::warning(view.start(), "there is no uplink: records stay in this box");
        notes.push(note.hint("add [uplinks.NAME.mqtt] with `url`"));
    }
    if absent("devices") {
        let note = Note::warning(view.start(), "there are no devices: what clients publish is refused");
        notes.push(note.hint("add [devices.NAME] with `profile`, `client` and `address`"));
    }
    for (name, bus) in &parts.buses {
        if let BusConfig::Broker(broker) = bus {
            notes.extend(plain_listener(view, name.as_str(), broker));
        }
    }
    for (path, peer) in peers(parts) {
        let Some(host) = super::peers::in_clear(&peer) else { continue };
        let what = if path.contains(&"buses") && peer.password_file.is_some() {
            format!("the password and what {host:?} says cross the network in clear: no TLS")
        } else if path.contains(&"uplinks") {
            format!("what goes to {host:?} can be read on the way: no TLS")
        } else {
            continue;
        };
        let place = view.place(&[path.as_slice(), &["url"]].concat());
        let hint = "use mqtts:// or wss://, with `ca_file` for a private authority";
        notes.push(Note::warning(place, what).hint(hint));
    }
    notes
}

fn plain_listener(view: View<'_>, name: &str, broker: &BrokerConfig) -> Option<Note> {
    let listen = broker.listen.filter(|listen| !listen.ip().is_loopback())?;
    let place = view.place(&["buses", name, "broker", "listen"]);
    let message = format!("passwords of clients cross the network in clear at {listen}");
    let hint = "keep devices on a network of their own, or use [buses.NAME.broker.tls] with certificates";
    Some(Note::warning(place, message).hint(hint.replace("NAME", name)))
}
