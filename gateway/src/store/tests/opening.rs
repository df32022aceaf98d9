//! Damage, copies, other versions, two processes.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::model::record::{Body, Class, Record, Severity, Value};

use super::super::schema;
use super::super::testing::{Image, clock, event, open, open_on, records, uplink};
use super::super::witness;
use super::super::{Core, How, Reader, StoreError};

fn damaged(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<PathBuf> =
        names.filter(|path| path.file_name().unwrap().to_str().unwrap().contains("damaged")).collect();
    names.sort();
    names
}

fn first_event(core: &Core) -> Record {
    records(&core.reader().unwrap(), Class::Event).into_iter().next().unwrap()
}

fn assert_tells(record: &Record, name: &str) {
    let Body::Event(event) = &record.body else { panic!("{record:?}") };
    assert_eq!((event.name.as_str(), event.severity), (name, Some(Severity::Critical)));
    assert_eq!(event.device.id.as_str(), "gateway");
    assert!(matches!(event.params.get("reason"), Some(Value::Text(reason)) if !reason.is_empty()));
}

/// Ruins a journal of a few hundred records by `ruin`, opens it, and expects a new one that says so.
fn check_set_aside(ruin: impl FnOnce(&Path)) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, before) = open(dir.path(), &clock).unwrap();
    for n in 0..100 {
        core.append(vec![event(&clock, "b1", n, None); 3]).unwrap();
    }
    let conn = core.next_conn(&uplink("city"), 41).unwrap();
    drop(core);
    let path = dir.path().join("journal.db");
    ruin(&path);
    let ruined = fs::read(&path).ok();
    let (mut core, opened) = open(dir.path(), &clock).unwrap();
    let How::Reset { set_aside, .. } = &opened.how else { panic!("{opened:?}") };
    let kept = set_aside.as_ref().and_then(|path| fs::read(path).ok());
    assert!(kept == ruined, "its bytes are kept");
    assert_ne!(opened.epoch, before.epoch);
    let first = first_event(&core);
    assert_eq!((first.pos, first.seq, first.epoch), (1, 1, opened.epoch));
    assert_tells(&first, "store.reset");
    assert!(core.next_conn(&uplink("city"), 0).unwrap() > conn, "a platform ignores lower numbers");
    drop(core);
    assert_eq!(open(dir.path(), &clock).unwrap().1.how, How::Existing, "it is told once");
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    check_set_aside(|path| {
        fs::write(path, "this is not a database, and longer than a header".repeat(200)).unwrap();
    });
}

#[test]
fn a_file_with_a_ruined_page_is_set_aside() {
    check_set_aside(|path| {
        let mut bytes = fs::read(path).unwrap();
        let pages = bytes.len() / 4_096;
        assert!(pages > 20);
        for page in [pages / 2, pages - 2] {
            bytes[page * 4_096..(page + 1) * 4_096].fill(0xa5);
        }
        fs::write(path, bytes).unwrap();
    });
}

#[test]
fn a_file_cut_short_is_set_aside() {
    check_set_aside(|path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(3 * 4_096 + 100).unwrap();
    });
}

#[test]
fn a_file_that_vanished_is_told() {
    check_set_aside(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_database_of_something_else_is_set_aside() {
    check_set_aside(|path| {
        fs::remove_file(path).unwrap();
        Connection::open(path).unwrap().execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
    });
}

#[test]
fn a_journal_without_its_epoch_is_set_aside() {
    check_set_aside(|path| Connection::open(path).unwrap().execute_batch("DELETE FROM epoch").unwrap());
}

#[test]
fn names_of_what_is_set_aside_differ_though_the_clock_stands_still() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    for round in 0..3 {
        let (core, _) = open(dir.path(), &clock).unwrap();
        drop(core);
        fs::write(dir.path().join("journal.db"), format!("ruined {round}").repeat(500)).unwrap();
    }
    let (_core, _) = open(dir.path(), &clock).unwrap();
    let names: Vec<_> = damaged(dir.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    let base = "journal.damaged-20260601-000000";
    assert_eq!(
        names,
        [base.to_owned(), format!("{base}-2"), format!("{base}-3")].map(std::ffi::OsString::from)
    );
    for (round, path) in damaged(dir.path()).iter().enumerate() {
        assert!(fs::read_to_string(path).unwrap().starts_with(&format!("ruined {round}")));
    }
}

#[test]
fn a_wal_left_alone_is_set_aside_before_a_new_file_could_swallow_it() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    let image = Image::take(dir.path());
    assert!(!image.wal.is_empty());
    let crashed = image.lay();
    fs::remove_file(crashed.path().join("journal.db")).unwrap();
    let (core, opened) = open(crashed.path(), &clock).unwrap();
    assert!(matches!(opened.how, How::Reset { set_aside: Some(_), .. }), "{opened:?}");
    assert!(fs::read(&damaged(crashed.path())[0]).unwrap() == image.wal, "its bytes are kept");
    assert_tells(&first_event(&core), "store.reset");
}

#[test]
fn a_file_that_looks_whole_but_cannot_be_written_is_not_tried_for_ever() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (core, _) = open(dir.path(), &clock).unwrap();
    drop(core);
    witness::raise_suspicion(dir.path()).unwrap();
    let (core, opened) = open(dir.path(), &clock).unwrap();
    assert_eq!(opened.how, How::Existing, "once, it is looked at closely and used");
    drop(core);
    witness::raise_suspicion(dir.path()).unwrap();
    let (mut core, opened) = open(dir.path(), &clock).unwrap();
    assert!(matches!(opened.how, How::Reset { set_aside: Some(_), .. }), "{opened:?}");
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    assert_eq!(witness::suspicion(dir.path()), 0);
}

#[test]
fn a_commit_that_succeeds_lifts_the_suspicion() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    drop(open(dir.path(), &clock).unwrap());
    witness::raise_suspicion(dir.path()).unwrap();
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    assert_eq!(witness::suspicion(dir.path()), 1, "opening alone proves nothing");
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    assert_eq!(witness::suspicion(dir.path()), 0);
}

#[test]
fn damage_met_while_writing_is_noted_for_the_next_start() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    for n in 0..50 {
        core.append(vec![event(&clock, "b1", n, None)]).unwrap();
    }
    core.conn()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 0; PRAGMA shrink_memory")
        .unwrap();
    let mut bytes = fs::read(core.path()).unwrap();
    for page in bytes.chunks_mut(4_096).skip(1) {
        page.fill(0x5a);
    }
    fs::write(core.path(), bytes).unwrap();
    let error = core.commit(&[super::super::Op::Append { drafts: vec![event(&clock, "b1", 99, None)] }]);
    assert!(error.as_ref().is_err_and(StoreError::is_damage), "{error:?}");
    assert_eq!(witness::suspicion(dir.path()), 1);
    drop(core);
    let (_core, opened) = open(dir.path(), &clock).unwrap();
    assert!(matches!(opened.how, How::Reset { set_aside: Some(_), .. }), "{opened:?}");
}

#[test]
fn an_older_schema_is_not_read_before_it_is_migrated() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    drop(open(dir.path(), &clock).unwrap());
    let path = dir.path().join("journal.db");
    let older = schema::VERSION - 1;
    Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA user_version = {older}")).unwrap();
    let error = Reader::open(dir.path()).unwrap_err();
    assert!(!error.is_damage() && error.to_string().contains("start the gateway once"), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    drop(open(dir.path(), &clock).unwrap());
    let path = dir.path().join("journal.db");
    let newer = schema::VERSION + 1;
    Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA user_version = {newer}")).unwrap();
    let error = open(dir.path(), &clock).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, .. } if found == newer), "{error}");
    assert!(error.to_string().contains("install the version that wrote it"), "{error}");
    assert!(damaged(dir.path()).is_empty());
    let left: i64 =
        Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(left, newer);
}

/// Without comments and with single spaces.
fn plain(sql: &str) -> String {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn migrations_lead_to_the_schema() {
    let tables = |conn: &Connection| -> Vec<(String, String)> {
        let mut statement =
            conn.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
        rows.map(|row| row.map(|(name, sql)| (name, plain(&sql))).unwrap()).collect()
    };
    let (made, migrated) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
    schema::create(&made).unwrap();
    schema::step_up(&migrated, 0).unwrap();
    assert_eq!(tables(&made), tables(&migrated));
    assert!(tables(&made).len() > 9);
    for conn in [&made, &migrated] {
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, schema::VERSION);
    }
}

#[test]
fn a_new_file_has_the_settings_that_cannot_be_changed_later() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, opened) = open(dir.path(), &clock).unwrap();
    assert_eq!(opened.how, How::New);
    let mut pragma = |name: &str| -> String {
        core.conn()
            .pragma_query_value(None, name, |row| {
                row.get::<_, rusqlite::types::Value>(0).map(|value| match value {
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Integer(int) => int.to_string(),
                    other => format!("{other:?}"),
                })
            })
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2", "FULL");
    assert_eq!(pragma("auto_vacuum"), "2", "INCREMENTAL");
    assert_eq!(pragma("page_size"), "4096");
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (_core, _) = open(dir.path(), &clock).unwrap();
    let error = open(dir.path(), &clock).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn an_old_copy_put_back_begins_a_new_epoch() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, first) = open(dir.path(), &clock).unwrap();
    core.next_conn(&uplink("city"), 0).unwrap();
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    let old = Image::take(dir.path());
    core.append(vec![event(&clock, "b1", 2, None)]).unwrap();
    core.next_conn(&uplink("city"), 0).unwrap();
    let new = Image::take(dir.path());
    drop(core);
    let put_back = Image { witness: new.witness, ..old }.lay();
    let (mut core, opened) = open(put_back.path(), &clock).unwrap();
    let How::Restored { old, reason } = &opened.how else { panic!("{opened:?}") };
    assert_eq!(*old, first.epoch);
    assert!(reason.contains("connection 2"), "{reason}");
    let events = records(&core.reader().unwrap(), Class::Event);
    assert_eq!(events[0].epoch, first.epoch, "what is old keeps its name");
    assert_tells(&events[1], "store.restored");
    assert_eq!((events[1].seq, events[1].epoch), (2, opened.epoch));
    assert_eq!(core.next_conn(&uplink("city"), 0).unwrap(), 3, "above all that the directory has seen");
    drop(core);
    assert_eq!(open(put_back.path(), &clock).unwrap().1.how, How::Existing, "it is told once");
}

#[test]
fn a_copy_from_before_a_fork_is_recognised_without_any_connection() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let old = Image::take(dir.path());
    core.fork_epoch("a test").unwrap();
    let new = Image::take(dir.path());
    assert_ne!(old.witness, new.witness);
    let put_back = Image { witness: new.witness.clone(), ..old.clone() }.lay();
    assert!(matches!(open(put_back.path(), &clock).unwrap().1.how, How::Restored { .. }));
    // A crash between the fork and its witness is no copy.
    let crashed = Image { witness: old.witness, ..new }.lay();
    assert_eq!(open(crashed.path(), &clock).unwrap().1.how, How::Existing);
}

#[test]
fn a_journal_on_another_machine_begins_a_new_epoch() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, first) = open_on(dir.path(), &clock, "m1").unwrap();
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    drop(core);
    let (core, opened) = open_on(dir.path(), &clock, "m2").unwrap();
    assert!(matches!(opened.how, How::Restored { old, .. } if old == first.epoch), "{opened:?}");
    drop(core);
    assert_eq!(open_on(dir.path(), &clock, "m2").unwrap().1.how, How::Existing);
}

#[test]
fn a_used_journal_without_its_witness_is_a_copy() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    drop(open(dir.path(), &clock).unwrap());
    fs::remove_file(dir.path().join("journal.witness")).unwrap();
    let (mut core, opened) = open(dir.path(), &clock).unwrap();
    assert_eq!(opened.how, How::Existing, "an unused one has nothing to confuse");
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    drop(core);
    fs::remove_file(dir.path().join("journal.witness")).unwrap();
    assert!(matches!(open(dir.path(), &clock).unwrap().1.how, How::Restored { .. }));
}
