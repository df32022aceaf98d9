//! Reads profiles: the shipped ones, and the files of `profiles_dir`, each checked like the configuration itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::assemble::{part, placed};
use super::read::{Texts, listing};
use super::report::Note;
use super::schema::Walk;
use crate::model::ids::ProfileName;
use crate::south::profile::{Profile, shipped_profiles};

/// What devices may name.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) profiles: BTreeMap<ProfileName, Profile>,
    /// Also those that hold mistakes: a device that names one makes no mistake of its own.
    pub(super) names: BTreeSet<String>,
}

/// Reads all profiles; `files` says whether `profiles_dir` may be looked into. Texts go to `texts`, mistakes to
/// `notes`.
pub(super) fn read(
    root: &DeTable<'_>,
    base_dir: &Path,
    files: bool,
    texts: &mut Texts,
    notes: &mut Vec<Note>,
) -> Known {
    let mut names = Vec::new();
    let mut known = Known::default();
    // The shipped ones are without mistakes: a test of theirs holds that.
    match shipped_profiles() {
        Ok(profiles) => known.profiles = profiles,
        Err(error) => {
            notes.push(Note::error(0..1, format!("the shipped profiles are damaged: {}", error.message())));
        }
    }
    known.names.extend(known.profiles.keys().map(|name| name.as_str().to_owned()));
    let gateway = root.get("gateway").and_then(|gateway| gateway.get_ref().as_table());
    let directory = gateway.and_then(|gateway| gateway.get("profiles_dir"));
    if let Some((node, text)) = directory.and_then(|node| Some((node, node.get_ref().as_str()?)))
        && files
    {
        match listing(&base_dir.join(text)) {
            Ok(paths) => {
                for path in paths {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    if texts.read(&path) {
                        names.push(name);
                    }
                }
            }
            Err(reason) => notes.push(Note::error(node.span(), reason)),
        }
    }
    notes.append(&mut texts.notes);
    let schema = schemars::schema_for!(Profile).to_value();
    for ((base, tree), name) in texts.trees().zip(names) {
        let mut walk = Walk::new(&schema, &texts.lost);
        walk.document(&tree, base..base + 1);
        let found = walk.found();
        notes.append(&mut walk.notes);
        match ProfileName::new(&name) {
            Ok(id) if !found => {
                let node = Spanned::new(base..base + 1, DeValue::Table(tree.clone()));
                if let Some(profile) = part::<Profile>(&node, notes) {
                    notes.extend(placed(profile.problems(), &tree, &(base..base + 1)));
                    known.profiles.insert(id, profile);
                }
            }
            Ok(_) => {}
            Err(reason) => {
                let message = format!("{name:?} is not a name for a profile's file: {reason}");
                notes.push(Note::error(base..base + 1, message));
            }
        }
        known.names.insert(name);
    }
    known
}
