//! The door: everything before a client's CONNECT is complete, which rmqtt waits for without any limit. It accepts,
//! makes TLS, reads the CONNECT within a time and a size, lets so many logins of one address proceed at once, and
//! hands the connection to rmqtt's inner port on loopback. Afterwards it passes bytes on and watches the length of
//! each frame: one above [`crate::model::limits::DEVICE_PACKET_BYTES_MAX`] is counted by name and cut.
//!
//! What must be survived: connections that say nothing, or one byte a minute; garbage; more connections than there
//! are places; thousands of wrong passwords; clients that do not read. None may cost other clients their place.
//!
//! Limits: half of all places at most are for connections that have not logged in, a quarter for those of one
//! address. A login that failed keeps its turn for [`REFUSED_HOLD`], so that an address gets `logins_per_s` wrong
//! answers a second; those who wait for a turn wait in order.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::frames::{Frames, ask_for_clean_session, connect_length, version_known};
use super::tls::common_name;
use super::visits::{Stage, Visit, Visits};
use crate::model::ids::BusName;
use crate::model::refusal::Refusal;
use crate::rt::metrics::Metrics;

/// From the connection to the end of its CONNECT, TLS included: slow radios need a second or two.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a login waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// How long a failed login keeps its turn.
const REFUSED_HOLD: Duration = Duration::from_secs(1);

/// How long a client may leave what is sent to it unread, and its network what is sent unacknowledged: an order must not lie
/// in the kernel until a radio is back, and open a door then.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// How long rmqtt may take to end a session whose client has gone.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Addresses whose turns are kept apart; beyond it, strangers share one line.
const ADDRESSES_MAX: usize = 512;

const READ_BYTES: usize = 8 * 1024;

/// CONNACK with "unacceptable protocol version" (MQTT 3.1.1, 3.2.2.3).
const VERSION_REFUSED: [u8; 4] = [0x20, 2, 0, 1];

/// One door, with one or two listeners in front of one inner port.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) bus: BusName,
    pub(super) inner: SocketAddr,
    pub(super) visits: Arc<Visits>,
    pub(super) metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    lobby: Arc<Semaphore>,
    lobby_max: usize,
    lines: Mutex<HashMap<IpAddr, Arc<Line>>>,
    strangers: Arc<Line>,
    logins_per_s: usize,
}

/// Those of one address who have not logged in yet.
#[derive(Debug)]
struct Line {
    /// Places in the lobby.
    lobby: Arc<Semaphore>,
    /// Logins at once.
    turns: Arc<Semaphore>,
}

/// Why a connection ended, where that is worth counting.
#[derive(Debug)]
enum Ended {
    Quietly,
    /// rmqtt closed it.
    Inside,
    Because(Refusal),
}

impl From<std::io::Error> for Ended {
    /// Connections break all the time; the broker's own session tells what that means.
    fn from(error: std::io::Error) -> Self {
        tracing::debug!(%error, "a connection ended");
        Self::Quietly
    }
}

impl Line {
    fn new(lobby: usize, turns: usize) -> Arc<Self> {
        Arc::new(Self { lobby: Arc::new(Semaphore::new(lobby)), turns: Arc::new(Semaphore::new(turns)) })
    }
}

/// What a connection holds until it has logged in.
struct Waiting {
    line: Arc<Line>,
    _place: OwnedSemaphorePermit,
    _place_of_address: OwnedSemaphorePermit,
}

impl Door {
    pub(super) fn new(
        bus: BusName,
        inner: SocketAddr,
        visits: Arc<Visits>,
        metrics: Arc<Metrics>,
        connections_max: usize,
        logins_per_s: usize,
    ) -> Self {
        let lobby_max = (connections_max / 2).max(1);
        Self {
            bus,
            inner,
            visits,
            metrics,
            places: Arc::new(Semaphore::new(connections_max.max(1))),
            lobby: Arc::new(Semaphore::new(lobby_max)),
            lobby_max,
            lines: Mutex::new(HashMap::new()),
            strangers: Line::new((lobby_max / 2).max(1), logins_per_s),
            logins_per_s,
        }
    }

    /// Accepts for ever; ends with its task.
    pub(super) async fn open(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let mut guests = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = guests.join_next() => continue,
            };
            match accepted {
                Ok((stream, from)) => match self.admit(from.ip()) {
                    Ok((place, waiting)) => {
                        let door = Arc::clone(&self);
                        let tls = tls.clone();
                        guests.spawn(async move {
                            door.attend(stream, from, tls, waiting).await;
                            drop(place);
                        });
                    }
                    Err(reason) => self.metrics.refused(self.bus.as_str(), reason),
                },
                Err(error) => {
                    // Out of descriptors, mostly: closing some takes a moment.
                    tracing::error!(bus = %self.bus, %error, "cannot accept connections");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&self, from: IpAddr) -> Result<(OwnedSemaphorePermit, Waiting), Refusal> {
        let line = self.line(from);
        let take = |places: &Arc<Semaphore>| {
            Arc::clone(places).try_acquire_owned().map_err(|_none| Refusal::TooManyConnections)
        };
        let place = take(&self.places)?;
        let waiting = Waiting { _place: take(&self.lobby)?, _place_of_address: take(&line.lobby)?, line };
        Ok((place, waiting))
    }

    fn line(&self, from: IpAddr) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= ADDRESSES_MAX && !lines.contains_key(&from) {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
            if lines.len() >= ADDRESSES_MAX {
                return Arc::clone(&self.strangers);
            }
        }
        let new = || Line::new((self.lobby_max / 2).max(1), self.logins_per_s);
        Arc::clone(lines.entry(from).or_insert_with(new))
    }

    async fn attend(&self, stream: TcpStream, from: SocketAddr, tls: Option<TlsAcceptor>, waiting: Waiting) {
        if let Err(error) = stream.set_nodelay(true).and_then(|()| bound_sending(&stream)) {
            tracing::warn!(bus = %self.bus, %from, %error, "a connection could not be told to give up what its network swallows");
        }
        let ended = match tls {
            None => self.receive(stream, from, None, waiting).await,
            Some(acceptor) => match timeout(CONNECT_WITHIN, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let name = common_name(&stream);
                    self.receive(stream, from, Some(name.unwrap_or_default()), waiting).await
                }
                Ok(Err(error)) => {
                    tracing::info!(bus = %self.bus, %from, %error, "no TLS connection");
                    Ended::Because(Refusal::HandshakeFailed)
                }
                Err(_elapsed) => Ended::Because(Refusal::HandshakeTimeout),
            },
        };
        if let Ended::Because(reason) = ended {
            tracing::info!(bus = %self.bus, %from, reason = reason.as_str(), "connection closed");
            self.metrics.refused(self.bus.as_str(), reason);
        }
    }

    /// Reads the CONNECT, waits for a turn, and passes the connection on until it ends.
    async fn receive<S>(
        &self,
        mut stream: S,
        from: SocketAddr,
        certificate: Option<String>,
        waiting: Waiting,
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (first, frames) = match timeout(CONNECT_WITHIN, read_connect(&mut stream)).await {
            Err(_elapsed) => return Ended::Because(Refusal::HandshakeTimeout),
            Ok(Err(ended)) => return ended,
            Ok(Ok(read)) => read,
        };
        let turn = timeout(TURN_WITHIN, Arc::clone(&waiting.line.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else { return Ended::Because(Refusal::LoginRate) };
        let (entry, inner) = match self.reach(from, certificate).await {
            Ok(reached) => reached,
            Err(error) => return Ended::from(error),
        };
        let visit = Arc::clone(&entry.visit);
        // The sockets close when passing ends; the turn is kept for its time after that.
        let passing = async move {
            let leave = entry.visit.leave.clone();
            let ended = tokio::select! {
                ended = pass(stream, inner, &first, frames) => ended,
                () = leave.cancelled() => Ended::Quietly,
            };
            drop(entry);
            ended
        };
        let (ended, ()) = tokio::join!(passing, keep_turn(&visit, waiting, turn));
        match ended {
            // A CONNECT of the right length that rmqtt could make nothing of: it closes without a word.
            Ended::Inside if *visit.stage.borrow() == Stage::Knocking => Ended::Because(Refusal::NotMqtt),
            ended => ended,
        }
    }

    /// Connects to the inner port from a port that is on the list before rmqtt can see it.
    async fn reach(
        &self,
        from: SocketAddr,
        certificate: Option<String>,
    ) -> std::io::Result<(super::visits::Entry, TcpStream)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let entry = self.visits.enter(socket.local_addr()?.port(), from, certificate);
        let stream = socket.connect(self.inner).await?;
        stream.set_nodelay(true)?;
        Ok((entry, stream))
    }
}

/// What the peer's kernel has not acknowledged within [`SEND_WITHIN`] ends the connection (`TCP_USER_TIMEOUT`, tcp(7)).
fn bound_sending(stream: &TcpStream) -> std::io::Result<()> {
    let within_ms = u32::try_from(SEND_WITHIN.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, within_ms)?)
}

/// Until the login is decided; then on success at once, otherwise after a while, the turn is the next one's.
async fn keep_turn(visit: &Arc<Visit>, waiting: Waiting, turn: OwnedSemaphorePermit) {
    let mut stage = visit.stage.subscribe();
    let decided = stage.wait_for(|stage| *stage != Stage::Knocking);
    let inside = timeout(TURN_WITHIN, decided)
        .await
        .is_ok_and(|decided| decided.is_ok_and(|stage| matches!(*stage, Stage::Inside(_))));
    if !inside {
        sleep(REFUSED_HOLD).await;
    }
    drop(turn);
    drop(waiting);
}

/// Reads up to the end of the CONNECT; what the client sent behind it comes along.
async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
) -> Result<(BytesMut, Frames), Ended> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            // Whoever says nothing is a probe of the port; whoever stops in the middle is not MQTT.
            let silent = bytes.is_empty();
            return Err(if silent { Ended::Quietly } else { Ended::Because(Refusal::NotMqtt) });
        }
        let Some(length) = connect_length(&bytes).map_err(Ended::Because)? else { continue };
        if let Some(behind) = bytes.get(length..) {
            if !version_known(&bytes) {
                stream.write_all(&VERSION_REFUSED).await?;
                return Err(Ended::Because(Refusal::UnsupportedVersion));
            }
            let mut frames = Frames::default();
            frames.feed(behind).map_err(Ended::Because)?;
            ask_for_clean_session(&mut bytes);
            return Ok((bytes, frames));
        }
    }
}

/// Passes bytes both ways until one side ends.
async fn pass<S>(client: S, inner: TcpStream, first: &[u8], frames: Frames) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (client_rx, client_tx) = tokio::io::split(client);
    let (inner_rx, inner_tx) = tokio::io::split(inner);
    let gone = AtomicBool::new(false);
    let upward = async {
        match up(client_rx, inner_tx, first, frames).await {
            // The client has gone: its session ends, and says so by closing.
            Ok(()) => {
                gone.store(true, Ordering::Relaxed);
                sleep(END_WITHIN).await;
                Ended::Quietly
            }
            Err(ended) => ended,
        }
    };
    match first_of(upward, down(inner_rx, client_tx)).await {
        Ended::Inside if gone.load(Ordering::Relaxed) => Ended::Quietly,
        ended => ended,
    }
}

async fn first_of(a: impl Future<Output = Ended>, b: impl Future<Output = Ended>) -> Ended {
    tokio::select! {
        ended = a => ended,
        ended = b => ended,
    }
}

async fn up<S: AsyncRead>(
    mut client: ReadHalf<S>,
    mut inner: WriteHalf<TcpStream>,
    first: &[u8],
    mut frames: Frames,
) -> Result<(), Ended> {
    inner.write_all(first).await?;
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        bytes.clear();
        bytes.reserve(READ_BYTES);
        // A TLS client that closes without saying goodbye has gone like any other.
        let read = client.read_buf(&mut bytes).await.unwrap_or(0);
        if read == 0 {
            inner.shutdown().await?;
            return Ok(());
        }
        frames.feed(&bytes).map_err(Ended::Because)?;
        inner.write_all(&bytes).await?;
    }
}

async fn down<S: AsyncWrite>(mut inner: ReadHalf<TcpStream>, mut client: WriteHalf<S>) -> Ended {
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        bytes.clear();
        bytes.reserve(READ_BYTES);
        let read = inner.read_buf(&mut bytes).await.unwrap_or(0);
        let sent = if read == 0 {
            timeout(SEND_WITHIN, client.shutdown()).await
        } else {
            timeout(SEND_WITHIN, client.write_all(&bytes)).await
        };
        match sent {
            Ok(Ok(())) if read > 0 => {}
            Ok(Ok(())) => return Ended::Inside,
            _ => return Ended::Quietly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_network_swallows_ends_its_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (client, (stream, from)) = (client.unwrap(), accepted.unwrap());
        // The same socket, to look at while the door has it.
        let socket = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned().unwrap();
        let limit_ms = || rustix::net::sockopt::tcp_user_timeout(&socket).unwrap();
        assert_eq!(limit_ms(), 0, "the kernel's own: a quarter of an hour");
        let bus = BusName::new("lan").unwrap();
        let inner = listener.local_addr().unwrap();
        let door = Door::new(bus, inner, Arc::default(), Arc::new(Metrics::new()), 8, 8);
        let (_place, waiting) = door.admit(from.ip()).unwrap_or_else(|reason| panic!("{reason:?}"));
        drop(client);
        door.attend(stream, from, None, waiting).await;
        assert_eq!(limit_ms(), 10_000);
    }
}
