//! What is seen in households under care, and stays in the box; what goes to one platform alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::*;
use super::fixtures as f;
use crate::model::action::{Action, Deed, Progress, Report};
use crate::model::audit::{Ended, Entry};
use crate::model::command::{Actor, Origin};
use crate::model::ids::UplinkName;
use crate::model::place::Place;
use crate::model::record::*;
use crate::north::config::{Filter, PlaceField};

#[test]
fn the_everyday_talk_of_sensors_of_care_stays_in_the_box() {
    let record = |severity: Option<Severity>| {
        let mut record = f::event(1, 0);
        if let Body::Event(event) = &mut record.body {
            event.severity = severity;
        }
        record
    };
    let device = record(None).body.device().unwrap().id.clone();
    let open = View::with_key(&f::uplink(), &Filter::default(), None);
    let private = Private { devices: [device.clone()].into(), away: BTreeMap::new() };
    let shut = open.clone().keeping_private(Arc::new(private));
    let everyday = record(None);
    assert!(open.sees(&everyday) && !shut.sees(&everyday));
    assert!(shut.sees(&record(Some(Severity::Critical))), "a call for help leaves");
    let telemetry = Body::Telemetry(Telemetry {
        device: everyday.body.device().unwrap().clone(),
        place: Place::default(),
        samples: Vec::new(),
    });
    assert!(open.sees_body(&telemetry) && !shut.sees_body(&telemetry));
    // A question to the household is none of the platform's business; other actions are.
    let action = |id: &str| Action {
        id: id.to_owned(),
        device: everyday.body.device().unwrap().id.clone(),
        deed: Deed::Hush,
        alarm: None,
        severity: None,
        at: f::stamp(1),
        act_within_ms: 1,
        test: false,
    };
    for (id, leaves) in [("e-1-b3-302-care-ask.1", false), ("e-1-smoke.1", true)] {
        let action = action(id);
        let report = Report {
            action: id.to_owned(),
            progress: Progress::Confirmed,
            attempt: 1,
            detail: String::new(),
        };
        let at = f::stamp(1);
        for draft in [action.draft(&at, &Place::default(), Category::Care), report.draft(&at, &action)] {
            assert_eq!(shut.sees_body(&draft.body), leaves, "{id}");
        }
    }
}

#[test]
fn a_platform_gets_its_own_trail_whatever_else_it_may_see_and_no_other_platforms() {
    let of = |uplink: &UplinkName| Entry {
        command: "c-1".to_owned(),
        verb: "door.open".to_owned(),
        actor: Actor {
            operator: "duty-07".to_owned(),
            source: Origin::Platform(uplink.clone()),
            reason: "visitor".to_owned(),
        },
        args: "{}".to_owned(),
    };
    let filters = ["", "buildings = [\"3\"]", "categories = [\"fire\"]", "classes = [\"event\"]"];
    for (filter, gets) in
        filters.map(|filter| (filter, true)).into_iter().chain([("classes = [\"alarm\"]", false)])
    {
        let view = View::with_key(&f::uplink(), &toml::from_str(filter).unwrap(), None);
        let other = UplinkName::new("another").unwrap();
        for (entry, sees) in [(of(&f::uplink()), gets), (of(&other), false)] {
            for draft in [entry.ordered(&f::stamp(1)), entry.ended(&f::stamp(1), &Ended::default())] {
                assert_eq!(view.sees_body(&draft.body), sees, "{filter}: {entry:?}");
            }
        }
    }
}

#[test]
fn that_somebody_is_away_leaves_to_nobody() {
    let (leaving, other) = (f::event(1, 0), f::event(2, 0));
    let Body::Event(event) = &leaving.body else { panic!("{leaving:?}") };
    assert!(event.severity.is_some(), "the gravest case");
    let away = [(event.device.id.clone(), [event.name.clone()].into())].into();
    let private = Arc::new(Private { devices: [event.device.id.clone()].into(), away });
    for care_signals in [false, true] {
        let filter = Filter { care_signals, ..Filter::default() };
        let view = View::with_key(&f::uplink(), &filter, None).keeping_private(Arc::clone(&private));
        assert!(!view.sees(&leaving), "care_signals = {care_signals}");
        let mut other = other.clone();
        if let Body::Event(event) = &mut other.body {
            (event.name, event.severity) = ("contact.opened".to_owned(), None);
        }
        assert_eq!(view.sees(&other), care_signals);
    }
}

#[test]
fn the_section_of_a_household_is_hidden_like_its_number() {
    let record = f::event(1, 0);
    let Body::Event(event) = &record.body else { panic!("{record:?}") };
    let named: BTreeMap<String, Value> = [("care".to_owned(), Value::Text("b3-302".into()))].into();
    let seen = |view: &View| view.params(&named, &event.place, "c").get("care").cloned();
    let view = |filter: &Filter| View::with_key(&f::uplink(), filter, None);
    assert_eq!(seen(&view(&Filter::default())), Some(Value::Text("b3-302".into())));
    assert_eq!(seen(&view(&Filter { hide: vec![PlaceField::Household], ..Filter::default() })), None);
    let Some(Value::Text(pseudonym)) = seen(&f::pseudonymous()) else { panic!("no text") };
    assert!(pseudonym.starts_with("p-") && !pseudonym.contains("302"), "{pseudonym}");
}
