//! How actions end, and what a restart knows of them.

use super::*;

#[test]
fn what_failed_is_an_alarm_until_the_device_acts_again() {
    let mut actions = actions();
    let button = || alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    asks(&mut actions, &now(1_500), &asked(button(), speak(Near::SameUnit)));
    let report =
        |progress| Report { action: "e-1-rule.1-1".into(), progress, attempt: 1, detail: "x".into() };
    let mut signals = Vec::new();
    actions.reported(&now(2_000), &report(Progress::Retrying), &mut signals);
    assert!(signals.is_empty() && actions.unfinished().len() == 1);
    actions.reported(&now(2_000), &report(Progress::Failed), &mut signals);
    let [Signal::Raise(raise)] = signals.as_slice() else { panic!("{signals:?}") };
    assert_eq!((raise.rule.as_str(), raise.subject.as_str()), (FAILED_RULE, "horn-3-1"));
    assert_eq!(raise.condition.severity, Some(Severity::Major));
    assert!(raise.actions.is_empty(), "a failed action asks for none");
    actions.reported(&now(2_000), &report(Progress::Failed), &mut signals);
    assert_eq!((signals.len(), actions.unfinished().len()), (1, 0), "once");
    asks(&mut actions, &now(3_000), &asked(button(), speak(Near::SameUnit)));
    actions.reported(&now(4_000), &report(Progress::Confirmed), &mut signals);
    actions.done(&now(4_000), (&id("horn-3-1"), "speak"), false, &mut signals);
    assert!(matches!(&signals[1], Signal::Clear(clear) if clear.subject == "horn-3-1"));
}

/// Keeps what it is handed.
#[derive(Debug, Clone, Default)]
struct Taken(Arc<std::sync::Mutex<Vec<(String, bool)>>>);

impl crate::model::action::Outlet for Taken {
    fn hand(&mut self, action: Action, resumed: bool) {
        self.0.lock().unwrap().push((action.id, resumed));
    }

    fn held(&mut self, door: &DeviceId) {
        self.0.lock().unwrap().push((door.to_string(), true));
    }
}

/// A door that a person opens for a moment.
fn persons_pulse() -> Action {
    Action {
        id: "street/c-1.1".into(),
        device: id("door-3-1"),
        deed: Deed::Unlock { pulse_ms: Some(5_000) },
        alarm: None,
        severity: None,
        at: at(1_000),
        act_within_ms: 10_000,
        test: false,
    }
}

#[test]
fn what_a_person_began_is_done_once_and_found_by_a_restart() {
    use crate::model::journal::Fold;
    use crate::pipeline::{Pipeline, Plan};
    let pipeline = |taken: &Taken| {
        let plan = Plan { directory: Arc::new(directory()), ..Plan::default() };
        Pipeline::new(plan, Arc::default(), Box::new(taken.clone()))
    };
    let action = persons_pulse();
    let (first, next) = (Taken::default(), Taken::default());
    let mut before = pipeline(&first);
    before.apply(&record(action.begun_draft(&at(1_000), &Place::default(), Category::Device)));
    let rows = before.unsaved().into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
    before.commit(true);
    assert!(first.0.lock().unwrap().is_empty(), "whoever began it does it");
    let mut after = pipeline(&next);
    after.load(rows);
    after.commit(true);
    assert_eq!(*next.0.lock().unwrap(), [("street/c-1.1".to_owned(), true)]);
}

#[test]
fn a_restart_knows_what_fire_holds_until_a_person_resets_it() {
    use crate::model::journal::Fold;
    use crate::pipeline::{Pipeline, Plan};
    let pipeline = |taken: &Taken| {
        let plan = Plan { directory: Arc::new(directory()), ..Plan::default() };
        Pipeline::new(plan, Arc::default(), Box::new(taken.clone()))
    };
    let order = |id_: &str, deed| Action {
        id: id_.into(),
        device: id("door-3-1"),
        deed,
        alarm: None,
        severity: None,
        at: at(1_000),
        act_within_ms: 600_000,
        test: false,
    };
    let told = |action: &Action, progress| {
        let report = Report { action: action.id.clone(), progress, attempt: 1, detail: String::new() };
        record(report.draft(&at(2_000), action))
    };
    let rows = |pipeline: &Pipeline, stored: &mut BTreeMap<String, String>| {
        for (key, row) in pipeline.unsaved() {
            match row {
                Some(row) => stored.insert(key, row),
                None => stored.remove(&key),
            };
        }
    };
    let mut stored = BTreeMap::new();
    for (progress, locked, held) in [
        (Progress::Failed, None, false),
        (Progress::Unknown, None, true),
        (Progress::Accepted, None, true),
        (Progress::Accepted, Some(Progress::Failed), true),
        (Progress::Accepted, Some(Progress::Confirmed), false),
    ] {
        let (first, next) = (Taken::default(), Taken::default());
        let (hold, lock) = (order("a-1", Deed::Unlock { pulse_ms: None }), order("c-1.1", Deed::Lock));
        let mut before = pipeline(&first);
        before.apply(&record(hold.draft(&at(1_000), &Place::default(), Category::Fire)));
        before.apply(&told(&hold, progress));
        if let Some(progress) = locked {
            // Ordered by a person: no row of it.
            before.apply(&told(&lock, progress));
        }
        stored.clear();
        rows(&before, &mut stored);
        let mut after = pipeline(&next);
        after.load(stored.clone().into_iter().collect());
        let held_then = next.0.lock().unwrap().contains(&("door-3-1".to_owned(), true));
        assert_eq!(held_then, held, "{progress:?} {locked:?}");
    }
}

#[test]
fn a_door_that_stays_shut_in_a_fire_is_an_alarm_at_once() {
    let mut actions = actions();
    let fire = alarm(Category::Fire, Severity::Critical, place("3", "1"));
    asks(&mut actions, &now(1_500), &asked(fire, unlock(Some(Near::SameUnit))));
    let report = Report {
        action: "e-1-rule.1-1".into(),
        progress: Progress::Retrying,
        attempt: 1,
        detail: "x".into(),
    };
    let mut signals = Vec::new();
    actions.reported(&now(2_000), &report, &mut signals);
    assert!(matches!(&signals[..], [Signal::Raise(raise)] if raise.subject == "door-3-1"), "{signals:?}");
    assert_eq!(actions.unfinished().len(), 1, "it is still tried");
}

#[test]
fn a_persons_order_that_fails_is_their_affair_unless_it_leaves_something_on() {
    for (detail, alarms) in [("the device said no".to_owned(), 0), (format!("{}: x", outcome::LEFT_ON), 1)] {
        let mut actions = actions();
        let action = persons_pulse();
        actions.asked(&now(1_500), &action, true);
        let report = Report { action: action.id, progress: Progress::Failed, attempt: 1, detail };
        let mut signals = Vec::new();
        actions.reported(&now(2_000), &report, &mut signals);
        assert_eq!((signals.len(), actions.unfinished().len()), (alarms, 0), "{report:?}");
    }
}

#[test]
fn what_nobody_reports_is_unknown_after_its_time_also_over_a_restart() {
    let mut first = actions();
    let button = alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    asks(&mut first, &now(1_500), &asked(button, speak(Near::SameUnit)));
    let mut rows = Vec::new();
    first.unsaved(&mut rows);
    let mut actions = actions();
    for (key, value) in rows {
        assert!(actions.load(&key, &value.unwrap()));
    }
    assert_eq!(actions.unfinished().len(), 1);
    let (due, key) = actions.next_due().unwrap();
    // Six characters take 12 s at most.
    assert_eq!(due, 1_000 + 30_000 + 12_000 + REPORT_GRACE_MS);
    let (mut signals, mut out) = (Vec::new(), Out::default());
    actions.fire(&now(due), &key, &mut signals, &mut out);
    let report = Report::read(&record(out.drafts.remove(0))).unwrap();
    assert_eq!((report.progress, signals.len(), actions.next_due()), (Progress::Unknown, 1, None));
}

#[test]
fn words_are_not_given_up_while_they_are_said() {
    let speaks = |chars: usize, repeat, clip: Option<&str>| Deed::Speak {
        text: Some("长".repeat(chars)),
        clip: clip.map(str::to_owned),
        volume: 50,
        repeat,
        until: None,
    };
    for (deed, lasts_ms) in [
        (speaks(10, 2, None), 40_000),
        (speaks(0, 2, Some("sos")), 120_000),
        (speaks(200, 20, None), 180_000),
    ] {
        let mut actions = actions();
        let action = Action { deed, act_within_ms: 30_000, ..persons_pulse() };
        actions.asked(&now(1_000), &action, false);
        let due = actions.next_due().unwrap().0;
        assert_eq!(due, 1_000 + 30_000 + lasts_ms + REPORT_GRACE_MS, "{:?}", action.deed);
    }
}

#[test]
fn what_is_left_on_is_an_alarm_and_under_way_until_it_is_at_rest() {
    let mut actions = actions();
    let action = persons_pulse();
    actions.asked(&now(1_500), &action, true);
    let detail = format!("{}: x", outcome::LEFT_ON);
    let report = Report { action: action.id, progress: Progress::Retrying, attempt: 1, detail };
    let mut signals = Vec::new();
    actions.reported(&now(60_000), &report, &mut signals);
    assert!(matches!(&signals[..], [Signal::Raise(raise)] if raise.subject == "door-3-1"), "{signals:?}");
    assert_eq!(actions.unfinished().len(), 1);
    assert_eq!(actions.next_due().unwrap().0, 60_000 + REST_PAUSE_MS_MAX + REPORT_GRACE_MS);
}
