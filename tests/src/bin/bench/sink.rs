//! The far end: subscribes at the platform's broker, knows every event again by its mark, and notes when it came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatehouse_tests::wait::eventually_ok;
use gatehouse_tests::wire::{self, Connect, Packet, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{MARK, Run};

/// Bytes of `0001-0000000001`.
const MARK_BYTES: usize = 15;

/// What has come of one run.
#[derive(Debug, Default)]
struct Heard {
    /// None: a run that is only counted.
    run: Option<Run>,
    id: u32,
    seen: Vec<bool>,
    count: u64,
    repeated: u64,
    latencies_us: Vec<u32>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// One subscriber.
#[derive(Debug)]
pub struct Sink {
    heard: Arc<Mutex<Vec<Heard>>>,
    /// Ends with this.
    _task: JoinSet<()>,
}

/// A run as the far end saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub count: u64,
    /// Milliseconds from when an event was due to when it came, sorted.
    pub latencies_ms: Vec<f64>,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
}

impl Seen {
    /// The latency that `share` of all events kept to; infinite without events.
    pub fn quantile(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = (self.latencies_ms.len() as f64 * share).ceil() as usize;
        self.latencies_ms.get(place.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
    }
}

impl Sink {
    /// Subscribes to everything at QoS 0: the broker does not have to keep accounts of what we have.
    pub async fn start(broker: SocketAddr) -> Self {
        let mut stream =
            eventually_ok("the platform's broker listens", Duration::from_secs(10), async || {
                TcpStream::connect(broker).await
            })
            .await;
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        let mut connect = Connect::new(Version::V311, "bench-sink");
        connect.keep_alive_s = 0;
        stream.write_all(&connect.encode()).await.expect("the platform's broker takes a CONNECT");
        let mut subscribe = wire::subscribe(Version::V311, 1, "#");
        *subscribe.last_mut().expect("the filter's QoS is last") = 0;
        stream.write_all(&subscribe).await.expect("the platform's broker takes a SUBSCRIBE");
        for _ in 0..2 {
            match wire::read(&mut stream, Version::V311).await {
                Ok(Some(Packet::ConnAck { code: 0 } | Packet::SubAck { .. })) => {}
                other => panic!("the platform's broker does not let us listen: {other:?}"),
            }
        }
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(listen(stream, Arc::clone(&heard)));
        Self { heard, _task: task }
    }

    /// From now on events of this run are known.
    pub fn expect(&self, run: Run) {
        let places = usize::try_from(run.count).expect("a run fits memory");
        let heard = Heard { run: Some(run), id: run.id, seen: vec![false; places], ..Heard::default() };
        self.heard.lock().unwrap().push(heard);
    }

    /// From now on events of the run `id` are counted.
    pub fn count(&self, id: u32) {
        self.heard.lock().unwrap().push(Heard { id, ..Heard::default() });
    }

    pub fn received(&self, id: u32) -> u64 {
        self.heard.lock().unwrap().iter().find(|heard| heard.id == id).map_or(0, |heard| heard.count)
    }

    /// What came of a run, which is forgotten.
    pub fn take(&self, id: u32) -> Seen {
        let mut all = self.heard.lock().unwrap();
        let place = all.iter().position(|heard| heard.id == id).expect("the run was announced");
        let heard = all.swap_remove(place);
        let mut latencies_ms: Vec<f64> =
            heard.latencies_us.iter().map(|latency_us| f64::from(*latency_us) / 1_000.0).collect();
        latencies_ms.sort_by(f64::total_cmp);
        Seen { count: heard.count, latencies_ms, first: heard.first, last: heard.last }
    }
}

async fn listen(mut stream: TcpStream, heard: Arc<Mutex<Vec<Heard>>>) {
    let mut bytes = Vec::with_capacity(512 * 1024);
    let mut hint = 0;
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let now = Instant::now();
        let mut from = 0;
        let mut all = heard.lock().unwrap();
        while let Some((header, length)) = frame(&bytes[from..]) {
            let body = &bytes[from + header..from + header + length];
            if bytes[from] >> 4 == 3
                && let Some((id, k)) = mark(body, &mut hint)
                && let Some(heard) = all.iter_mut().find(|heard| heard.id == id)
            {
                heard.note(k, now);
            }
            from += header + length;
        }
        drop(all);
        bytes.drain(..from);
    }
}

impl Heard {
    fn note(&mut self, k: u64, now: Instant) {
        if let Some(run) = &self.run {
            let place = usize::try_from(k).unwrap_or(usize::MAX);
            match self.seen.get_mut(place) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    self.repeated += 1;
                    return;
                }
            }
            let latency = now.saturating_duration_since(run.due(k));
            self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        }
        self.count += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

/// Lengths of the fixed header and of the rest, of a frame that is complete.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut header) = (0_usize, 1);
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(header)?;
        header += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bytes.len() >= header + length).then_some((header, length))
}

/// The run and the number of an event. Most messages have them at the same place as the one before.
fn mark(body: &[u8], hint: &mut usize) -> Option<(u32, u64)> {
    let found = |at: usize| body.get(at..at + MARK.len()) == Some(MARK);
    if !found(*hint) {
        *hint = body.windows(MARK.len()).position(|window| window == MARK)?;
    }
    let from = *hint + MARK.len();
    let text = std::str::from_utf8(body.get(from..from + MARK_BYTES)?).ok()?;
    let (run, k) = text.split_once('-')?;
    Some((run.parse().ok()?, k.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::payload;

    #[test]
    fn an_event_is_known_again_wherever_its_mark_stands() {
        let mut hint = 0;
        for wrap in ["", "{\"data\":{\"params\":", "{\"d\":"] {
            let body = [wrap.as_bytes(), &payload(7, 123_456)].concat();
            assert_eq!(mark(&body, &mut hint), Some((7, 123_456)), "{wrap}");
        }
        assert_eq!(mark(b"{\"state\":1}", &mut hint), None);
    }

    #[test]
    fn frames_are_taken_when_they_are_complete() {
        let packet = wire::frame(0x30, &[1; 300]);
        assert_eq!(frame(&packet), Some((3, 300)));
        assert_eq!(frame(&packet[..302]), None);
        assert_eq!(frame(&packet[..1]), None);
    }
}
