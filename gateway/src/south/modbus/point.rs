//! From registers and bits to what a point says, and back for outputs. Pure; property-tested.

use std::time::Duration;

use super::frame::{Request, Table};
use crate::model::ids::PointName;
use crate::model::record::{QualityReason, Value};
use crate::model::refusal::Refusal;
use crate::south::profile::modbus::{Bands, Contact, ModbusProfile, WordOrder};
use crate::south::profile::{Point, PointKind, Profile};

/// A point as the driver needs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) name: PointName,
    pub(super) table: Table,
    /// With the device's offset.
    pub(super) at: u16,
    /// Registers, or 1 bit.
    pub(super) count: u16,
    pub(super) unit: Option<String>,
    pub(super) deadband: f64,
    pub(super) heartbeat: Duration,
    pub(super) debounce: Duration,
    pub(super) write: bool,
    form: Form,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// One bit; `inverted` for a normally closed contact.
    Flag {
        bit: Option<u8>,
        inverted: bool,
    },
    Number(Number),
    /// A measured loop.
    Loop {
        number: Number,
        bands: Bands,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Number {
    kind: PointKind,
    order: WordOrder,
    scale: Option<f64>,
    offset: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

/// The state of a supervised loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loop {
    Normal,
    Active,
    Open,
    Short,
}

/// What a point said at one reading.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Value(Value),
    Loop(Loop),
    /// There is no value: what the sample says, and what is counted.
    Nothing {
        quality: QualityReason,
        reason: Refusal,
    },
}

/// Bits or registers of one point, as they were read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw<'a> {
    Bits(&'a [bool]),
    Words(&'a [u16]),
}

/// All points of a profile for a device whose addresses begin `offset` later. Points without a place, or beyond the
/// last address, are left out: `check` refuses them.
pub(super) fn readings(profile: &Profile, modbus: &ModbusProfile, offset: u16) -> Vec<Reading> {
    let points = profile.points.iter();
    points.filter_map(|(name, point)| Reading::new(name, point, modbus, offset)).collect()
}

impl Reading {
    fn new(name: &PointName, point: &Point, modbus: &ModbusProfile, offset: u16) -> Option<Self> {
        let (table, at) = match (point.coil, point.discrete, point.input, point.holding) {
            (Some(at), ..) => (Table::Coil, at),
            (_, Some(at), ..) => (Table::Discrete, at),
            (_, _, Some(at), _) => (Table::Input, at),
            (.., Some(at)) => (Table::Holding, at),
            _ => return None,
        };
        let number = Number {
            kind: point.kind.unwrap_or(PointKind::U16),
            order: point.word_order.unwrap_or(modbus.word_order),
            scale: point.scale,
            offset: point.offset,
            min: point.min,
            max: point.max,
        };
        let form = match &point.bands {
            Some(bands) => Form::Loop { number, bands: bands.clone() },
            None if point.is_flag() => {
                Form::Flag { bit: point.bit, inverted: point.contact == Some(Contact::Nc) }
            }
            None => Form::Number(number),
        };
        let digital = !matches!(form, Form::Number(_));
        let debounce_ms = point.debounce_ms.unwrap_or(if digital { modbus.debounce_ms } else { 0 });
        Some(Self {
            name: name.clone(),
            table,
            at: at.checked_add(offset)?,
            count: if table.bits() { 1 } else { point.words() },
            unit: point.unit.clone(),
            deadband: point.deadband.unwrap_or(0.0),
            heartbeat: Duration::from_secs(point.heartbeat_s.unwrap_or(modbus.heartbeat_s).into()),
            debounce: Duration::from_millis(debounce_ms.into()),
            write: point.write,
            form,
        })
    }

    /// Whether it is a digital input: a plain one or a loop.
    pub(super) const fn digital(&self) -> bool {
        !matches!(self.form, Form::Number(_))
    }

    /// What it says now. `before` is the loop's state so far, whose band is wider by the hysteresis.
    pub(super) fn decode(&self, raw: Raw<'_>, before: Option<Loop>) -> Said {
        match (&self.form, raw) {
            (Form::Flag { inverted, .. }, Raw::Bits([on])) => Said::Value(Value::Bool(on ^ inverted)),
            (Form::Flag { bit, inverted }, Raw::Words([word])) => {
                let on = bit.map_or(*word != 0, |bit| word >> (bit & 15) & 1 == 1);
                Said::Value(Value::Bool(on ^ inverted))
            }
            (Form::Number(number), Raw::Words(words)) => match number.value(words) {
                Ok(value) => Said::Value(value),
                Err(reason) => nothing(reason),
            },
            (Form::Loop { number, bands }, Raw::Words(words)) => match number.value(words) {
                Ok(value) => in_band(bands, float(&value), before),
                Err(reason) => nothing(reason),
            },
            _ => nothing(Refusal::FrameMalformed),
        }
    }

    /// The request that writes `value`.
    ///
    /// # Errors
    /// The value does not fit the point.
    pub(super) fn write(&self, value: &Value) -> Result<Request, Refusal> {
        match (&self.form, value) {
            (Form::Flag { bit: None, inverted }, Value::Bool(on)) => Ok(match self.table {
                Table::Coil => Request::WriteCoil { at: self.at, on: on ^ inverted },
                _ => Request::WriteRegister { at: self.at, word: u16::from(on ^ inverted) },
            }),
            (Form::Number(number), Value::Int(_) | Value::Float(_)) => {
                let words = number.words(value)?;
                Ok(match words.as_slice() {
                    [word] => Request::WriteRegister { at: self.at, word: *word },
                    _ => Request::WriteRegisters { at: self.at, words },
                })
            }
            _ => Err(Refusal::WrongType),
        }
    }
}

const fn nothing(reason: Refusal) -> Said {
    let quality = match reason {
        Refusal::OutOfRange => QualityReason::OutOfRange,
        Refusal::NotFinite => QualityReason::NotFinite,
        _ => QualityReason::DeviceFailed,
    };
    Said::Nothing { quality, reason }
}

fn in_band(bands: &Bands, value: f64, before: Option<Loop>) -> Said {
    let states = [
        (Loop::Normal, Some(bands.normal)),
        (Loop::Active, Some(bands.active)),
        (Loop::Open, bands.open),
        (Loop::Short, bands.short),
    ];
    let inside = |[low, high]: [f64; 2], margin: f64| (low - margin..=high + margin).contains(&value);
    let kept = states.iter().find(|(state, band)| {
        Some(*state) == before && band.is_some_and(|band| inside(band, bands.hysteresis))
    });
    let found = kept.or_else(|| states.iter().find(|(_, band)| band.is_some_and(|band| inside(band, 0.0))));
    found.map_or_else(
        || Said::Nothing { quality: QualityReason::OutOfRange, reason: Refusal::BetweenBands },
        |(state, _)| Said::Loop(*state),
    )
}

/// A number as a float, for comparing and scaling: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "far from bounds and deadbands rounding does not matter")]
pub(super) fn float(value: &Value) -> f64 {
    match value {
        Value::Int(whole) => *whole as f64,
        Value::Float(float) => *float,
        Value::Bool(on) => f64::from(u8::from(*on)),
        Value::Text(_) => f64::NAN,
    }
}

impl Number {
    fn value(&self, words: &[u16]) -> Result<Value, Refusal> {
        let bytes = ordered(words, self.order);
        let raw = match self.kind {
            PointKind::I16 => Value::Int(i16::from_be_bytes(take(&bytes)?).into()),
            PointKind::U32 => Value::Int(u32::from_be_bytes(take(&bytes)?).into()),
            PointKind::I32 => Value::Int(i32::from_be_bytes(take(&bytes)?).into()),
            PointKind::U64 => {
                let whole = u64::from_be_bytes(take(&bytes)?);
                Value::Int(i64::try_from(whole).map_err(|_too_large| Refusal::OutOfRange)?)
            }
            PointKind::I64 => Value::Int(i64::from_be_bytes(take(&bytes)?)),
            PointKind::F32 => Value::Float(f32::from_be_bytes(take(&bytes)?).into()),
            PointKind::F64 => Value::Float(f64::from_be_bytes(take(&bytes)?)),
            _ => Value::Int(u16::from_be_bytes(take(&bytes)?).into()),
        };
        let value = match (self.scale, self.offset) {
            (None, None) => raw,
            (scale, offset) => Value::Float(float(&raw) * scale.unwrap_or(1.0) + offset.unwrap_or(0.0)),
        };
        let number = float(&value);
        if !number.is_finite() {
            return Err(Refusal::NotFinite);
        }
        if self.min.is_some_and(|min| number < min) || self.max.is_some_and(|max| number > max) {
            return Err(Refusal::OutOfRange);
        }
        Ok(value)
    }

    /// The registers of a value: the way back.
    fn words(&self, value: &Value) -> Result<Vec<u16>, Refusal> {
        let number = float(value);
        if !number.is_finite() {
            return Err(Refusal::NotFinite);
        }
        if self.min.is_some_and(|min| number < min) || self.max.is_some_and(|max| number > max) {
            return Err(Refusal::OutOfRange);
        }
        let scaled = self.scale.is_some() || self.offset.is_some();
        let raw = (number - self.offset.unwrap_or(0.0)) / self.scale.unwrap_or(1.0);
        let whole = match value {
            Value::Int(whole) if !scaled => *whole,
            _ => rounded(raw)?,
        };
        let bytes = match self.kind {
            PointKind::F32 => narrow(raw)?.to_be_bytes().to_vec(),
            PointKind::F64 => raw.to_be_bytes().to_vec(),
            PointKind::I16 => fit::<i16>(whole)?.to_be_bytes().to_vec(),
            PointKind::U32 => fit::<u32>(whole)?.to_be_bytes().to_vec(),
            PointKind::I32 => fit::<i32>(whole)?.to_be_bytes().to_vec(),
            PointKind::U64 => fit::<u64>(whole)?.to_be_bytes().to_vec(),
            PointKind::I64 => whole.to_be_bytes().to_vec(),
            _ => fit::<u16>(whole)?.to_be_bytes().to_vec(),
        };
        let words: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        // Every order is its own inverse.
        Ok(ordered(&words, self.order)
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect())
    }
}

/// The bytes of a value, highest first.
fn ordered(words: &[u16], order: WordOrder) -> Vec<u8> {
    let low_first = matches!(order, WordOrder::Cdab | WordOrder::Dcba);
    let swapped = matches!(order, WordOrder::Badc | WordOrder::Dcba);
    let bytes = |word: &u16| if swapped { word.to_le_bytes() } else { word.to_be_bytes() };
    if low_first {
        words.iter().rev().flat_map(bytes).collect()
    } else {
        words.iter().flat_map(bytes).collect()
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_wrong_length| Refusal::FrameMalformed)
}

fn fit<T: TryFrom<i64>>(whole: i64) -> Result<T, Refusal> {
    T::try_from(whole).map_err(|_too_large| Refusal::OutOfRange)
}

#[expect(clippy::cast_possible_truncation, reason = "whole and within the exact range of floats")]
fn rounded(number: f64) -> Result<i64, Refusal> {
    /// 2^53: above it not every whole number is a float.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let whole = number.round();
    if whole.abs() <= EXACT_MAX { Ok(whole as i64) } else { Err(Refusal::OutOfRange) }
}

#[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes infinite and is refused")]
fn narrow(number: f64) -> Result<f32, Refusal> {
    let float = number as f32;
    if float.is_finite() { Ok(float) } else { Err(Refusal::OutOfRange) }
}

#[cfg(test)]
#[path = "tests/point.rs"]
mod tests;
