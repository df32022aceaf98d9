//! Whether expressions fit: each is asked with typed samples of the devices that it will meet, since CEL has no checker.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Expression, Literals, Scene, Unanswered, Whom};
use super::rules::Rule;
use crate::model::check::Problem;
use crate::model::ids::PointName;
use crate::model::place::Place;
use crate::model::record::{Quality, Value};
use crate::pipeline::directory::{Directory, Entry, PointType};

/// Questions to one expression for one device, with each way to give its parameters types. All samples of three points
/// with one number each come together in fewer.
const ROUNDS_MAX: usize = 400;

/// Types that a parameter may have.
const KINDS: [PointType; 4] = [PointType::Int, PointType::Text, PointType::Bool, PointType::Float];

/// Parameters of one expression whose types are all tried with each other's.
const PARAMS_MAX: usize = 4;

pub(super) const QUALITIES: [Quality; 4] = [Quality::Good, Quality::Uncertain, Quality::Stale, Quality::Bad];

/// What an expression does not fit, for one device of each profile.
pub(super) fn problems(rule: &Rule, directory: &Directory) -> Vec<Problem> {
    let mut out = Vec::new();
    let mut tried = BTreeSet::new();
    if rule.watches_gateway()
        && let Some(Err(reason)) = rule.when.as_ref().map(|when| gateway_fits(rule, when))
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

/// An expression about values alone fits if it answers for all of them. Profiles do not say what types parameters have:
/// one type for each of them must fit.
fn fits(rule: &Rule, expression: &Expression, whom: Whom<'_>, entry: &Entry) -> Result<(), String> {
    let own = rule.config.on.point.as_ref().filter(|_| expression.names("value"));
    let kind = |name: &str| entry.points.get(&PointName::new(name).ok()?).copied();
    let value = own.and_then(|point| kind(point.as_str()));
    if let Some(reason) = super::sides::never(&expression.compared, value, kind) {
        return Err(reason);
    }
    let named = expression.points.iter().filter_map(|name| PointName::new(name).ok());
    let points: BTreeMap<PointName, Vec<Value>> = named
        .chain(own.cloned())
        .filter_map(|name| {
            let kind = *entry.points.get(&name)?;
            Some((name, samples(kind, &expression.literals)))
        })
        .collect();
    let mut first = None;
    for kinds in 0..ways(expression) {
        let params: Vec<(&String, Vec<Value>)> = kinds_of(expression, kinds);
        match fits_all(expression, rule, &points, &params, whom, &entry.place) {
            Ok(()) => return Ok(()),
            Err(reason) => first = first.or(Some(reason)),
        }
    }
    match first {
        // So many parameters that not all ways were tried: what does not fit is counted when it happens.
        Some(_) if expression.params.len() > PARAMS_MAX => Ok(()),
        Some(Unanswered::Missing(name)) => Err(format!("{name:?} is not there{}", near(&name, entry))),
        Some(Unanswered::Misfit(reason) | Unanswered::Beyond(reason)) => Err(reason),
        None => Ok(()),
    }
}

/// How many ways there are to give each parameter a type.
fn ways(expression: &Expression) -> usize {
    let params = u32::try_from(expression.params.len().min(PARAMS_MAX)).unwrap_or(0);
    KINDS.len().pow(params)
}

/// Each parameter with its samples, in one of these ways.
fn kinds_of(expression: &Expression, way: usize) -> Vec<(&String, Vec<Value>)> {
    let mut rest = way;
    let kind = |name| {
        let kind = KINDS.get(rest % KINDS.len()).copied().unwrap_or(PointType::Int);
        rest /= KINDS.len();
        (name, samples(kind, &expression.literals))
    };
    expression.params.iter().map(kind).collect()
}

/// Asks with one sample of each after another: all of them together, where they are not too many.
fn fits_all(
    expression: &Expression,
    rule: &Rule,
    points: &BTreeMap<PointName, Vec<Value>>,
    params: &[(&String, Vec<Value>)],
    whom: Whom<'_>,
    place: &Place,
) -> Result<(), Unanswered> {
    let qualities: &[Quality] = if expression.names("quality") { &QUALITIES } else { &[Quality::Good] };
    let lengths = points.values().chain(params.iter().map(|(_, samples)| samples)).map(Vec::len);
    let lengths: Vec<usize> = [qualities.len()].into_iter().chain(lengths).collect();
    let all = lengths.iter().fold(1_usize, |all, length| all.saturating_mul(*length));
    for round in 0..all.min(ROUNDS_MAX) {
        let picks = picks(round, &lengths, all <= ROUNDS_MAX);
        let (quality, rest) = picks.split_first().map_or((0, [].as_slice()), |(first, rest)| (*first, rest));
        let (of_points, of_params) = rest.split_at(points.len().min(rest.len()));
        let chosen = |samples: &[Value], pick: usize| samples.get(pick).cloned();
        let values: BTreeMap<PointName, Value> = points
            .iter()
            .zip(of_points)
            .filter_map(|((name, samples), pick)| Some((name.clone(), chosen(samples, *pick)?)))
            .collect();
        let params = params
            .iter()
            .zip(of_params)
            .filter_map(|((name, samples), pick)| Some(((*name).clone(), chosen(samples, *pick)?)))
            .collect();
        let scene = Scene {
            value: rule.config.on.point.as_ref().and_then(|point| values.get(point)),
            quality: qualities.get(quality).copied(),
            points: &values,
            params: &params,
            device: whom,
            place,
        };
        match expression.holds(&scene) {
            Ok(_) | Err(Unanswered::Beyond(_)) => {}
            Err(reason) => return Err(reason),
        }
    }
    Ok(())
}

/// Which sample of each is asked about in a round. Where there are too many rounds, each goes through its own at another
/// pace, so that most pairs come together.
fn picks(round: usize, lengths: &[usize], all: bool) -> Vec<usize> {
    let mut rest = round;
    let pick = |(index, length): (usize, &usize)| {
        let length = (*length).max(1);
        if all {
            let pick = rest % length;
            rest /= length;
            pick
        } else {
            round.wrapping_mul(2 * index + 1).wrapping_add(round / length) % length
        }
    };
    lengths.iter().enumerate().map(pick).collect()
}

/// What a device and its place have beside points.
const FIELDS: [&str; 10] =
    ["id", "kind", "profile", "tags", "code", "grid", "building", "unit", "floor", "household"];

fn near(name: &str, entry: &Entry) -> String {
    let points = entry.points.keys().map(PointName::as_str);
    super::names::nearest(name, points.chain(FIELDS))
        .map(|near| format!("; did you mean {near:?}?"))
        .unwrap_or_default()
}

/// Values of all sorts, and those around what stands in the expression: what is asked behind `value > 1500 &&` is asked
/// only beyond it.
fn samples(kind: PointType, literals: &Literals) -> Vec<Value> {
    match kind {
        PointType::Bool => vec![Value::Bool(true), Value::Bool(false)],
        PointType::Int => {
            let near = literals.ints.iter().copied().chain(literals.floats.iter().map(|n| whole(*n)));
            let near = near.flat_map(|n| [n.saturating_sub(1), n, n.saturating_add(1)]);
            let mut all = vec![1, 40, -7, 1_000];
            all.extend(near);
            once(all).into_iter().map(Value::Int).collect()
        }
        PointType::Float => {
            let ints = literals.ints.iter().map(|n| fraction(*n));
            let mut numbers: Vec<f64> = ints.chain(literals.floats.iter().copied()).collect();
            numbers.sort_by(f64::total_cmp);
            let between = numbers.iter().zip(numbers.iter().skip(1)).map(|(a, b)| f64::midpoint(*a, *b));
            let mut all = vec![1.5, 40.25, -7.5, 1_000.0];
            all.extend(between);
            all.extend(numbers.iter().flat_map(|n| [n - 1.0, *n, n + 1.0]));
            once(all).into_iter().map(Value::Float).collect()
        }
        PointType::Text => {
            let texts = literals.texts.iter().map(String::as_str);
            let all: Vec<&str> = ["a", "", "open", "LOCK"].into_iter().chain(texts).collect();
            once(all).into_iter().map(|text| Value::Text(text.into())).collect()
        }
    }
}

/// Each once, in their order.
fn once<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut out = Vec::with_capacity(all.len());
    for one in all {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}

#[expect(clippy::cast_possible_truncation, reason = "floats saturate")]
const fn whole(number: f64) -> i64 {
    number as i64
}

#[expect(clippy::cast_precision_loss, reason = "a sample need not be exact")]
const fn fraction(number: i64) -> f64 {
    number as f64
}

/// What an expression of a rule on the box itself sees.
fn gateway_fits(rule: &Rule, expression: &Expression) -> Result<(), String> {
    let (tags, place) = (BTreeSet::new(), Place::default());
    let whom = Whom { id: "gateway", kind: "gateway", profile: "", tags: &tags };
    let mut first = None;
    for way in 0..ways(expression) {
        let params = kinds_of(expression, way);
        match fits_all(expression, rule, &BTreeMap::new(), &params, whom, &place) {
            Ok(()) => return Ok(()),
            Err(reason) => first = first.or(Some(reason)),
        }
    }
    match first {
        Some(_) if expression.params.len() > PARAMS_MAX => Ok(()),
        Some(Unanswered::Missing(name)) => Err(format!("{name:?} is not there")),
        Some(Unanswered::Misfit(reason) | Unanswered::Beyond(reason)) => Err(reason),
        None => Ok(()),
    }
}
