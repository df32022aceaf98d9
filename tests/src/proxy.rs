//! A TCP proxy that can do to a connection what networks do: cut it, swallow it silently, slow it down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    #[default]
    Pass,
    /// Read and thrown away: the sender's TCP sees nothing wrong.
    Swallow,
    /// Each piece is held back so long.
    Delay(Duration),
    /// At most so many bytes a second.
    Throttle(usize),
}

/// What new connections meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Door {
    #[default]
    Open,
    /// Closed as soon as accepted.
    Shut,
    /// Accepted, and never forwarded or answered.
    Mute,
}

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Fin,
    Rst,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    up: Flow,
    down: Flow,
    door: Door,
    cuts: u64,
    rst: bool,
}

/// A proxy in front of one address. Ends with its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(crate::ports::free()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, mode_rx) = watch::channel(Mode::default());
        let accepted = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, mode_rx, accepted.clone()));
        Self { address, mode, accepted, _tasks: tasks }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Sets both directions, for present and coming connections. `up` is from the client to the target.
    pub fn flow(&self, up: Flow, down: Flow) {
        self.mode.send_modify(|mode| (mode.up, mode.down) = (up, down));
    }

    pub fn door(&self, door: Door) {
        self.mode.send_modify(|mode| mode.door = door);
    }

    /// Ends all present connections on both sides.
    pub fn cut(&self, how: Cut) {
        self.mode.send_modify(|mode| {
            mode.cuts += 1;
            mode.rst = how == Cut::Rst;
        });
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    accepted: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        accepted.fetch_add(1, Ordering::SeqCst);
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(client, target, mode.clone()));
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let cuts = mode.borrow().cuts;
    let door = mode.borrow().door;
    match door {
        Door::Open => {}
        Door::Shut => return,
        Door::Mute => {
            mode.wait_for(|now| now.cuts != cuts).await.ok();
            return;
        }
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut pumps = JoinSet::new();
    pumps.spawn(pump(client_read, server_write, mode.clone(), |mode| mode.up));
    pumps.spawn(pump(server_read, client_write, mode, |mode| mode.down));
    while pumps.join_next().await.is_some() {}
}

/// Carries one direction until it ends or is cut.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    pick: fn(&Mode) -> Flow,
) {
    let cuts = mode.borrow().cuts;
    let mut cut = mode.clone();
    let carried = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            let flow = pick(&mode.borrow_and_update());
            match flow {
                Flow::Pass => {}
                Flow::Swallow => continue,
                Flow::Delay(delay) => tokio::time::sleep(delay).await,
                Flow::Throttle(bytes_per_s) => {
                    let share = count as f64 / bytes_per_s.max(1) as f64;
                    tokio::time::sleep(Duration::from_secs_f64(share)).await;
                }
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let rst = tokio::select! {
        () = carried => false,
        now = cut.wait_for(|now| now.cuts != cuts) => now.is_ok_and(|now| now.rst),
    };
    // A reset is a close with nothing allowed to linger; it needs the option set on the socket before.
    if rst {
        to.as_ref().set_zero_linger().ok();
        from.as_ref().set_zero_linger().ok();
    }
}
