//! A JSON value into a point's value: type, scale, range.

use serde_json::Value as Json;

use super::{Point, PointKind};
use crate::model::limits::TEXT_VALUE_BYTES_MAX;
use crate::model::record::Value;
use crate::model::refusal::Refusal;

/// The value of `point`, or why it is none.
pub(super) fn take(point: &Point, json: &Json) -> Result<Value, Refusal> {
    let value = match (point.kind, json) {
        (Some(PointKind::Bool), Json::Bool(value)) => Value::Bool(*value),
        (Some(PointKind::Text), Json::String(text)) => return text_value(text),
        (Some(PointKind::Integer), Json::Number(number)) => {
            Value::Int(whole(number).ok_or(Refusal::WrongType)?)
        }
        (Some(PointKind::Number), Json::Number(number)) => {
            let scaled = number.as_f64().ok_or(Refusal::NotFinite)? * point.scale.unwrap_or(1.0);
            if !scaled.is_finite() {
                return Err(Refusal::NotFinite);
            }
            Value::Float(scaled)
        }
        _ => return Err(Refusal::WrongType),
    };
    let inside =
        |number: f64| point.min.is_none_or(|min| number >= min) && point.max.is_none_or(|max| number <= max);
    #[expect(
        clippy::cast_precision_loss,
        reason = "bounds are small numbers; far from them rounding does not matter"
    )]
    match value {
        Value::Int(number) if !inside(number as f64) => Err(Refusal::OutOfRange),
        Value::Float(number) if !inside(number) => Err(Refusal::OutOfRange),
        value => Ok(value),
    }
}

/// Any plain JSON value, for parameters of events. Null and nested values are none.
pub(super) fn plain(json: &Json) -> Option<Result<Value, Refusal>> {
    match json {
        Json::Bool(value) => Some(Ok(Value::Bool(*value))),
        Json::String(text) => Some(text_value(text)),
        Json::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Value::Int(whole)),
            (None, Some(float)) if float.is_finite() => Ok(Value::Float(float)),
            _ => Err(Refusal::NotFinite),
        }),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn text_value(text: &str) -> Result<Value, Refusal> {
    if text.len() > TEXT_VALUE_BYTES_MAX {
        return Err(Refusal::TextTooLong);
    }
    Ok(Value::Text(text.into()))
}

/// A whole number, also when it is written as `21.0`.
pub(super) fn whole(number: &serde_json::Number) -> Option<i64> {
    /// 2^53: above it not every whole number is a float.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        Some(float as i64)
    })
}
