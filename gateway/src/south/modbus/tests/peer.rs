//! Against another implementation, tokio-modbus's server, over real sockets in real time: what is read and written.
//! And what tokio-modbus's own client makes of broken lines, which is why the frames
//! are ours.

use std::collections::BTreeSet;
use std::future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_modbus::client::Reader as _;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::slave::Slave;
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};

use super::bench::FakeJournal;
use super::*;
use crate::model::ids::PointName;
use crate::model::journal::Journal;
use crate::rt::board::Board;
use crate::rt::clock::SystemClock;
use crate::rt::metrics::Metrics;
use crate::south::modbus::actuator::{WriteError, Written};
use crate::south::profile::shipped_profiles;

/// Sixteen coils and holding registers that can be written, inputs that are all 0; some units never answer.
#[derive(Debug, Clone, Default)]
struct Peer {
    coils: Arc<Mutex<[bool; 16]>>,
    holding: Arc<Mutex<[u16; 16]>>,
    asked: Arc<AtomicU64>,
    silent: Arc<BTreeSet<u8>>,
}

impl Service for Peer {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = future::Ready<Result<Option<Response>, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        if self.silent.contains(&request.slave) {
            return future::ready(Ok(None));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let span = |at: u16, count: u16| usize::from(at)..usize::from(at + count);
        let (mut coils, mut holding) = (self.coils.lock().unwrap(), self.holding.lock().unwrap());
        let reply = match request.request {
            Request::ReadCoils(at, count) => {
                coils.get(span(at, count)).map(|bits| Response::ReadCoils(bits.to_vec()))
            }
            Request::ReadDiscreteInputs(_, count) => {
                Some(Response::ReadDiscreteInputs(vec![false; usize::from(count)]))
            }
            Request::ReadHoldingRegisters(at, count) => {
                holding.get(span(at, count)).map(|words| Response::ReadHoldingRegisters(words.to_vec()))
            }
            Request::WriteSingleCoil(at, on) => coils.get_mut(usize::from(at)).map(|coil| {
                *coil = on;
                Response::WriteSingleCoil(at, on)
            }),
            Request::WriteMultipleRegisters(at, words) => {
                holding.get_mut(span(at, u16::try_from(words.len()).unwrap())).map(|cells| {
                    cells.copy_from_slice(&words);
                    Response::WriteMultipleRegisters(at, u16::try_from(cells.len()).unwrap())
                })
            }
            _ => return future::ready(Err(ExceptionCode::IllegalFunction)),
        };
        future::ready(reply.map(Some).ok_or(ExceptionCode::IllegalDataAddress))
    }
}

async fn serve(peer: &Peer) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = peer.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let service = move |_peer| Ok(Some(peer.clone()));
        let connected = |stream: tokio::net::TcpStream, from| {
            let service = service.clone();
            async move {
                stream.set_nodelay(true)?;
                accept_tcp_connection(stream, from, service)
            }
        };
        Server::new(listener).serve(&connected, |_error| {}).await.unwrap();
    });
    (address, tasks)
}

/// A bus at this address, and its journal.
fn bus(
    address: SocketAddr,
    timeout_ms: u32,
    devices: &str,
    profiles: &[(&str, &str)],
) -> (Arc<Bus>, Arc<FakeJournal>) {
    let journal = Arc::new(FakeJournal::default());
    let deps = Deps {
        journal: Arc::clone(&journal) as Arc<dyn Journal>,
        clock: Arc::new(SystemClock::new(crate::rt::keeper::Evidence::default())),
        metrics: Arc::new(Metrics::new()),
        board: Arc::new(Board::new()),
    };
    let mut known = shipped_profiles().unwrap();
    for (name, text) in profiles {
        known.insert(ProfileName::new(name).unwrap(), toml::from_str(text).unwrap());
    }
    let setup = Setup {
        bus: BusName::new("field").unwrap(),
        config: toml::from_str(&format!("tcp = '{address}'\ntimeout_ms = {timeout_ms}")).unwrap(),
        devices: toml::from_str(devices).unwrap(),
        profiles: known.into_iter().map(|(name, profile)| (name, Arc::new(profile))).collect(),
    };
    (Arc::new(Bus::new(setup, deps).unwrap()), journal)
}

fn run(bus: &Arc<Bus>, tasks: &mut JoinSet<()>) -> CancellationToken {
    let cancel = CancellationToken::new();
    let (bus, stop) = (Arc::clone(bus), cancel.clone());
    tasks.spawn(async move { bus.run(stop, || {}).await.unwrap() });
    cancel
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_another_implementation_are_written_and_read_back() {
    let peer = Peer::default();
    let (address, mut tasks) = serve(&peer).await;
    let wide = "kind = 'x'\ntitle = { zh = 'x', en = 'x' }\n[modbus]\n\
                [points.level]\nholding = 4\ntype = 'f32'\nword_order = 'CDAB'\nwrite = true\n";
    let devices = "[io]\nprofile = 'waveshare-io8'\nbus = 'field'\nunit = 1\n\
                   [wide]\nprofile = 'wide'\nbus = 'field'\nunit = 2\noffset = 2\n\
                   [beyond]\nprofile = 'wide'\nbus = 'field'\nunit = 2\noffset = 100\n";
    let (bus, _journal) = bus(address, 1_000, devices, &[("wide", wide)]);
    let cancel = run(&bus, &mut tasks);
    let write = |device: &'static str, point: &'static str, value: Value| {
        let actuator = bus.actuator();
        async move {
            let (device, point) = (DeviceId::new(device).unwrap(), PointName::new(point).unwrap());
            actuator.write(&device, &point, value, Duration::from_secs(10), true).await
        }
    };
    assert_eq!(write("io", "do5", Value::Bool(true)).await, Ok(Written::Verified));
    assert!(peer.coils.lock().unwrap()[4]);
    assert_eq!(write("wide", "level", Value::Float(22.5)).await, Ok(Written::Verified));
    assert_eq!(peer.holding.lock().unwrap()[6..8], [0, 0x41b4]);
    assert_eq!(write("beyond", "level", Value::Float(1.0)).await, Err(WriteError::Exception(2)));
    cancel.cancel();
}

/// What tokio-modbus's RTU client says when the line answers `reply`.
async fn library_reads(reply: &'static [u8]) -> String {
    let (near, mut far) = tokio::io::duplex(512);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut request = [0; 8];
        far.read_exact(&mut request).await.unwrap();
        far.write_all(reply).await.unwrap();
        // The line stays open, as a serial line does.
        far.read_exact(&mut request).await.ok();
    });
    let mut context = tokio_modbus::client::rtu::attach_slave(near, Slave(1));
    match timeout(Duration::from_secs(1), context.read_discrete_inputs(0, 8)).await {
        Err(_elapsed) => "nothing".to_owned(),
        Ok(result) => format!("{result:?}"),
    }
}

/// If this fails after an update of the library, look whether its client has become fit for use.
#[tokio::test(start_paused = true)]
async fn why_the_frames_are_ours() {
    // A broken CRC is no error: it waits on, skipping bytes.
    assert_eq!(library_reads(&[1, 2, 1, 1, 0x60, 0x49]).await, "nothing");
    // Noise before a frame is skipped in silence: nobody can tell whose the frame is.
    assert!(library_reads(&[0, 1, 2, 1, 1, 0x60, 0x48]).await.starts_with("Ok(Ok([true"));
    // Two frames, merged: the first is taken.
    let merged = &[1, 2, 1, 1, 0x60, 0x48, 1, 2, 1, 0, 0xa1, 0x88];
    assert!(library_reads(merged).await.starts_with("Ok(Ok([true"));
}
