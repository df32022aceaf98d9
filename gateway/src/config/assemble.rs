//! From a tree to the parts' own types, each part by itself, so that a mistake in one hides nothing of the others.
//!
//! Must not know how parts work: they tell their problems and claims by themselves.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::report::Note;
use super::schema::Walk;
use super::syntax::Node;
use super::{BusConfig, GatewayConfig, NotifierTable, Settings, UplinkTable};
use crate::model::check::{Problem, Weight};
use crate::model::ids::{BusName, CareName, ClientName, DeviceId, NotifierName, UplinkName};
use crate::pipeline::care::Household;
use crate::south::broker::config::ClientConfig;
use crate::south::device::DeviceConfig;

/// The parts that could be read.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) gateway: Option<GatewayConfig>,
    pub(super) buses: BTreeMap<BusName, BusConfig>,
    pub(super) clients: BTreeMap<ClientName, ClientConfig>,
    pub(super) devices: BTreeMap<DeviceId, DeviceConfig>,
    pub(super) uplinks: BTreeMap<UplinkName, UplinkTable>,
    pub(super) care: BTreeMap<CareName, Household>,
    pub(super) notifiers: BTreeMap<NotifierName, NotifierTable>,
}

impl Parts {
    /// Reads every part in which the walk found nothing; what serde still refuses is noted at its place.
    pub(super) fn read(root: &DeTable<'_>, walk: &Walk<'_>, notes: &mut Vec<Note>) -> Self {
        let mut sound = root.clone();
        for path in &walk.bad {
            // `[gateway]`, or one entry of a list.
            let depth = if path.first().is_some_and(|first| first == "gateway") { 1 } else { 2 };
            remove(&mut sound, path.get(..depth).unwrap_or(path));
        }
        Self::all(&sound, notes)
    }

    /// Reads every part as far as it goes: without what is wrong, if the rest makes sense. For claims, which must be
    /// compared also with those of a part that holds a mistake.
    pub(super) fn partial(root: &DeTable<'_>, walk: &Walk<'_>) -> Self {
        let mut rest = root.clone();
        walk.bad.iter().for_each(|path| remove(&mut rest, path));
        Self::all(&rest, &mut Vec::new())
    }

    fn all(root: &DeTable<'_>, notes: &mut Vec<Note>) -> Self {
        Self {
            gateway: root.get("gateway").and_then(|node| part(node, notes)),
            buses: list(root, "buses", notes),
            clients: list(root, "clients", notes),
            devices: list(root, "devices", notes),
            uplinks: list(root, "uplinks", notes),
            care: list(root, "care", notes),
            notifiers: list(root, "notifiers", notes),
        }
    }

    /// The whole, if the gateway's own table could be read.
    pub(super) fn settings(self) -> Option<Settings> {
        let Self { gateway, buses, clients, devices, uplinks, care, notifiers } = self;
        Some(Settings { gateway: gateway?, buses, clients, devices, uplinks, care, notifiers })
    }
}

/// Takes one key out of a tree, if it is there.
fn remove(table: &mut DeTable<'_>, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            table.remove(last.as_str());
        }
        [first, rest @ ..] => {
            if let Some(DeValue::Table(inner)) = table.get_mut(first.as_str()).map(toml::Spanned::get_mut) {
                remove(inner, rest);
            }
        }
    }
}

fn list<K, T>(root: &DeTable<'_>, name: &str, notes: &mut Vec<Note>) -> BTreeMap<K, T>
where
    K: TryFrom<String> + Ord,
    T: DeserializeOwned,
{
    entries(root, name)
        .filter_map(|(key, _, node)| Some((K::try_from(key.to_owned()).ok()?, part(node, notes)?)))
        .collect()
}

/// The entries of one of the lists: name, the name's place, value.
pub(super) fn entries<'t, 'i>(
    root: &'t DeTable<'i>,
    list: &str,
) -> impl Iterator<Item = (&'t str, Range<usize>, &'t Node<'i>)> {
    let table = root.get(list).and_then(|node| node.get_ref().as_table());
    table.into_iter().flatten().map(|(key, value)| (&**key.get_ref(), key.span(), value))
}

/// One part, or a note of why not.
pub(super) fn part<T: DeserializeOwned>(node: &Node<'_>, notes: &mut Vec<Note>) -> Option<T> {
    match T::deserialize(ValueDeserializer::from(node.clone())) {
        Ok(part) => Some(part),
        Err(error) => {
            let span = error.span().filter(|span| !span.is_empty()).unwrap_or_else(|| node.span());
            notes.push(Note::error(span, error.message().trim().to_owned()));
            None
        }
    }
}

/// The place of a key path: the value's if it is there, else that of the deepest table on the way.
pub(super) fn locate(root: &DeTable<'_>, start: &Range<usize>, path: &[String]) -> Range<usize> {
    let Some((first, rest)) = path.split_first() else { return start.clone() };
    let Some((key, mut node)) = root.get_key_value(first.as_str()) else { return start.clone() };
    let mut place = if node.get_ref().as_table().is_some() { key.span() } else { node.span() };
    for key in rest {
        let next = match node.get_ref() {
            DeValue::Table(table) => {
                table.get_key_value(key.as_str()).map(|(key, value)| (key.span(), value))
            }
            DeValue::Array(items) => {
                key.parse().ok().and_then(|index: usize| items.get(index)).map(|value| (value.span(), value))
            }
            _ => None,
        };
        let Some((key_span, value)) = next else { break };
        place = if value.get_ref().as_table().is_some() { key_span } else { value.span() };
        node = value;
    }
    place
}

/// A part's own problems, at their places.
pub(super) fn placed(problems: Vec<Problem>, root: &DeTable<'_>, start: &Range<usize>) -> Vec<Note> {
    problems
        .into_iter()
        .map(|problem| {
            let span = locate(root, start, &problem.path);
            let note = match problem.weight {
                Weight::Error => Note::error(span, problem.message),
                Weight::Warning => Note::warning(span, problem.message),
            };
            note.maybe_hint(problem.hint)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_refuses_has_its_place() {
        // The walk would have told this one first; serde has the last word.
        let text = "[gateway]\nname = \"BAD\"\ncompound = \"c\"\n";
        let tree = super::super::syntax::tree(text, 7);
        let mut notes = Vec::new();
        assert_eq!(part::<GatewayConfig>(tree.get("gateway").unwrap(), &mut notes), None);
        let place = text.find("\"BAD\"").unwrap() + 7;
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].span, place..place + 5);
        assert!(notes[0].message.starts_with("a name is made of"), "{}", notes[0].message);
    }

    #[test]
    fn a_path_leads_to_the_deepest_thing_written() {
        let text = "[a.b]\nc = [1, 22]\n";
        let tree = super::super::syntax::tree(text, 100);
        let at = |path: &[&str]| {
            let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
            let span = locate(&tree, &(100..101), &path);
            text.get(span.start - 100..span.end - 100).unwrap()
        };
        assert_eq!(at(&["a", "b", "c", "1"]), "22");
        assert_eq!(at(&["a", "b", "c"]), "[1, 22]");
        assert_eq!(at(&["a", "b", "gone", "deeper"]), "b");
        assert_eq!(at(&["x"]), "[");
    }
}
