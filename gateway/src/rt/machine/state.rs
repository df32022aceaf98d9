//! From looks at the box to values and events: told on change, and again after an hour; thresholds with hysteresis. Pure.

use super::trouble::{HOT, MAINS_LOST, MEMORY_SHORT, MODEM_FAILED, SIGNAL_LOW, UNDERVOLTAGE, event};
use super::{MachineConfig, Reading};
use crate::model::ids::PointName;
use crate::model::place::Place;
use crate::model::record::{Body, DeviceRef, Draft, Sample, Severity, Telemetry, Value};
use crate::model::stamp::Stamp;

/// Values that do not change are told again after this.
const AGAIN_MS: u64 = 3_600_000;

/// Values are told at most once in so long, however they change.
pub(super) const APART_MS: u64 = 300_000;

/// So much more memory, in percent, and there is enough again.
const MEMORY_MARGIN_PCT: u8 = 5;

/// So much more signal, in percent, and there is enough again.
const SIGNAL_MARGIN_PCT: u8 = 10;

/// Looks in a row that must agree before mains, voltage, lid or modem are told: a supply that switches over drops out for
/// moments, a contact bounces, a modem registers anew.
pub(super) const LOOKS: u8 = 2;

/// What has been told.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    began_ms: Option<u64>,
    told: Option<(u64, Reading)>,
    /// It has run for so long that it may say what is well.
    settled: bool,
    hot: Flag,
    undervoltage: Flag,
    mains_lost: Flag,
    flash_worn: Flag,
    memory_short: Flag,
    modem_failed: Flag,
    signal_low: Flag,
}

/// A condition: what was told of it since the start, and in how many looks in a row it was otherwise. What an earlier
/// process told is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flag {
    told: Option<bool>,
    others: u8,
}

/// What there is to tell of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Came,
    Gone,
    /// It does not hold some time after the start: ends what an earlier process told, if it did.
    Well,
}

/// How things stand when the drafts are stored.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) state: State,
    pub(super) told_event: bool,
}

impl Flag {
    /// `settled`: the process has run for so long that it may say what is well.
    pub(super) fn look(&mut self, now: Option<bool>, looks: u8, settled: bool) -> Option<Turn> {
        let now = now?;
        if now == self.told.unwrap_or(false) {
            let steady = std::mem::take(&mut self.others) == 0;
            if self.told.is_none() && settled && steady {
                self.told = Some(false);
                return Some(Turn::Well);
            }
            return None;
        }
        self.others = self.others.saturating_add(1);
        if self.others < looks {
            return None;
        }
        *self = Self { told: Some(now), others: 0 };
        Some(if now { Turn::Came } else { Turn::Gone })
    }

    /// Whether a value that is between two limits is to be taken as before.
    fn holds(self) -> bool {
        self.told == Some(true)
    }
}

impl State {
    /// What a look has to tell, and the state once that is stored.
    pub(super) fn after(&self, look: &Reading, config: &MachineConfig, at: &Stamp) -> (Vec<Draft>, Next) {
        let mut state = self.clone();
        let began_ms = *state.began_ms.get_or_insert(at.mono_ms);
        // Not at once: a box that starts again and again would fill its journal with this.
        state.settled = at.mono_ms.saturating_sub(began_ms) >= APART_MS;
        let mut drafts = Vec::new();
        state.heat(look, config, at, &mut drafts);
        state.power(look, at, &mut drafts);
        state.wear(look, config, at, &mut drafts);
        state.modem(look, config, at, &mut drafts);
        let told_event = !drafts.is_empty();
        if state.values_due(look, (began_ms, at.mono_ms), told_event) {
            let samples = samples(look);
            if !samples.is_empty() {
                let telemetry =
                    Telemetry { device: DeviceRef::gateway(None), place: Place::default(), samples };
                let body = Body::Telemetry(telemetry);
                drafts.push(Draft { at: at.clone(), test: false, dedup: None, body });
            }
            state.told = Some((at.mono_ms, look.clone()));
        }
        (drafts, Next { state, told_event })
    }

    fn values_due(&self, look: &Reading, (began_ms, now_ms): (u64, u64), told_event: bool) -> bool {
        // Not at once: a box that starts again and again would fill its journal with this.
        let Some((told_ms, told)) = &self.told else {
            return told_event || now_ms.saturating_sub(began_ms) >= APART_MS;
        };
        let passed_ms = now_ms.saturating_sub(*told_ms);
        told_event || passed_ms >= AGAIN_MS || (passed_ms >= APART_MS && differs(told, look))
    }

    fn heat(&mut self, look: &Reading, config: &MachineConfig, at: &Stamp, drafts: &mut Vec<Draft>) {
        let cooled_cel = config.hot_cel - config.hot_hysteresis_cel;
        let limit = if self.hot.holds() { cooled_cel } else { config.hot_cel };
        // What is neither hot nor cool ends nothing that an earlier process told.
        let cool = self.settled && look.heat_cel.is_some_and(|heat| heat < cooled_cel);
        let turn = self.hot.look(look.heat_cel.map(|heat| heat >= limit), 1, cool);
        drafts.extend(HOT.told(turn, at, look.heat_cel.map(|heat| ("temperature", Value::Float(heat)))));
    }

    fn power(&mut self, look: &Reading, at: &Stamp, drafts: &mut Vec<Draft>) {
        let turn = self.undervoltage.look(look.undervoltage, LOOKS, self.settled);
        drafts.extend(UNDERVOLTAGE.told(turn, at, None));
        let turn = self.mains_lost.look(look.mains.map(|mains| !mains), LOOKS, self.settled);
        drafts.extend(MAINS_LOST.told(turn, at, percent("battery", look.battery_pct)));
    }

    fn wear(&mut self, look: &Reading, config: &MachineConfig, at: &Stamp, drafts: &mut Vec<Draft>) {
        let worn = match (look.flash_used_pct, look.flash_end) {
            (None, None) => None,
            (used, end) => Some(
                used.is_some_and(|used| used >= config.flash_worn_pct) || end.is_some_and(|level| level >= 2),
            ),
        };
        // Flash does not heal: nothing ends this but a person who has changed the card. It is told again by each start.
        if self.flash_worn.look(worn.filter(|worn| *worn), 1, false) == Some(Turn::Came) {
            let text = (
                "网关存储接近寿命终点，请更换",
                "the flash of the box is near the end of its life; replace it",
            );
            let named = ("box.flash_worn", Some(Severity::Major));
            drafts.push(event(at, named, percent("used", look.flash_used_pct), text));
        }
        let short = look.memory_free_pct.map(|free| {
            let margin = if self.memory_short.holds() { MEMORY_MARGIN_PCT } else { 0 };
            free < config.memory_free_pct.saturating_add(margin)
        });
        let enough = config.memory_free_pct.saturating_add(MEMORY_MARGIN_PCT);
        let ample = self.settled && look.memory_free_pct.is_some_and(|free| free >= enough);
        let turn = self.memory_short.look(short, LOOKS, ample);
        drafts.extend(MEMORY_SHORT.told(turn, at, percent("free", look.memory_free_pct)));
    }

    fn modem(&mut self, look: &Reading, config: &MachineConfig, at: &Stamp, drafts: &mut Vec<Draft>) {
        let (Some(config), Some(modem)) = (&config.modem, &look.modem) else { return };
        let turn = self.modem_failed.look(Some(modem.fault.is_some()), LOOKS, self.settled);
        let reason = modem.fault.clone().map(|reason| ("reason", Value::Text(reason.into())));
        drafts.extend(MODEM_FAILED.told(turn, at, reason));
        let enough = config.signal_low_pct.saturating_add(SIGNAL_MARGIN_PCT);
        let limit = if self.signal_low.holds() { enough } else { config.signal_low_pct };
        let low = modem.signal_pct.map(|signal| signal < limit);
        let ample = self.settled && modem.signal_pct.is_some_and(|signal| signal >= enough);
        let turn = self.signal_low.look(low, LOOKS, ample);
        drafts.extend(SIGNAL_LOW.told(turn, at, percent("signal", modem.signal_pct)));
    }
}

fn percent(name: &str, value: Option<u8>) -> Option<(&str, Value)> {
    value.map(|value| (name, Value::Int(i64::from(value))))
}

/// Whether values differ by more than their noise.
fn differs(told: &Reading, look: &Reading) -> bool {
    let far = |a: Option<f64>, b: Option<f64>, by: f64| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() >= by,
        (a, b) => a.is_some() != b.is_some(),
    };
    let percent = |a: Option<u8>, b: Option<u8>| far(a.map(f64::from), b.map(f64::from), 5.0);
    far(told.heat_cel, look.heat_cel, 3.0)
        || told.undervoltage != look.undervoltage
        || told.mains != look.mains
        || percent(told.battery_pct, look.battery_pct)
        || told.flash_used_pct != look.flash_used_pct
        || told.flash_end != look.flash_end
        || percent(told.memory_free_pct, look.memory_free_pct)
        || far(told.load_1min, look.load_1min, 1.0)
        || told.lid_open != look.lid_open
        || far(signal(told).map(f64::from), signal(look).map(f64::from), 10.0)
}

fn signal(look: &Reading) -> Option<u8> {
    look.modem.as_ref()?.signal_pct
}

fn samples(look: &Reading) -> Vec<Sample> {
    let percent = |value: Option<u8>| value.map(|value| Value::Int(i64::from(value)));
    let modem = look.modem.clone().unwrap_or_default();
    let bytes = |bytes: Option<u64>| bytes.and_then(|bytes| Some(Value::Int(i64::try_from(bytes).ok()?)));
    let found = [
        ("temperature", look.heat_cel.map(Value::Float), "Cel"),
        ("undervoltage", look.undervoltage.map(Value::Bool), ""),
        ("mains", look.mains.map(Value::Bool), ""),
        ("battery", percent(look.battery_pct), "%"),
        ("flash_used", percent(look.flash_used_pct), "%"),
        ("flash_end", percent(look.flash_end), ""),
        ("memory_free", percent(look.memory_free_pct), "%"),
        ("load_1min", look.load_1min.map(Value::Float), ""),
        ("lid_open", look.lid_open.map(Value::Bool), ""),
        ("signal", percent(modem.signal_pct), "%"),
        ("modem_received", bytes(modem.received_bytes), "By"),
        ("modem_sent", bytes(modem.sent_bytes), "By"),
    ];
    let sample = |(name, value, unit): (&str, Option<Value>, &str)| {
        let unit = (!unit.is_empty()).then(|| unit.to_owned());
        Some(Sample::good(PointName::new(name).ok()?, value?, unit))
    };
    found.into_iter().filter_map(sample).collect()
}
