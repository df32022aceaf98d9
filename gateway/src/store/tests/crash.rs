//! Images as a crash leaves them: the files copied at a moment, with writes torn that were not synced yet. Whatever
//! was answered before is there, a commit is there as a whole or not at all, and nothing looks damaged or restored.

use std::sync::Arc;

use crate::model::record::Class;
use crate::rt::clock::ManualClock;

use super::super::testing::{Image, clock, event, open, records, seed, telemetry, torn, uplink};
use super::super::{Core, How};

/// Pages of the WAL after which it is written back: small, so that images fall around that too.
const CHECKPOINT_PAGES: u32 = 24;

const COMMITS: i64 = 60;

/// What a reader may find: everything of a class by its texts, and the last connection number.
#[derive(Debug, Clone, PartialEq)]
struct Contents {
    bodies: Vec<String>,
    epoch: crate::model::ids::Epoch,
    conn: u64,
}

fn contents(core: &Core) -> Contents {
    let reader = core.reader().unwrap();
    let mut bodies = Vec::new();
    for class in Class::ALL {
        for (record, seq) in records(&reader, class).iter().zip(1..) {
            assert_eq!(record.seq, seq, "a gap in {class:?}");
            bodies.push(format!("{} {} {:?} {:?}", record.id(), record.pos, record.at, record.body));
        }
    }
    let conn = reader.last_conn(&uplink("city")).unwrap();
    Contents { bodies, epoch: core.heads().epoch(), conn }
}

/// Opens an image and tells what is in it; it can be written, too.
fn reopen(image: &Image, clock: &Arc<ManualClock>) -> Contents {
    let dir = image.lay();
    let (mut core, opened) = open(dir.path(), clock).unwrap();
    assert_eq!(opened.how, How::Existing);
    let found = contents(&core);
    let before = core.heads().of(Class::Event).last;
    core.append(vec![event(clock, "after", 0, None)]).unwrap();
    assert_eq!(core.heads().of(Class::Event).last, before + 1);
    found
}

fn commit_something(core: &mut Core, clock: &ManualClock, rng: &mut fastrand::Rng, n: i64) {
    clock.advance_ms(rng.u64(1..5_000));
    if rng.u8(..8) == 0 {
        core.next_conn(&uplink("city"), 0).unwrap();
    } else {
        let count = rng.i64(1..12);
        let drafts = (0..count).map(|k| match rng.u8(..3) {
            0 => telemetry(clock, "t1", n * 100 + k),
            _ => event(clock, "b1", n * 100 + k, None),
        });
        let drafts = drafts.collect();
        core.append(drafts).unwrap();
    }
}

#[test]
fn an_image_after_any_commit_holds_all_of_it() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.conn().execute_batch(&format!("PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")).unwrap();
    let mut resets = 0;
    for n in 0..COMMITS {
        let salt = Image::take(dir.path()).wal.get(..32).map(<[u8]>::to_vec);
        commit_something(&mut core, &clock, &mut rng, n);
        let image = Image::take(dir.path());
        resets += usize::from(salt.as_deref() != image.wal.get(..32));
        assert_eq!(reopen(&image, &clock), contents(&core), "after commit {n}");
    }
    assert!(resets > 1, "the WAL was never begun again: nothing was tested around it");
}

#[test]
fn a_torn_write_leaves_the_commit_before_it_or_the_whole_commit() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.conn().execute_batch(&format!("PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")).unwrap();
    let (mut olds, mut news) = (0, 0);
    for n in 0..COMMITS {
        let (before, old) = (Image::take(dir.path()), contents(&core));
        commit_something(&mut core, &clock, &mut rng, n);
        let (after, new) = (Image::take(dir.path()), contents(&core));
        for _ in 0..3 {
            // The WAL is written from some place on; what the disk took of it ends anywhere.
            let cut = rng.usize(..=after.wal.len());
            let image = Image {
                db: before.db.clone(),
                wal: torn(&after.wal, &before.wal, cut),
                witness: before.witness.clone(),
            };
            let found = reopen(&image, &clock);
            assert!(found == old || found == new, "commit {n}, WAL cut at {cut} of {}", after.wal.len());
            olds += usize::from(found == old);
            news += usize::from(found == new);
        }
        // The write-back to the database is torn page by page; the WAL is whole then.
        let mut db = after.db.clone();
        for (page, old) in db.chunks_mut(4_096).zip(before.db.chunks(4_096)) {
            if page.len() == old.len() && rng.bool() {
                page.copy_from_slice(old);
            }
        }
        let image = Image { db, wal: after.wal.clone(), witness: after.witness.clone() };
        assert_eq!(reopen(&image, &clock), new, "commit {n}, write-back torn");
    }
    assert!(olds > 0 && news > 0, "only one side was seen: {olds} old, {news} new");
}
