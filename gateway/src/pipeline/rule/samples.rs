//! Whether expressions fit: each is asked with typed samples of the devices that it will meet, since CEL has no checker.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Expression, Scene, Unanswered, Whom};
use super::rules::Rule;
use crate::model::check::Problem;
use crate::model::ids::PointName;
use crate::model::place::Place;
use crate::model::record::{Quality, Value};
use crate::pipeline::directory::{Directory, Entry, PointType};

/// Sets of samples that are tried.
const SETS: usize = 4;

/// What an expression does not fit, for one device of each profile.
pub(super) fn problems(rule: &Rule, directory: &Directory) -> Vec<Problem> {
    let mut out = Vec::new();
    let mut tried = BTreeSet::new();
    if rule.watches_gateway()
        && let Some(Err(reason)) = rule.when.as_ref().map(gateway_fits)
    {
        out.push(Problem::error(&["when"], format!("it does not fit the box itself: {reason}")));
    }
    for id in &rule.devices {
        let Some(entry) = directory.devices.get(id) else { continue };
        if !tried.insert((&entry.profile, entry.place.floor.is_some())) {
            continue;
        }
        let whom =
            Whom { id: id.as_str(), kind: &entry.kind, profile: entry.profile.as_str(), tags: &entry.tags };
        for (key, expression) in [("when", &rule.when), ("until", &rule.until)] {
            let Some(expression) = expression else { continue };
            if let Err(reason) = fits(rule, expression, whom, entry) {
                let profile = &entry.profile;
                let message =
                    format!("it does not fit device {:?} (profile {profile:?}): {reason}", id.as_str());
                out.push(Problem::error(&[key], message));
                return out;
            }
        }
    }
    out
}

fn fits(rule: &Rule, expression: &Expression, whom: Whom<'_>, entry: &Entry) -> Result<(), String> {
    for set in 0..SETS {
        let points: BTreeMap<PointName, Value> =
            entry.points.iter().map(|(name, kind)| (name.clone(), sample(*kind, set))).collect();
        let value = rule.config.on.point.as_ref().and_then(|point| points.get(point));
        // Profiles do not say what types parameters have: one of them must fit.
        let kinds = [PointType::Int, PointType::Text, PointType::Bool, PointType::Float];
        let mut answers = kinds.into_iter().map(|kind| {
            let params = expression.params.iter().map(|name| (name.clone(), sample(kind, set)));
            let params = params.collect();
            let scene = Scene {
                value,
                quality: Some(Quality::Good),
                points: &points,
                params: &params,
                device: whom,
                place: &entry.place,
            };
            expression.holds(&scene)
        });
        let first = answers.next().unwrap_or(Ok(false));
        let other = !expression.params.is_empty() && answers.any(|answer| answer.is_ok());
        if first.is_err() && !other {
            return Err(match first {
                Err(Unanswered::Missing(name)) => format!("{name:?} is not there{}", near(&name, entry)),
                Err(Unanswered::Misfit(reason)) => reason,
                Ok(_) => return Ok(()),
            });
        }
    }
    Ok(())
}

fn near(name: &str, entry: &Entry) -> String {
    let points = entry.points.keys().map(PointName::as_str);
    super::names::nearest(name, points).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// Values of all sorts, none of which divides by zero by itself.
fn sample(kind: PointType, set: usize) -> Value {
    match kind {
        PointType::Bool => Value::Bool(set.is_multiple_of(2)),
        PointType::Int => Value::Int([1, 40, -7, 1_000].get(set).copied().unwrap_or(1)),
        PointType::Float => Value::Float([1.5, 40.25, -7.5, 1_000.0].get(set).copied().unwrap_or(1.5)),
        PointType::Text => Value::Text(["a", "", "open", "LOCK"].get(set).copied().unwrap_or("a").into()),
    }
}

/// What an expression of a rule on the box itself sees.
fn gateway_fits(expression: &Expression) -> Result<(), String> {
    let (tags, points, place) = (BTreeSet::new(), BTreeMap::new(), Place::default());
    let whom = Whom { id: "gateway", kind: "gateway", profile: "", tags: &tags };
    let answer = |kind| {
        let params = expression.params.iter().map(|name| (name.clone(), sample(kind, 0))).collect();
        let scene = Scene {
            value: None,
            quality: None,
            points: &points,
            params: &params,
            device: whom,
            place: &place,
        };
        expression.holds(&scene)
    };
    let kinds = [PointType::Int, PointType::Text, PointType::Bool, PointType::Float];
    if kinds.into_iter().any(|kind| answer(kind).is_ok()) {
        return Ok(());
    }
    match answer(PointType::Int) {
        Ok(_) => Ok(()),
        Err(Unanswered::Missing(name)) => Err(format!("{name:?} is not there")),
        Err(Unanswered::Misfit(reason)) => Err(reason),
    }
}
