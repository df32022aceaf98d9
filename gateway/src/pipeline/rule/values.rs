//! Rules on values: which values are relied on, what is kept of them, and when a condition begins and ends by them.

use std::collections::BTreeMap;

use super::engine::{Engine, Turn, Whose, key_of, scene};
use super::rules::{Rule, Rules, Watched};
use super::signals;
use super::state::{Kept, keys, subject};
use crate::model::ids::PointName;
use crate::model::record::{Quality, Sample, Telemetry, Value};
use crate::pipeline::directory::{Entry, PointType};

impl Engine {
    pub(super) fn values(
        &mut self,
        rules: &Rules,
        watched: &Watched,
        turn: &mut Turn<'_>,
        whose: &Whose<'_>,
        told: &Telemetry,
    ) {
        for sample in told.samples.iter().filter(|sample| watched.kept.contains(&sample.point)) {
            self.keep(whose, sample);
        }
        let points = if watched.kept.is_empty() { BTreeMap::new() } else { self.points_of(whose) };
        let mut touched: Vec<usize> = told
            .samples
            .iter()
            .filter_map(|sample| watched.points.get(&sample.point))
            .flatten()
            .copied()
            .collect();
        touched.sort_unstable();
        touched.dedup();
        for rule in touched.into_iter().filter_map(|index| rules.get(index)) {
            self.judge(rules, rule, turn, whose, told, &points);
        }
        // What a driver repeats of a silent device is no word of it.
        if told.samples.iter().any(|sample| sample.quality == Quality::Good) {
            self.anything(rules, watched, turn, whose);
        }
    }

    fn keep(&mut self, whose: &Whose<'_>, sample: &Sample) {
        let key = format!("{}/{}", whose.id, sample.point);
        match sample.value.as_ref().filter(|_| usable(sample.quality)) {
            Some(value) => self
                .kept
                .put(&key, Kept { value: typed(value, whose.entry, &sample.point), quality: sample.quality }),
            None => self.kept.remove(&key),
        }
    }

    fn points_of(&self, whose: &Whose<'_>) -> BTreeMap<PointName, Value> {
        let begin = format!("{}/", whose.id);
        let rows = self.kept.beginning(&begin);
        rows.filter_map(|(key, kept)| {
            Some((PointName::new(key.rsplit('/').next()?).ok()?, kept.value.clone()))
        })
        .collect()
    }

    /// Judges the values that a rule looks at.
    fn judge(
        &mut self,
        rules: &Rules,
        rule: &Rule,
        turn: &mut Turn<'_>,
        whose: &Whose<'_>,
        told: &Telemetry,
        points: &BTreeMap<PointName, Value>,
    ) {
        let seen = match &rule.config.on.point {
            Some(point) => match self.value_of(point, whose, told, rule) {
                Some(seen) => Some((point, seen)),
                None => return,
            },
            None => None,
        };
        let (value, quality) = match &seen {
            Some((_, (value, quality))) => (value.as_ref(), Some(*quality)),
            None => (None, None),
        };
        let params = BTreeMap::new();
        let scene = scene(whose, value, quality, points, &params);
        let when = rule.when.as_ref().map_or(Ok(true), |when| rules.answer(rule, when, &scene));
        if rule.config.absent_s.is_some() {
            if when == Ok(true) {
                self.heard(rule, turn, whose);
            }
            return;
        }
        if !self.holds(&key_of(&rule.config, whose), whose.id) && when == Ok(true) {
            let shown = seen.as_ref().map(|(point, (value, _))| (*point, value.as_ref()));
            let event = signals::of_values(&rule.config, whose.device, whose.place, shown, points);
            return self.begin(rule, turn, whose, event, true);
        }
        let subject = subject(rule.config.per, whose.id, whose.place);
        if !keys(rule.config.name.as_str(), &subject).iter().any(|key| self.holds(key, whose.id)) {
            return;
        }
        let over = match &rule.until {
            Some(until) => rules.answer(rule, until, &scene) == Ok(true),
            None => when == Ok(false),
        };
        if over {
            self.end(rule, turn, whose.id, whose.place);
        }
    }

    /// Whether a rule's condition holds at a device, explained or not.
    fn holds(&self, key: &str, id: &str) -> bool {
        let standing = self.standing.get(key);
        standing.is_some_and(|standing| standing.holding.contains(id) || standing.explained.contains(id))
    }

    /// The value that a rule's own point has now. One that cannot be relied on neither begins nor ends anything, unless
    /// the rule asks for the quality itself.
    fn value_of(
        &self,
        point: &PointName,
        whose: &Whose<'_>,
        told: &Telemetry,
        rule: &Rule,
    ) -> Option<(Option<Value>, Quality)> {
        let asks = rule.expressions().any(|expression| expression.names("quality"));
        match told.samples.iter().rev().find(|sample| sample.point == *point) {
            Some(sample) if asks || (usable(sample.quality) && sample.value.is_some()) => {
                let value = sample.value.as_ref().map(|value| typed(value, whose.entry, point));
                Some((value, sample.quality))
            }
            Some(_) => None,
            None => {
                let kept = self.kept.get(&format!("{}/{point}", whose.id))?;
                Some((Some(kept.value.clone()), kept.quality))
            }
        }
    }
}

fn usable(quality: Quality) -> bool {
    matches!(quality, Quality::Good | Quality::Uncertain)
}

/// A value as expressions see it: a whole number of a point that tells fractions is one of those.
#[expect(clippy::cast_precision_loss, reason = "beyond 53 bits a measured value has no digits left to lose")]
fn typed(value: &Value, entry: Option<&Entry>, point: &PointName) -> Value {
    let float = entry.and_then(|entry| entry.points.get(point)) == Some(&PointType::Float);
    match value {
        Value::Int(number) if float => Value::Float(*number as f64),
        other => other.clone(),
    }
}
