//! Reads rules: the shipped ones, and the files of `rules_dir`, each checked like the configuration itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::assemble::{part, placed};
use super::read::{Texts, listing};
use super::report::{Note, Report};
use super::schema::Walk;
use super::{Loaded, directory};
use crate::model::check::Weight;
use crate::model::ids::RuleName;
use crate::pipeline::directory::Directory;
use crate::pipeline::rule::config::RuleFile;
use crate::pipeline::rule::{Catalogue, Finding, Rules, Source, shipped};

/// What rules may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) directory: &'a Directory,
    pub(super) catalogue: &'a Catalogue,
}

/// The rules, and the files that they come from.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) rules: Rules,
    pub(super) sources: Vec<Source>,
}

/// Reads all rules; `files` says whether `rules_dir` may be looked into. Texts go to `texts`, mistakes to `notes`.
pub(super) fn read(
    root: &DeTable<'_>,
    base_dir: &Path,
    files: bool,
    field: Field<'_>,
    texts: &mut Texts,
    notes: &mut Vec<Note>,
) -> Read {
    let gateway = root.get("gateway").and_then(|gateway| gateway.get_ref().as_table());
    let names = match gateway.and_then(|gateway| gateway.get("rules_dir")) {
        Some(node) if files => match node.get_ref().as_str().map(|text| listing(&base_dir.join(text))) {
            Some(Ok(paths)) => paths
                .into_iter()
                .filter(|path| texts.read(path))
                .map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
                .collect(),
            Some(Err(reason)) => {
                notes.push(Note::error(node.span(), reason));
                Vec::new()
            }
            None => Vec::new(),
        },
        _ => Vec::new(),
    };
    let own = own(texts, names, notes);
    let mut sources = shipped_sources(notes);
    sources.retain(|source| own.iter().all(|(_, own)| own.file != source.file));
    sources.extend(own.iter().map(|(_, source)| source.clone()));
    let disabled: Vec<RuleName> = gateway
        .and_then(|gateway| gateway.get("rules_disabled"))
        .and_then(|node| part(node, &mut Vec::new()))
        .unwrap_or_default();
    let (rules, findings) = Rules::compile(&sources, &disabled, field.directory, field.catalogue);
    tell(root, texts, &own, findings, notes);
    Read { rules, sources }
}

/// The files that were read, each with the place where it begins; one that cannot be understood is noted and left out.
fn own(texts: &mut Texts, names: Vec<String>, notes: &mut Vec<Note>) -> Vec<(usize, Source)> {
    notes.append(&mut texts.notes);
    let schema = schemars::schema_for!(RuleFile).to_value();
    let mut own = Vec::new();
    for ((base, tree), file) in texts.trees().zip(names) {
        let mut walk = Walk::new(&schema, &texts.lost);
        walk.document(&tree, base..base + 1);
        let found = walk.found();
        notes.append(&mut walk.notes);
        let node = Spanned::new(base..base + 1, DeValue::Table(tree));
        let rules = if found { None } else { part::<RuleFile>(&node, notes) };
        // A file with mistakes still takes the place of a shipped one.
        own.push((base, Source { file, shipped: false, rules: rules.unwrap_or_default() }));
    }
    own
}

/// That they can be read is a test.
fn shipped_sources(notes: &mut Vec<Note>) -> Vec<Source> {
    let mut sources = Vec::new();
    for (name, text) in shipped() {
        match toml::from_str(text) {
            Ok(rules) => sources.push(Source { file: (*name).to_owned(), shipped: true, rules }),
            Err(error) => {
                notes.push(Note::error(0..1, format!("the shipped rules are damaged: {}", error.message())));
            }
        }
    }
    sources
}

/// Findings at their places. What is wrong with a shipped rule here is no mistake of whoever wrote the configuration.
fn tell(
    root: &DeTable<'_>,
    texts: &Texts,
    own: &[(usize, Source)],
    findings: Vec<Finding>,
    notes: &mut Vec<Note>,
) {
    let trees: Vec<(usize, DeTable<'_>)> = texts.trees().collect();
    for Finding { file, problem } in findings {
        if file.is_empty() {
            notes.extend(placed(vec![problem], root, &(0..1)));
            continue;
        }
        let of_file = own.iter().find(|(_, source)| source.file == file);
        let tree = of_file.and_then(|(base, _)| trees.iter().find(|(of, _)| of == base));
        if let Some((base, tree)) = tree {
            notes.extend(placed(vec![problem], tree, &(*base..base + 1)));
        } else {
            let message = format!("the shipped rules in {file}.toml: {}", problem.message);
            let usual = "replace the file by one of the same name in `rules_dir`, or switch the rule off";
            let hint = problem.hint.as_deref().unwrap_or(usual);
            notes.push(Note::warning(0..1, message).hint(hint));
        }
    }
}

impl Loaded {
    /// This configuration's rules with those of further files, which replace rules of the same names. Each file is a name
    /// for messages and its bytes.
    ///
    /// # Errors
    /// Everything that is wrong with the further files.
    pub fn rules_with(&self, files: &[(String, Vec<u8>)]) -> Result<Arc<Rules>, Report> {
        let mut texts = Texts::default();
        let mut notes = Vec::new();
        for (name, bytes) in files {
            texts.add(name, bytes.clone());
        }
        // Apart from the configuration's own files, whatever they are called.
        let names = files
            .iter()
            .enumerate()
            .map(|(index, (name, _))| format!("{name} (file {})", index + 1))
            .collect();
        let own = own(&mut texts, names, &mut notes);
        let new: BTreeSet<&RuleName> =
            own.iter().flat_map(|(_, source)| &source.rules.rule).map(|rule| &rule.name).collect();
        let mut sources = self.rule_sources.clone();
        for source in &mut sources {
            source.rules.rule.retain(|rule| !new.contains(&rule.name));
        }
        sources.extend(own.iter().map(|(_, source)| source.clone()));
        let disabled: Vec<RuleName> =
            self.settings.gateway.rules_disabled.iter().filter(|name| !new.contains(name)).cloned().collect();
        let directory = self.settings.directory(&self.profiles);
        let catalogue = directory::catalogue(&self.profiles);
        let (rules, mut findings) = Rules::compile(&sources, &disabled, &directory, &catalogue);
        findings.retain(|finding| own.iter().any(|(_, source)| source.file == finding.file));
        tell(&DeTable::new(), &texts, &own, findings, &mut notes);
        if notes.iter().any(|note| note.weight == Weight::Error) {
            return Err(Report::new(notes, &texts.sources, texts.unreadable));
        }
        Ok(Arc::new(rules))
    }
}
