//! One line and one exchange at a time on it: opens ports, writes a request, waits for the whole reply, and keeps the
//! silences of serial lines. Knows nothing of devices or schedules.
//!
//! What must be survived: silence, frames that break off, merge, or belong to somebody else, bytes nobody asked for, a
//! port that vanishes. After any of them the caller drops a connection for good; a serial port is read empty and left
//! in peace first ([`Wire::recover`]). Nothing of a failed exchange reaches the next one: each begins with an empty
//! buffer.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_serial::SerialPortBuilderExt;

use super::config::{At, ModbusConfig};
use super::frame::{Address, Framing, Parsed, RTU_BYTES_MAX, Reply, Request, TCP_BYTES_MAX};
use crate::model::refusal::Refusal;

/// Above 19 200 baud the silence between frames is this, whatever the speed (Modbus over Serial Line V1.02, 2.5.1.1).
const SILENCE_FAST: Duration = Duration::from_micros(1_750);

/// Characters of silence between two frames, times two.
const SILENCE_HALF_CHARACTERS: u32 = 7;

/// After a fault a line must be silent for so long: adapters on USB hand bytes over every 16 ms.
const RECOVER_SILENCE: Duration = Duration::from_millis(20);

/// A line that talks on for longer than this is broken.
const RECOVER_MAX: Duration = Duration::from_secs(1);

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A byte stream to devices.
pub trait Port: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Port for T {}

/// Opens the line, anew at each attempt: a serial port by its name.
#[async_trait]
pub trait Open: Send + Sync + Debug {
    async fn open(&self) -> io::Result<Box<dyn Port>>;
}

/// Opens what the configuration names.
#[derive(Debug, Clone)]
pub(super) struct Dialer(pub(super) ModbusConfig);

#[async_trait]
impl Open for Dialer {
    async fn open(&self) -> io::Result<Box<dyn Port>> {
        match self.0.at() {
            At::Tcp(address) | At::RtuOverTcp(address) => {
                let connecting = tokio::net::TcpStream::connect(address);
                let stream = timeout(CONNECT_MAX, connecting)
                    .await
                    .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "nobody answers there"))??;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            At::Serial(path) => {
                let (parity, stop_bits) = self.0.line();
                let port = tokio_serial::new(path, self.0.speed())
                    .data_bits(tokio_serial::DataBits::Eight)
                    .parity(parity)
                    .stop_bits(stop_bits)
                    .flow_control(tokio_serial::FlowControl::None);
                Ok(Box::new(port.open_native_async()?))
            }
            At::Nowhere => Err(io::Error::new(io::ErrorKind::InvalidInput, "the bus has no address")),
        }
    }
}

/// Why an exchange brought no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Nothing was sent: the line was not in order before.
    #[error("{}", .reason.as_str())]
    Before { reason: Refusal, source: Option<io::Error> },
    /// The line works, the reply does not come or is none.
    #[error("{}", .0.as_str())]
    Reply(Refusal),
    /// The line itself failed, after the request or part of it was sent.
    #[error(transparent)]
    Line(#[from] io::Error),
}

/// Time on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) framing: Framing,
    /// One character; nothing where the line's speed is not known.
    pub(super) character: Duration,
    /// Least silence between a reply and the next request.
    pub(super) quiet: Duration,
    /// A connection, which is closed after a fault; a serial port is recovered.
    pub(super) connection: bool,
}

impl Pace {
    pub(super) fn new(config: &ModbusConfig) -> Self {
        let (framing, connection) = match config.at() {
            At::Tcp(_) => (Framing::Tcp, true),
            At::RtuOverTcp(_) => (Framing::Rtu, true),
            At::Serial(_) | At::Nowhere => (Framing::Rtu, false),
        };
        let character = match framing {
            Framing::Tcp => Duration::ZERO,
            Framing::Rtu => config.character(),
        };
        let silence = match framing {
            Framing::Tcp => Duration::ZERO,
            Framing::Rtu if config.speed() > 19_200 => SILENCE_FAST,
            Framing::Rtu => character * SILENCE_HALF_CHARACTERS / 2,
        };
        let turnaround = Duration::from_millis(config.turnaround_ms.into());
        Self { framing, character, quiet: silence.max(turnaround), connection }
    }

    /// What an exchange takes on the line at least, silences included.
    pub(super) fn span(&self, request: &Request) -> Duration {
        let bytes = u32::try_from(request.line_bytes()).unwrap_or(u32::MAX);
        self.character.saturating_mul(bytes) + self.quiet * 2
    }
}

/// A line that is open.
pub(super) struct Wire {
    port: Box<dyn Port>,
    pace: Pace,
    transaction: u16,
    /// Nothing is said before this.
    quiet_until: Instant,
}

impl Debug for Wire {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Wire").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(port: Box<dyn Port>, pace: Pace) -> Self {
        Self { port, pace, transaction: fastrand::u16(..), quiet_until: Instant::now() + pace.quiet }
    }

    /// Asks one unit and waits at most `patience` (and the time that the bytes take on the line) for its reply.
    ///
    /// # Errors
    /// What came instead. The line is then to be dropped or recovered.
    pub(super) async fn ask(
        &mut self,
        unit: u8,
        request: &Request,
        patience: Duration,
    ) -> Result<Reply, Fault> {
        self.settle().await?;
        self.transaction = self.transaction.wrapping_add(1);
        let address = Address { unit, transaction: self.transaction };
        let deadline = Instant::now() + patience + self.pace.span(request);
        let frame = request.frame(self.pace.framing, address);
        // No flush: on a serial port it would block the thread until the last bit is out.
        let write = self.port.write_all(&frame);
        match timeout_at(deadline, write).await {
            Ok(written) => written?,
            Err(_elapsed) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no bytes").into()),
        }
        let mut buffer = Vec::with_capacity(RTU_BYTES_MAX.max(TCP_BYTES_MAX));
        loop {
            let read = timeout_at(deadline, self.port.read_buf(&mut buffer)).await;
            match read {
                Ok(Ok(0)) => return Err(closed().into()),
                Ok(Ok(_bytes)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_elapsed) if buffer.is_empty() => return Err(Fault::Reply(Refusal::NoReply)),
                Err(_elapsed) => return Err(Fault::Reply(Refusal::FrameShort)),
            }
            match request.parse(self.pace.framing, address, &buffer) {
                Ok(Parsed::Incomplete) => {}
                Ok(Parsed::Reply(reply)) => {
                    self.quiet_until = Instant::now() + self.pace.quiet;
                    return Ok(reply);
                }
                Err(reason) => return Err(Fault::Reply(reason)),
            }
        }
    }

    /// Waits out the silence. Whatever comes meanwhile, or waits already, was not asked for: the line is not in order.
    async fn settle(&mut self) -> Result<(), Fault> {
        let mut stray = [0; 64];
        let read = self.port.read(&mut stray);
        // A timer in the past would still cost a millisecond: half the polls a second.
        let came = if Instant::now() >= self.quiet_until {
            read.now_or_never()
        } else {
            timeout_at(self.quiet_until, read).await.ok()
        };
        match came {
            Some(Ok(0)) => Err(Fault::Before { reason: Refusal::LineFailed, source: Some(closed()) }),
            Some(Ok(_bytes)) => Err(Fault::Before { reason: Refusal::FrameLate, source: None }),
            Some(Err(error)) => Err(Fault::Before { reason: Refusal::LineFailed, source: Some(error) }),
            None => Ok(()),
        }
    }

    /// Reads a serial line empty until it is silent.
    ///
    /// # Errors
    /// The port failed, or somebody talks without end.
    pub(super) async fn recover(&mut self) -> io::Result<()> {
        let silence = self.pace.quiet.max(RECOVER_SILENCE);
        let until = Instant::now() + RECOVER_MAX;
        let mut stray = [0; RTU_BYTES_MAX];
        loop {
            match timeout(silence, self.port.read(&mut stray)).await {
                Err(_silent) => break,
                Ok(Ok(0)) => return Err(closed()),
                Ok(Ok(_bytes)) if Instant::now() >= until => {
                    return Err(io::Error::other("somebody talks on the line without end"));
                }
                Ok(Ok(_bytes)) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        self.quiet_until = Instant::now();
        Ok(())
    }

    pub(super) const fn pace(&self) -> Pace {
        self.pace
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed it")
}
