//! The journal against a model, with a fault at each write step: whatever fails, nothing of the commit happened, and
//! the next one works.

use std::collections::{BTreeMap, VecDeque};

use crate::model::cursor::{ClassCursor, Cursors};
use crate::model::ids::{Epoch, Pos, Seq, UplinkName};
use crate::model::limits::DEDUP_KEYS_PER_DEVICE;
use crate::model::record::{Body, Class, Draft, Record, Severity};
use crate::rt::clock::{Clock, ManualClock};

use super::super::notice;
use super::super::testing::{
    Alarms, Fault, Switches, alarm, clock, delete_below, event, keyed, open_with, raises, records, seed,
    telemetry, uplink,
};
use super::super::{Answer, CommandSlot, Core, Op, StoreError};

/// What the journal should hold, in plain maps.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    rows: BTreeMap<(Class, Seq), Record>,
    last: BTreeMap<Class, Seq>,
    /// Last numbers when the file was opened.
    opened: BTreeMap<Class, Seq>,
    pos: Pos,
    epoch: Option<Epoch>,
    keys: BTreeMap<String, VecDeque<String>>,
    cursors: BTreeMap<UplinkName, Cursors>,
    conns: BTreeMap<UplinkName, u64>,
    commands: BTreeMap<(UplinkName, String), ([u8; 32], Option<String>)>,
    seen: Vec<Pos>,
}

impl Model {
    fn epoch(&self) -> Epoch {
        self.epoch.expect("an open journal")
    }

    fn store(&mut self, draft: &Draft) {
        let (class, epoch) = (draft.body.class(), self.epoch());
        let seq = self.last.entry(class).or_default();
        *seq += 1;
        self.pos += 1;
        let (pos, seq) = (self.pos, *seq);
        let record = Record {
            pos,
            epoch,
            class,
            seq,
            at: draft.at.clone(),
            test: draft.test,
            body: draft.body.clone(),
        };
        self.rows.insert((class, seq), record.clone());
        self.seen.push(pos);
        if raises(&record.body) {
            self.store(&alarm(&record).expect("an event"));
        }
    }

    fn append(&mut self, drafts: &[Draft]) -> Answer {
        let mut repeated = 0;
        for draft in drafts {
            if let (Some(key), Some(device)) = (&draft.dedup, draft.body.device()) {
                let ring = self.keys.entry(device.id.to_string()).or_default();
                if ring.contains(key) {
                    repeated += 1;
                    continue;
                }
                ring.push_back(key.clone());
                if ring.len() > DEDUP_KEYS_PER_DEVICE {
                    ring.pop_front();
                }
            }
            self.store(draft);
        }
        Answer::Committed(crate::model::journal::Committed { last_pos: self.pos, repeated })
    }

    /// Does `op`; `answered` tells what nobody can know before: the random epoch.
    fn run(&mut self, op: &Op, answered: &Answer, clock: &ManualClock) -> Answer {
        match op {
            Op::Append { drafts } => self.append(drafts),
            Op::Restore { .. } => panic!("the model has no memory journal"),
            Op::SaveCursors { uplink, cursors } => {
                self.cursors.insert(uplink.clone(), cursors.clone());
                Answer::Done
            }
            Op::Settle { uplink, cursors, drafts } => {
                self.cursors.insert(uplink.clone(), cursors.clone());
                self.append(drafts)
            }
            Op::NextConn { uplink, at_least } => {
                let highest = self.conns.values().copied().max().unwrap_or(0);
                let conn = (highest + 1).max(*at_least);
                self.conns.insert(uplink.clone(), conn);
                Answer::Conn(conn)
            }
            Op::Fork { reason } => {
                let Answer::Forked(epoch) = answered else { panic!("{answered:?}") };
                let old = self.epoch.replace(*epoch).expect("an open journal");
                for ((class, seq), record) in &mut self.rows {
                    if *seq > self.opened.get(class).copied().unwrap_or(0) {
                        record.epoch = *epoch;
                    }
                }
                self.store(&notice::restored(&clock.now(), old, reason));
                Answer::Forked(*epoch)
            }
            Op::BeginCommand { uplink, id, body_hash } => {
                let key = (uplink.clone(), id.clone());
                Answer::Slot(match self.commands.get(&key) {
                    None => {
                        self.commands.insert(key, (*body_hash, None));
                        CommandSlot::New
                    }
                    Some((hash, outcome)) if hash == body_hash => {
                        CommandSlot::Known { outcome: outcome.clone() }
                    }
                    Some(_) => CommandSlot::Conflict,
                })
            }
            Op::EndCommand { uplink, id, outcome } => {
                if let Some(known) = self.commands.get_mut(&(uplink.clone(), id.clone())) {
                    known.1 = Some(outcome.clone());
                }
                Answer::Done
            }
            Op::Forget(_) => panic!("only housekeeping forgets"),
        }
    }

    fn assert_same(&self, core: &Core, fold: &Alarms) {
        let reader = core.reader().unwrap();
        let found: BTreeMap<_, _> = Class::ALL
            .iter()
            .flat_map(|class| records(&reader, *class))
            .map(|record| ((record.class, record.seq), record))
            .collect();
        for (key, record) in &self.rows {
            assert_eq!(found.get(key), Some(record), "at {key:?}");
        }
        assert_eq!(found.len(), self.rows.len(), "there is more than was answered for");
        let heads = core.heads();
        assert_eq!(heads, reader.heads().unwrap());
        assert_eq!((heads.pos(), heads.epoch()), (self.pos, self.epoch()));
        for class in Class::ALL {
            let head = heads.of(class);
            let last = self.last.get(&class).copied().unwrap_or(0);
            let first = self.rows.keys().filter(|(of, _)| *of == class).map(|(_, seq)| *seq).min();
            assert_eq!((head.first, head.last), (first.unwrap_or(last + 1), last), "{class:?}");
        }
        for (name, cursors) in &self.cursors {
            assert_eq!(reader.cursors(name).unwrap().as_ref(), Some(cursors));
        }
        for (name, conn) in &self.conns {
            assert_eq!(reader.last_conn(name).unwrap(), *conn);
        }
        let seen = fold.seen.lock().unwrap();
        assert_eq!(seen.committed, self.seen, "what the fold keeps is what is stored");
        assert!(seen.pending.is_empty());
    }
}

fn any_draft(rng: &mut fastrand::Rng, clock: &ManualClock) -> Draft {
    let (device, n) = (format!("d{}", rng.u8(..3)), rng.i64(0..1_000));
    match rng.u8(..6) {
        0 | 1 => telemetry(clock, &device, n),
        2 => event(clock, &device, n, None),
        3 => event(clock, &device, n, Some(Severity::Critical)),
        _ => keyed(clock, &device, &format!("k{}", rng.u8(..48))),
    }
}

fn any_op(rng: &mut fastrand::Rng, clock: &ManualClock) -> Op {
    let name = uplink(if rng.bool() { "city" } else { "street" });
    let id = format!("c{}", rng.u8(..12));
    let mut cursors = Cursors::default();
    let at = ClassCursor { live_next: rng.u64(..1_000), ..ClassCursor::default() };
    cursors.classes.insert(Class::Event, at);
    let drafts = |rng: &mut fastrand::Rng| (0..rng.usize(1..8)).map(|_| any_draft(rng, clock)).collect();
    match rng.u8(..16) {
        0 => Op::SaveCursors { uplink: name, cursors },
        1 => Op::Settle { uplink: name, cursors, drafts: drafts(rng) },
        2 => Op::NextConn { uplink: name, at_least: rng.u64(..20) },
        3 if rng.u8(..4) == 0 => Op::Fork { reason: "a test".to_owned() },
        4 => Op::BeginCommand { uplink: name, id, body_hash: [rng.u8(..2); 32] },
        5 => Op::EndCommand { uplink: name, id, outcome: format!("{{\"n\":{}}}", rng.u8(..)) },
        _ => Op::Append { drafts: drafts(rng) },
    }
}

fn commit(core: &mut Core, ops: &[Op], model: &mut Model, clock: &ManualClock) -> Result<(), StoreError> {
    let answers = core.commit(ops)?;
    for (op, answer) in ops.iter().zip(&answers) {
        assert_eq!(&model.run(op, answer, clock), answer, "{op:?}");
    }
    Ok(())
}

/// After a failed commit and the next one, which does nothing: if the fault struck behind COMMIT's last write, the
/// model gets what was committed without an answer. Every commit that is made to fail stores a record, so that its
/// position tells.
fn settle(core: &mut Core, ops: &[Op], model: &mut Model, clock: &ManualClock) -> bool {
    core.commit(&[]).unwrap();
    let late = core.heads().pos() != model.pos;
    if late {
        let forked = Answer::Forked(core.heads().epoch());
        for op in ops {
            model.run(op, &forked, clock);
        }
    }
    late
}

#[test]
fn random_operations_with_faults_match_the_model() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let fold = Alarms::default();
    let open = |fold: &Alarms| open_with(dir.path(), &clock, "m1", Box::new(fold.clone())).unwrap();
    let (mut core, opened) = open(&fold);
    let mut model = Model { epoch: Some(opened.epoch), ..Model::default() };
    let mut switches = Switches::install(&mut core);
    let mut failed = 0;
    for round in 0..300_i64 {
        clock.advance_ms(rng.u64(1..2_000));
        match rng.u8(..20) {
            0 => {
                drop(core);
                core = open(&fold).0;
                switches = Switches::install(&mut core);
                model.opened = model.last.clone();
            }
            1 => {
                core.reopen().unwrap();
                switches = Switches::install(&mut core);
            }
            2 => {
                forget(&mut core, &mut model, &mut rng);
                switches = Switches::install(&mut core);
            }
            _ => {}
        }
        let ops: Vec<Op> = (0..rng.usize(1..6)).map(|_| any_op(&mut rng, &clock)).collect();
        let fault = match rng.u8(..6) {
            0 | 1 => Some(Fault::Step(rng.i64(0..600))),
            2 => Some(Fault::Commit),
            3 => Some(Fault::Full),
            _ => None,
        };
        let ops = match fault {
            Some(_) => [ops, vec![Op::Append { drafts: vec![event(&clock, "b1", round, None)] }]].concat(),
            None => ops,
        };
        if let Some(fault) = fault {
            switches.set(&mut core, fault);
            let done = commit(&mut core, &ops, &mut model, &clock);
            switches.clear(&mut core);
            if done.is_err() {
                failed += 1;
                settle(&mut core, &ops, &mut model, &clock);
            }
            assert!(done.as_ref().err().is_none_or(|error| !error.is_damage()), "{fault:?}: {done:?}");
        } else {
            commit(&mut core, &ops, &mut model, &clock).unwrap();
        }
        if round % 10 == 0 || fault.is_some() {
            model.assert_same(&core, &fold);
        }
    }
    model.assert_same(&core, &fold);
    assert!(failed > 40, "only {failed} faults struck");
}

/// Deletes the oldest rows of a class, as a budget will.
fn forget(core: &mut Core, model: &mut Model, rng: &mut fastrand::Rng) {
    let class = Class::ALL[rng.usize(..3)];
    let last = model.last.get(&class).copied().unwrap_or(0);
    let below = if rng.u8(..3) == 0 { last + 1 } else { rng.u64(..=last) };
    delete_below(core, class, below);
    model.rows.retain(|(of, seq), _| *of != class || *seq >= below);
}

#[test]
fn a_fault_at_each_single_step_changes_nothing() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let fold = Alarms::default();
    let (mut core, opened) = open_with(dir.path(), &clock, "m1", Box::new(fold.clone())).unwrap();
    let mut model = Model { epoch: Some(opened.epoch), ..Model::default() };
    let city = uplink("city");
    let ops = [
        Op::Append {
            drafts: vec![
                event(&clock, "b1", 1, Some(Severity::Critical)),
                keyed(&clock, "b1", "k1"),
                telemetry(&clock, "t1", 2),
            ],
        },
        Op::Settle {
            uplink: city.clone(),
            cursors: Cursors::default(),
            drafts: vec![event(&clock, "b2", 3, None)],
        },
        Op::NextConn { uplink: city.clone(), at_least: 0 },
        Op::BeginCommand { uplink: city, id: "c1".to_owned(), body_hash: [7; 32] },
    ];
    let switches = Switches::install(&mut core);
    let mut steps = 0;
    loop {
        switches.set(&mut core, Fault::Step(steps));
        let done = commit(&mut core, &ops, &mut model, &clock);
        switches.clear(&mut core);
        if done.is_ok() {
            break;
        }
        let error = super::super::error::in_full(&done.unwrap_err());
        assert!(error.contains("interrupt"), "at step {steps}: {error}");
        steps += 1;
        if settle(&mut core, &ops, &mut model, &clock) {
            break;
        }
        if steps % 16 == 0 {
            model.assert_same(&core, &fold);
        }
        assert_eq!(core.heads().pos(), 0, "after a fault at step {steps}");
    }
    println!("{steps} steps");
    assert!(steps > 100, "the commit took {steps} steps only");
    assert_eq!(i64::try_from(fold.seen.lock().unwrap().rolled_back).unwrap(), steps);
    model.assert_same(&core, &fold);
    assert!(matches!(&records(&core.reader().unwrap(), Class::Alarm)[0].body, Body::Alarm(_)));
}

#[test]
fn what_a_failed_commit_left_after_all_is_shown_to_the_fold() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let fold = Alarms::default();
    let (mut core, _) = open_with(dir.path(), &clock, "m1", Box::new(fold.clone())).unwrap();
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    // As if COMMIT had failed in the eyes of this process, and yet the row is there.
    core.conn()
        .execute_batch(
            "INSERT INTO event SELECT 2, 2, boot, mono_ms, wall_ms, trust, test, category, severity, device, body \
             FROM event WHERE seq = 1",
        )
        .unwrap();
    core.reopen().unwrap();
    assert_eq!(core.heads().of(Class::Event).last, 2);
    assert_eq!(fold.seen.lock().unwrap().committed, [1, 2]);
    assert_eq!(core.append(vec![event(&clock, "b1", 3, None)]).unwrap().last_pos, 3);
}

#[test]
fn a_file_that_lost_what_was_committed_is_taken_for_a_copy() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let fold = Alarms::default();
    let (mut core, opened) = open_with(dir.path(), &clock, "m1", Box::new(fold.clone())).unwrap();
    core.append(vec![event(&clock, "b1", 1, None), event(&clock, "b1", 2, None)]).unwrap();
    core.conn().execute_batch("DROP TRIGGER event_forgotten; DELETE FROM event WHERE seq = 2").unwrap();
    let error = core.reopen().unwrap_err();
    assert!(error.is_damage(), "{error}");
    drop(core);
    let (_core, again) = open_with(dir.path(), &clock, "m1", Box::new(fold)).unwrap();
    assert!(matches!(again.how, super::super::How::Restored { old, .. } if old == opened.epoch), "{again:?}");
}
