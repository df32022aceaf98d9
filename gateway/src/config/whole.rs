//! What must fit between parts: references, claims, limits, and what a person should know of the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use toml::de::DeTable;

use super::assemble::{Parts, entries, locate};
use super::report::Note;
use super::schema::{listed, nearest};
use super::{BusConfig, UplinkTable};
use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::{BusName, ClientName, ProfileName};
use crate::model::limits::{POINTS_MAX, UPLINKS_MAX};
use crate::south::broker::config::BrokerConfig;
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

    fn names(&self, list: &str) -> BTreeSet<&str> {
        entries(self.root, list).map(|(name, _, _)| name).collect()
    }
}

/// Names that stand for other parts: each must exist. Read from the tree, so that a mistake elsewhere in the same
/// part does not hide a wrong name.
pub(super) fn references(view: View<'_>, profiles: &BTreeSet<&str>) -> Vec<Note> {
    let (clients, buses) = (view.names("clients"), view.names("buses"));
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
    check("devices", "profile", "profile", profiles, "write it as NAME.toml in `profiles_dir`");
    check("clients", "bus", "bus", &buses, "add [buses.NAME.broker]");
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
    let (mut problems, _) = gateway(parts);
    let (_, mut claims) = gateway(partial);
    claims.extend(south(view, partial));
    problems.extend(clients(view, parts));
    problems.extend(parts.uplinks.iter().flat_map(|(name, uplink)| super::uplinks::problems(name, uplink)));
    // A URL can be judged by itself, also where another key of the same uplink is wrong.
    problems.extend(
        partial.uplinks.iter().filter_map(|(name, uplink)| super::uplinks::url_problem(name, uplink)),
    );
    (problems, claims)
}

/// What buses, clients and devices claim for themselves alone.
fn south(view: View<'_>, parts: &Parts) -> Vec<Claim> {
    let claim = |path: &[&str], resource| Claim {
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        resource,
    };
    let mut claims = Vec::new();
    for (name, BusConfig::Broker(broker)) in &parts.buses {
        let name = name.as_str();
        claims.extend(broker.listen.map(|at| claim(&["buses", name, "broker", "listen"], Resource::Tcp(at))));
        let tls = broker.tls.as_ref().map(|tls| tls.listen);
        claims.extend(tls.map(|at| claim(&["buses", name, "broker", "tls", "listen"], Resource::Tcp(at))));
    }
    let buses = view.names("buses");
    for (name, client) in &parts.clients {
        let bus =
            client.bus.as_ref().map(BusName::as_str).or_else(|| buses.first().copied()).unwrap_or_default();
        let id = client.client_id.as_deref().unwrap_or(name.as_str());
        claims
            .push(claim(&["clients", name.as_str(), "client_id"], Resource::ClientId(format!("{bus}/{id}"))));
    }
    for (name, device) in &parts.devices {
        let resource = Resource::Address {
            on: format!("client \"{}\"", device.client),
            address: device.address.clone(),
        };
        claims.push(claim(&["devices", name.as_str(), "address"], resource));
    }
    claims
}

/// What the gateway's own table claims and breaks.
fn gateway(parts: &Parts) -> (Vec<Problem>, Vec<Claim>) {
    let Some(http) = parts.gateway.as_ref().and_then(|gateway| gateway.http) else {
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

/// Which broker each client uses, and whether that broker has the listener it needs.
fn clients(view: View<'_>, parts: &Parts) -> Vec<Problem> {
    let buses = view.names("buses");
    let mut problems = Vec::new();
    for (name, client) in &parts.clients {
        let path = ["clients", name.as_str()];
        let bus = match (&client.bus, buses.len()) {
            (Some(bus), _) => bus.as_str(),
            (None, 1) => buses.first().copied().unwrap_or_default(),
            (None, 0) if view.lost.contains("buses") => continue,
            (None, 0) => {
                let problem = Problem::error(&path, format!("client \"{name}\" has no broker to log in to"));
                problems.push(problem.hint("add [buses.lan.broker]"));
                continue;
            }
            (None, _) => {
                let problem =
                    Problem::error(&path, format!("client \"{name}\" does not say which broker it uses"));
                problems.push(problem.hint(format!("write `bus = …`, one of: {}", listed(&buses))));
                continue;
            }
        };
        let Some(BusConfig::Broker(broker)) = parts.buses.get(bus) else { continue };
        if client.certificate && broker.tls.is_none() {
            let message =
                format!("client \"{name}\" logs in with a certificate, but \"{bus}\" has no TLS listener");
            let path = ["clients", name.as_str(), "certificate"];
            problems.push(Problem::error(&path, message).hint(format!("add [buses.{bus}.broker.tls]")));
        }
        if !client.certificate && broker.listen.is_none() && broker.tls.is_some() {
            let message =
                format!("client \"{name}\" logs in with a password, but \"{bus}\" takes certificates only");
            problems.push(
                Problem::error(&path, message)
                    .hint("write `certificate = true`, or give the broker `listen`"),
            );
        }
    }
    problems
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
    for (name, BusConfig::Broker(broker)) in &parts.buses {
        notes.extend(plain_listener(view, name.as_str(), broker));
    }
    for (name, UplinkTable::Mqtt(uplink)) in &parts.uplinks {
        let plain = uplink.url.starts_with("mqtt://") || uplink.url.starts_with("ws://");
        let host = super::uplinks::host(&uplink.url);
        if plain && !super::uplinks::loopback(host) {
            let place = view.place(&["uplinks", name.as_str(), "mqtt", "url"]);
            let note = Note::warning(place, format!("what goes to {host:?} can be read on the way: no TLS"));
            notes.push(note.hint("use mqtts:// or wss://, with `ca_file` for a private authority"));
        }
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
