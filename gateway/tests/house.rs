//! The house plan: which part may import which (docs/ARCHITECTURE.md, "The map"). Reads the `use` lines and the
//! `crate::` paths of every source file; unit tests at the end of a file or in `tests.rs` may reach further.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test that reads source files of ours")]

use std::fs;
use std::path::{Path, PathBuf};

/// Part of the house and the parts it may name. `model` and `rt` are open to everything but each other's upper floor.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("rt", &["model"]),
    ("south", &["model", "rt"]),
    ("pipeline", &["model"]),
    ("infer", &["model"]),
    ("store", &["model", "rt"]),
    ("north", &["model", "rt", "store"]),
    ("console", &["model", "rt", "store"]),
    ("desk", &["model", "rt", "pipeline"]),
    ("config", &["model", "rt", "south", "pipeline", "north", "store"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Parts named by `crate::part` in the text before its tests.
fn named_parts(text: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let groups = rest.strip_prefix('{').map_or_else(
                || vec![rest],
                |list| list.split('}').next().unwrap_or_default().split(',').collect(),
            );
            for group in groups {
                let part: String =
                    group.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                named.push((number + 1, part));
            }
        }
    }
    named
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs" || name == "simulation.rs")
}

#[test]
fn every_import_keeps_to_the_house_plan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in files.iter().filter(|path| !is_test(path)) {
        let inside = path.strip_prefix(&root).unwrap();
        let part = inside.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == part) else {
            let open = part == "cmd" || part == "main.rs" || part == "lib.rs";
            assert!(open, "{part} has no row in the house plan");
            continue;
        };
        for (line, named) in named_parts(&fs::read_to_string(path).unwrap()) {
            seen += 1;
            if named != part && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}:{line}: {part} must not know {named}", inside.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were seen: the reader is broken");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn sql_stands_in_the_store_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for path in files {
        let inside = path.strip_prefix(&root).unwrap();
        if inside.starts_with("store") || is_test(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("rusqlite"), "{} names rusqlite", inside.display());
    }
}

/// Where wall time may be named: it is data, shown, published, stored and judged. Nothing that waits, retries or gives up
/// is among them (promise G8).
const WALL_TIME: &[&str] = &[
    "cmd/journal.rs",
    // The past that rules are tried on: records by their stamps.
    "cmd/rulebook.rs",
    "cmd/rehearse.rs",
    "console/status.rs",
    "model/clock.rs",
    "model/stamp.rs",
    "north/contract/down.rs",
    "north/contract/envelope.rs",
    "north/contract/status.rs",
    "north/link/asking.rs",
    // Signatures, and the times that people read.
    "north/notify/mod.rs",
    "north/notify/post.rs",
    "north/notify/sign.rs",
    "north/notify/words.rs",
    // The time off between two boots, where both clocks could be trusted.
    "pipeline/time.rs",
    // The hours of the day in which a rule looks, and those of a rule's test.
    "pipeline/rule/hours.rs",
    "pipeline/rule/trial.rs",
    "rt/clock.rs",
    "rt/keeper.rs",
    "rt/timesource.rs",
    "store/age.rs",
    "store/forget.rs",
    "store/memory.rs",
    // The stamp that fuzzing maps with.
    "south/profile/map.rs",
    "store/open.rs",
    "store/reader.rs",
    "store/row.rs",
    "store/stage.rs",
    "store/walk.rs",
    "store/witness.rs",
];

#[test]
fn nothing_waits_by_wall_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut named = Vec::new();
    for path in files.iter().filter(|path| !is_test(path)) {
        let inside = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if inside.contains("/simulation/") || inside == "store/testing.rs" {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap();
        let names =
            |word: &str| code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
        assert!(inside == "rt/clock.rs" || !names("SystemTime"), "{inside} reads a clock past rt::clock");
        if names("wall_ms") {
            named.push(inside);
        }
    }
    let strange: Vec<&String> = named.iter().filter(|file| !WALL_TIME.contains(&file.as_str())).collect();
    assert!(strange.is_empty(), "wall time is data; who names it stands on the list: {strange:?}");
    assert!(named.len() > 10, "only {} files name wall time: the reader is broken", named.len());
}

#[test]
fn the_reader_of_imports_sees_them() {
    let text = "use crate::store::Store;\n// crate::north\nuse crate::{rt, south::device};\n#[cfg(test)]\nuse crate::cmd;";
    let parts: Vec<String> = named_parts(text).into_iter().map(|(_, part)| part).collect();
    assert_eq!(parts, ["store", "rt", "south"]);
}
