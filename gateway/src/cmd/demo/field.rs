//! The demo's Modbus module: a slave on loopback with buttons and a door contact at its digital inputs, and somebody who
//! presses them. It is tokio-modbus's server, so that another implementation than the gateway's own answers.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response};
use tokio_util::sync::CancellationToken;

/// The device of the demo's configuration that is pressed at input 0.
pub(super) const BUTTON: &str = "sos-3-lobby";

/// How long a button is held: some polls.
const HELD: Duration = Duration::from_millis(400);

/// Input 0 is the button, input 1 a door contact that is closed while the door is, inputs 2 to 15 are free.
const BUTTON_BIT: u16 = 1;
const DOOR_BIT: u16 = 2;

/// A running slave.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) address: SocketAddr,
    inputs: Arc<AtomicU16>,
    presses: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Inputs(Arc<AtomicU16>);

impl Service for Inputs {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = future::Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let inputs = self.0.load(Ordering::SeqCst);
        future::ready(match request {
            Request::ReadDiscreteInputs(at, count) if at.saturating_add(count) <= 16 => {
                let bits = (at..at + count).map(|bit| inputs >> bit & 1 == 1);
                Ok(Response::ReadDiscreteInputs(bits.collect()))
            }
            Request::ReadDiscreteInputs(..) => Err(ExceptionCode::IllegalDataAddress),
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

impl Module {
    /// Listens on a free loopback port.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let inputs = Arc::new(AtomicU16::new(DOOR_BIT));
        let service = Inputs(Arc::clone(&inputs));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let service = move |_peer| Ok(Some(service.clone()));
            let connected = |stream, peer| {
                let service = service.clone();
                async move { accept_tcp_connection(stream, peer, service) }
            };
            let failed = |error| tracing::debug!(%error, "the demo's module lost a connection");
            if let Err(error) = Server::new(listener).serve(&connected, failed).await {
                tracing::error!(%error, "the demo's Modbus module ended");
            }
        });
        Ok(Self { address, inputs, presses: Arc::new(AtomicU64::new(0)), tasks })
    }

    /// Presses the button and opens the door now and then, until `cancel`; then nobody presses.
    pub(super) fn animate(&mut self, cancel: &CancellationToken, seed: u64) {
        let (inputs, presses, cancel) = (Arc::clone(&self.inputs), Arc::clone(&self.presses), cancel.clone());
        let mut rng = fastrand::Rng::with_seed(seed);
        self.tasks.spawn(async move {
            while !cancel.is_cancelled() {
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = tokio::time::sleep(Duration::from_millis(rng.u64(500..2_500))) => {}
                }
                if rng.bool() {
                    inputs.fetch_xor(DOOR_BIT, Ordering::SeqCst);
                    continue;
                }
                inputs.fetch_or(BUTTON_BIT, Ordering::SeqCst);
                presses.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(HELD).await;
                inputs.fetch_and(!BUTTON_BIT, Ordering::SeqCst);
            }
        });
    }

    /// How often the button was pressed.
    pub(super) fn presses(&self) -> u64 {
        self.presses.load(Ordering::SeqCst)
    }

    /// Waits until a press that was begun has been held and read.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(2 * HELD).await;
    }

    pub(super) async fn remove(mut self) {
        self.tasks.shutdown().await;
    }
}
