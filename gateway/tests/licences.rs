//! Holds that everything that is linked has a licence from deny.toml's list, by the licence that each crate declares.
//!
//! `cargo deny` looks deeper (licence texts, bans, advisories), but is not on every machine; this needs cargo alone.

#![expect(clippy::unwrap_used, reason = "a test stops where its premise fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What boxes run, and what developers run.
const TARGETS: [&str; 2] = ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn names(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// What every crate may have, and what one crate alone may have.
fn allowed() -> (BTreeSet<String>, BTreeMap<String, BTreeSet<String>>) {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Table = text.parse().unwrap();
    let licenses = &deny["licenses"];
    let exceptions = licenses["exceptions"].as_array().unwrap().iter();
    let alone = exceptions.map(|one| (one["crate"].as_str().unwrap().to_owned(), names(&one["allow"])));
    (names(&licenses["allow"]), alone.collect())
}

/// Crates of the tree for one target, as (name, licence expression).
fn crates(target: &str) -> Vec<(String, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Packages lists every target's; the graph only what this one needs.
    let nodes: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| nodes.contains(package["id"].as_str().unwrap()))
        .map(|package| {
            let name =
                format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
            (name, package["license"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

/// Whether an SPDX expression can be met by allowed licences alone. AND binds tighter than OR; an old `/` is an OR. An
/// exception (`WITH …`) only ever permits more.
fn met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    let met = either(&mut words, allowed);
    met && words.is_empty()
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, allowed);
    while let Some(("OR", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while let Some(("AND", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let Some((word, rest)) = words.split_first() else { return false };
    *words = rest;
    if *word == "(" {
        let met = either(words, allowed);
        let closed = words.first() == Some(&")");
        *words = words.get(1..).unwrap_or_default();
        return met && closed;
    }
    if let [keyword, _exception, rest @ ..] = *words
        && *keyword == "WITH"
    {
        *words = rest;
    }
    allowed.contains(*word)
}

#[test]
fn every_crate_has_an_allowed_licence() {
    let (allowed, alone) = allowed();
    let is_met = |name: &str, licence: &str| {
        let own = alone.get(name.split(' ').next().unwrap());
        met(licence, &allowed.iter().chain(own.into_iter().flatten()).cloned().collect())
    };
    for target in TARGETS {
        let crates = crates(target);
        assert!(crates.len() > 100, "the tree for {target} has only {} crates", crates.len());
        let refused: Vec<_> = crates.iter().filter(|(name, licence)| !is_met(name, licence)).collect();
        assert!(refused.is_empty(), "not allowed by deny.toml, for {target}: {refused:#?}");
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "Apache-2.0", "ISC"].map(str::to_owned).into();
    let check =
        |expression: &str, expected: bool| assert_eq!(met(expression, &allowed), expected, "{expression}");
    check("MIT", true);
    check("MIT OR GPL-3.0-only", true);
    check("GPL-3.0-only/MIT", true);
    check("MIT AND GPL-3.0-only", false);
    check("GPL-3.0-only OR MIT AND ISC", true);
    check("GPL-3.0-only AND MIT OR GPL-2.0-only", false);
    check("GPL-3.0-only AND (MIT OR ISC)", false);
    check("(MIT OR GPL-3.0-only) AND ISC", true);
    check("Apache-2.0 WITH LLVM-exception AND MIT", true);
    check("GPL-2.0-only WITH Classpath-exception-2.0", false);
    check("", false);
    check("(MIT", false);
    check("MIT ISC", false);
}
