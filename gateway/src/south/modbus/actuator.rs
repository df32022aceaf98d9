//! Outputs: a bounded queue of writes that go before polls, each tried once. What became of one is told, never guessed:
//! a write whose reply stays away may have been done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::model::ids::{DeviceId, PointName};
use crate::model::record::Value;
use crate::model::refusal::Refusal;

/// Writes that wait for one bus. Full: the next is refused at once; who commands decides what to do.
pub const WRITES_MAX: usize = 32;

/// How long a write that was begun may take to tell its outcome, beyond the lifetime it was given: the longest time-out,
/// a reconnection and the reading back.
const OUTCOME_WITHIN: Duration = Duration::from_secs(65);

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A write that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The device echoed it.
    Echoed,
    /// And said the same when it was read back.
    Verified,
    /// But said something else when it was read back, or nothing.
    Unverified,
}

/// Why a write was not done, or is not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("the bus has no device {0}")]
    NoDevice(DeviceId),
    #[error("the device has no output {0}")]
    NoOutput(PointName),
    #[error("the value does not fit the output: {}", .0.as_str())]
    Value(Refusal),
    /// Nothing was sent.
    #[error("{WRITES_MAX} writes wait already")]
    Busy,
    /// Nothing was sent: the bus was down for as long as the write was good.
    #[error("its time passed before the line was free")]
    TooLate,
    /// Nothing was sent: the driver has ended.
    #[error("the bus has ended")]
    Ended,
    /// The device answered that it does not.
    #[error("the device refused with exception {0}")]
    Exception(u8),
    /// It was sent, and what came is no answer: it may have been done.
    #[error("the outcome is not known: {}", .0.as_str())]
    Unknown(Refusal),
}

/// A write under way to the bus.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) device: DeviceId,
    pub(super) point: PointName,
    pub(super) value: Value,
    pub(super) verify: bool,
    pub(super) until: Instant,
    /// Who moves it from [`WAITING`] decides: the bus begins it, or its caller withdraws it.
    turn: Arc<AtomicU8>,
    answer: oneshot::Sender<Result<Written, WriteError>>,
}

impl Write {
    /// Whether it may be sent now; from then on its caller waits for the outcome.
    pub(super) fn begin(&self, now: Instant) -> bool {
        now < self.until
            && self.turn.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn answer(self, outcome: Result<Written, WriteError>) {
        if self.answer.send(outcome).is_err() {
            tracing::debug!("nobody waits for the outcome of a write any more");
        }
    }
}

/// The handle to a bus's outputs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Actuator {
    writes_tx: mpsc::Sender<Write>,
}

impl Actuator {
    pub(super) fn new() -> (Self, mpsc::Receiver<Write>) {
        let (writes_tx, writes_rx) = mpsc::channel(WRITES_MAX);
        (Self { writes_tx }, writes_rx)
    }

    /// Writes one output, once. It is sent within `lifetime` or not at all; `verify` reads it back.
    ///
    /// # Errors
    /// Why it was not done; [`WriteError::Unknown`] if it may have been.
    pub async fn write(
        &self,
        device: &DeviceId,
        point: &PointName,
        value: Value,
        lifetime: Duration,
        verify: bool,
    ) -> Result<Written, WriteError> {
        let (answer, mut answer_rx) = oneshot::channel();
        let turn = Arc::new(AtomicU8::new(WAITING));
        let until = Instant::now() + lifetime;
        let write = Write {
            device: device.clone(),
            point: point.clone(),
            value,
            verify,
            until,
            turn: Arc::clone(&turn),
            answer,
        };
        self.writes_tx.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => WriteError::Ended,
        })?;
        if let Ok(answered) = timeout_at(until, &mut answer_rx).await {
            return answered.unwrap_or(Err(lost(&turn)));
        }
        if turn.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return Err(WriteError::TooLate);
        }
        match timeout_at(until + OUTCOME_WITHIN, answer_rx).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(lost(&turn)),
        }
    }
}

/// The bus dropped a write without an answer: begun, it may have been done.
fn lost(turn: &AtomicU8) -> WriteError {
    if turn.load(Ordering::Acquire) == BEGUN {
        WriteError::Unknown(Refusal::LineFailed)
    } else {
        WriteError::Ended
    }
}
