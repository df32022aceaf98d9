//! What clock records leave behind: known at the next start, whatever becomes of the records.

use crate::model::clock::{ClockChange, ClockSource, Clocks};
use crate::model::ids::BootId;
use crate::model::limits::CLOCK_BOOTS_MAX;
use crate::model::record::Class;
use crate::model::stamp::{ClockTrust, Stamp};
use crate::rt::clock::{Clock, ManualClock};
use crate::store::testing::{Fault, Switches, clock, delete_below, event, open};

fn change(at: Stamp, confirmed: bool) -> ClockChange {
    ClockChange {
        at,
        source: ClockSource::Chrony,
        confirmed,
        before: None,
        jumped_ms: 0,
        withdrawn: false,
        uplink: None,
    }
}

fn boot(number: usize) -> BootId {
    BootId(format!("{number:032x}").into())
}

fn trusted(clock: &ManualClock, number: usize) -> Stamp {
    clock.reboot(boot(number), 1_795_327_200_000, ClockTrust::Ntp);
    clock.now()
}

#[test]
fn clock_records_are_known_after_they_are_forgotten() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    assert_eq!(core.reader().unwrap().clocks().unwrap(), Clocks::default());
    let mut expected = Clocks::default();
    for number in 0..CLOCK_BOOTS_MAX + 9 {
        let change = change(trusted(&clock, number), true);
        expected.note(&change);
        core.append(vec![event(&clock, "b1", 1, None), change.draft()]).unwrap();
    }
    assert_eq!(core.reader().unwrap().clocks().unwrap(), expected);
    delete_below(&mut core, Class::Event, u64::MAX >> 1);
    assert_eq!(core.reader().unwrap().clocks().unwrap(), expected);
    drop(core);
    let (core, _) = open(dir.path(), &clock).unwrap();
    let clocks = core.reader().unwrap().clocks().unwrap();
    assert_eq!(clocks, expected);
    assert_eq!(clocks.of(&boot(8)), None, "the oldest boots are given up");
    assert!(clocks.of(&boot(9)).is_some());
}

#[test]
fn a_clock_record_that_was_not_committed_is_not_known() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let change = change(trusted(&clock, 1), true);
    let switches = Switches::install(&mut core);
    switches.set(&mut core, Fault::Commit);
    assert!(core.append(vec![change.draft()]).is_err());
    switches.clear(&mut core);
    core.reopen().unwrap();
    assert_eq!(core.reader().unwrap().clocks().unwrap(), Clocks::default());
    core.append(vec![change.draft()]).unwrap();
    assert_eq!(core.reader().unwrap().clocks().unwrap().of(&boot(1)).unwrap().best, change.after());
}

#[test]
fn the_last_records_under_ntp_confirm_their_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append(vec![change(trusted(&clock, 1), true).draft()]).unwrap();
    clock.advance_ms(86_400_000);
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    let confirmed_ms = |core: &crate::store::Core| core.reader().unwrap().clocks().unwrap().confirmed_ms();
    assert_eq!(confirmed_ms(&core), Some(clock.now().wall_ms), "no clock record for a day");
    clock.set_trust(ClockTrust::Platform);
    clock.jump_wall_ms(86_400_000);
    core.append(vec![event(&clock, "b1", 2, None)]).unwrap();
    assert_eq!(confirmed_ms(&core), Some(1_795_327_200_000), "what one platform says confirms nothing");
}
