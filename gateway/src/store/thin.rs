//! Thinning: of each point one value stays for each interval. Pure; the rows come in the order they were stored.
//!
//! A record holds values of several points taken at one time; it stays if it is the first of its interval for one of
//! them. Intervals are of the monotonic clock, so that a jump of the wall clock neither keeps nor loses anything.

use std::collections::HashMap;

use crate::model::ids::{DeviceId, PointName};
use crate::model::limits::POINTS_MAX;
use crate::model::record::Body;

use super::forget::Candidate;

/// Points whose last interval is remembered; beyond it all are forgotten, and a value more of each stays.
const REMEMBERED_MAX: usize = 2 * POINTS_MAX;

/// Which boot, and which interval of it.
type Interval = (i64, u64);

/// How far one step has come.
#[derive(Debug, Default)]
pub(super) struct Thinning {
    kept: HashMap<(DeviceId, PointName), Interval>,
}

impl Thinning {
    /// Whether the record stays. What cannot be read stays: it is not known what it says.
    pub(super) fn keeps(&mut self, row: &Candidate, keep_every_s: u32) -> bool {
        let Some(Body::Telemetry(telemetry)) = &row.body else { return true };
        let every_ms = u64::from(keep_every_s.max(1)).saturating_mul(1_000);
        let interval = (row.boot, row.mono_ms / every_ms);
        if self.kept.len().saturating_add(telemetry.samples.len()) > REMEMBERED_MAX {
            self.kept.clear();
        }
        let mut keeps = false;
        for sample in &telemetry.samples {
            let point = (telemetry.device.id.clone(), sample.point.clone());
            keeps |= self.kept.insert(point, interval) != Some(interval);
        }
        keeps
    }
}
