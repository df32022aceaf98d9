//! The journal on a disk that is really full: a small file system in memory, in a mount namespace of its own.
//!
//! The test calls its own program again within `unshare`, which needs no root where the kernel lets users have
//! namespaces. Where neither works it fails and says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::model::record::{Body, Class};
use crate::rt::clock::ManualClock;

use super::super::budget::Budgets;
use super::super::testing::{clock, event, open, records, settle_house, telemetry, uplink};
use super::super::{Core, Rest};
use crate::model::journal::JournalError;

const INSIDE: &str = "GATEHOUSE_SMALL_DISK";
const DISK_BYTES: u64 = 24 * 1024 * 1024;
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// Where the small disk is; none in the outer process, which has run the inner one.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return Some(dir.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"${INSIDE}\" && exec \"$@\"");
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script, "sh"])
        .arg(own)
        .args(["--exact", &format!("store::tests::full_disk::{test}"), "--nocapture"])
        .env(INSIDE, folder.path())
        .output()
        .expect("`unshare` of util-linux");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "the test on the small disk failed, or it could not be mounted:\n{out}\n{err}"
    );
    assert!(out.contains("1 passed"), "the inner process ran something else:\n{out}\n{err}");
    None
}

/// Fills the disk from outside, to the last byte.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("somebody-elses");
    let mut size = DISK_BYTES;
    let mut bytes = Vec::new();
    while size > 0 {
        let more = [bytes.clone(), vec![7; usize::try_from(size).unwrap()]].concat();
        if fs::write(&path, &more).is_ok() {
            bytes = more;
        } else {
            size /= 2;
        }
    }
    // The last try may have cut the file short.
    fs::write(&path, &bytes).unwrap();
    path
}

fn begin(dir: &Path, reserve_bytes: u64) -> (Arc<ManualClock>, Core) {
    let clock = clock();
    let (mut core, _) = open(&dir.join("data"), &clock).unwrap();
    core.keep_within(Budgets { reserve_bytes, ..budgets() }, vec![uplink("city")]);
    settle_house(&mut core);
    (clock, core)
}

fn budgets() -> Budgets {
    let mut budgets = Budgets::unlimited();
    budgets.bytes[Class::Telemetry] = 4 * 1024 * 1024;
    budgets.bytes[Class::Event] = 1024 * 1024;
    budgets
}

pub(super) fn names(core: &Core) -> Vec<String> {
    let events = records(&core.reader().unwrap(), Class::Event);
    let name = |record: crate::model::record::Record| match record.body {
        Body::Event(event) => Some(event.name),
        _ => None,
    };
    events.into_iter().filter_map(name).collect()
}

#[test]
fn a_full_disk_costs_telemetry_and_no_event() {
    let Some(dir) = small_disk("a_full_disk_costs_telemetry_and_no_event") else { return };
    let (clock, mut core) = begin(&dir, RESERVE_BYTES);
    assert!(core.keeper.reserve.as_ref().unwrap().is_held());
    for n in 0..6 {
        core.append((0..500).map(|m| telemetry(&clock, "t1", n * 500 + m)).collect()).unwrap();
    }
    let telemetry_before = core.records(Class::Telemetry);
    let others = fill(&dir);
    let mut stored = 0;
    for n in 0..200 {
        clock.advance_ms(100);
        core.append(vec![event(&clock, "b1", n, None)]).expect("the reserve and forgetting make room");
        stored += 1;
        while !matches!(core.housekeep().unwrap(), Rest::For { .. }) {}
    }
    assert!(!core.keeper.reserve.as_ref().unwrap().is_held(), "the disk was not full at all");
    assert!(core.records(Class::Telemetry) < telemetry_before, "no telemetry was forgotten");
    let pressed = names(&core).iter().filter(|name| *name == "button.pressed").count();
    assert_eq!(pressed, stored, "an event is missing");
    assert!(names(&core).contains(&"store.full".to_owned()));
    assert!(!names(&core).contains(&"store.room".to_owned()));
    fs::remove_file(others).unwrap();
    clock.advance_ms(2_000);
    settle_house(&mut core);
    assert!(core.keeper.reserve.as_ref().unwrap().is_held(), "the reserve is made again when there is room");
    assert!(names(&core).contains(&"store.room".to_owned()));
    let gaps = records(&core.reader().unwrap(), Class::Event);
    let gap = gaps.iter().find_map(|record| match &record.body {
        Body::Gap(gap) if gap.class == Class::Telemetry => Some(gap.clone()),
        _ => None,
    });
    let gap = gap.expect("what was forgotten is told");
    assert_eq!((gap.class, gap.from), (Class::Telemetry, 1));
    assert_eq!(gap.to + 1, core.heads().of(Class::Telemetry).first);
}

#[test]
fn without_a_reserve_a_full_disk_stops_the_journal() {
    // What the reserve is for: if this could go on, the test above would show nothing.
    let Some(dir) = small_disk("without_a_reserve_a_full_disk_stops_the_journal") else { return };
    let (clock, mut core) = begin(&dir, 0);
    for n in 0..6 {
        core.append((0..500).map(|m| telemetry(&clock, "t1", n * 500 + m)).collect()).unwrap();
    }
    fill(&dir);
    let mut refused = None;
    for n in 0..2_000 {
        if let Err(error) = core.append(vec![event(&clock, "b1", n, None)]) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(JournalError::Disk(_))), "{refused:?}");
    assert!(core.keeper.is_full());
}
