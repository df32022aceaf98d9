//! Modbus: how many polls a second a bus of many units really gets, counted by their server.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatehouse_tests::gateway::{Gateway, Plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Units behind the one server.
pub const UNITS: u8 = 100;
/// Those that never answer, in the second measure.
pub const SILENT: [u8; 2] = [17, 63];
/// Until the breakers of the silent units have opened.
const SETTLE: Duration = Duration::from_secs(12);

/// A Modbus TCP server whose discrete inputs are all 0.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    answered: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(silent: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                serving.spawn(async move {
                    // The gateway goes away at the end.
                    serve(stream, silent, &counter).await.ok();
                });
            }
        });
        Self { address, answered, _tasks: tasks }
    }
}

async fn serve(mut stream: TcpStream, silent: &[u8], answered: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        // Transaction, protocol, length, unit; then function, address, count.
        let mut request = [0; 12];
        stream.read_exact(&mut request).await?;
        let [t1, t2, _, _, _, _, unit, function, _, _, n1, n2] = request;
        assert_eq!(function, 2, "the profile reads discrete inputs");
        if silent.contains(&unit) {
            continue;
        }
        let bytes = u8::try_from(u16::from_be_bytes([n1, n2]).div_ceil(8)).expect("at most 250 bytes");
        let mut reply = vec![t1, t2, 0, 0, 0, bytes + 3, unit, 2, bytes];
        reply.resize(9 + usize::from(bytes), 0);
        stream.write_all(&reply).await?;
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answered polls a second of [`UNITS`] buttons, each polled every `poll_ms`.
pub async fn polls_per_s(poll_ms: u32, silent: &'static [u8], span: Duration) -> f64 {
    let server = Server::start(silent).await;
    let mut plan = Plan::new("bench-field", "mqtt://127.0.0.1:9");
    write!(plan.extra, "[buses.field.modbus]\ntcp = \"{}\"\ntimeout_ms = 1000\n\n", server.address)
        .expect("text can be written");
    for unit in 1..=UNITS {
        write!(
            plan.extra,
            "[devices.m{unit}]\nprofile = \"modbus-button\"\nbus = \"field\"\nunit = {unit}\n\
             poll_ms = {poll_ms}\nplace = {{ building = \"7\", floor = {unit} }}\n\n"
        )
        .expect("text can be written");
    }
    let gateway = Gateway::start(plan).await;
    sleep(SETTLE).await;
    let (before, began) = (server.answered.load(Ordering::Relaxed), Instant::now());
    sleep(span).await;
    let polls = server.answered.load(Ordering::Relaxed) - before;
    let per_s = polls as f64 / began.elapsed().as_secs_f64();
    drop(gateway);
    per_s
}
