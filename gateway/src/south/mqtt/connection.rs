//! One connection to an external broker, from CONNECT to its end. The loop around it is the supervisor's.
//!
//! Messages are judged in the order in which they came, and acknowledged so (MQTT 5, 4.6). What comes while a commit is
//! under way waits, and goes into the next one together.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rumqttc::{
    AckMode, AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish,
    QoS, RetainForwardRule, StateError, SubAck, SubscribeFilterInput, SubscribeNoticeError,
    SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::session::OurPart;
use super::{External, MqttError, PACKET_BYTES_MAX, WINDOW};
use crate::model::journal::{Durability, JournalError};
use crate::model::refusal::Refusal;
use crate::rt::mqtt;
use crate::south::line::{BATCH_MAX, Message, Source, Verdict};
use crate::south::notice;
use crate::south::profile::Origin;

/// Packets that wait to be taken: beside the window, what came at QoS 0. Full: nothing more is read from the broker.
const PACKETS_MAX: usize = 8;
/// Topics in one SUBSCRIBE packet.
const TOPICS_AT_ONCE: usize = 64;
/// Acknowledgements, SUBSCRIBEs and UNSUBSCRIBEs that wait to be sent. 5 000 points need fewer devices.
const REQUESTS_MAX: usize = 1_024;
/// Requests that the client sends at once.
const REQUEST_BATCH_MAX: usize = 4 * BATCH_MAX;
/// How long CONNACK may take, TCP and TLS included.
const CONNACK_WAIT: Duration = Duration::from_secs(20);
/// How long the DISCONNECT, and the acknowledgements before it, may take to leave. Less than the south's grace.
const GOODBYE_WAIT: Duration = Duration::from_millis(700);
/// MQTT 5 reason code of DISCONNECT: session taken over.
const TAKEN_OVER: u8 = 0x8e;
const SECONDS_PER_HOUR: u32 = 3_600;

type Polling = Pin<Box<dyn Future<Output = MqttError> + Send>>;
/// Messages and what became of each. A notice of ours has no messages, only a verdict.
type Judged = (Vec<Publish>, Vec<Verdict>);
/// Which topics were asked for, and the answer.
type Granted = (Vec<String>, Result<SubAck, SubscribeNoticeError>);

fn options(external: &External) -> Result<MqttOptions, MqttError> {
    let mut options = mqtt::options(&external.config.peer(), &external.client_id, &external.line.deps.clock)?;
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(external.config.session_expiry_h.saturating_mul(SECONDS_PER_HOUR)))
        // The client is a new one each time, and the session all the same the one that the broker kept.
        .set_session_store(OurPart)
        .set_ack_mode(AckMode::Manual)
        .set_receive_maximum(Some(WINDOW))
        // One write for the acknowledgements of a whole batch.
        .set_max_request_batch(REQUEST_BATCH_MAX)
        .set_max_packet_size(Some(PACKET_BYTES_MAX));
    Ok(options)
}

/// The event loop as one future, polled without a break: it ends only with the connection.
async fn poll(mut eventloop: EventLoop, packets_tx: mpsc::Sender<Packet>, client_id: String) -> MqttError {
    loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(packet @ (Packet::ConnAck(_) | Packet::Publish(_)))) => {
                if matches!(packet, Packet::ConnAck(_)) {
                    // It has served: with it the library would look through all 65 535 packet ids for every PUBACK.
                    eventloop.options.clear_session_store();
                }
                if packets_tx.send(packet).await.is_err() {
                    return MqttError::Lost("its reader has ended".to_owned());
                }
            }
            // SUBACKs reach us by their notices, the rest is for the client.
            Ok(Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_)) => {}
            Err(error) => return ended(&error, client_id),
        }
    }
}

fn ended(error: &ConnectionError, client_id: String) -> MqttError {
    match error {
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::MqttState(StateError::ConnFail { reason }) => refused(*reason),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })
            if *reason_code as u8 == TAKEN_OVER =>
        {
            MqttError::TakenOver(client_id)
        }
        other => MqttError::Lost(other.to_string()),
    }
}

fn refused(code: ConnectReturnCode) -> MqttError {
    use ConnectReturnCode as Code;
    let hint = match code {
        Code::BadUserNamePassword | Code::NotAuthorized => {
            "; check `username`, `password_file` and the broker's rights"
        }
        Code::ClientIdentifierNotValid | Code::BadClientId => "; set `client_id` as the broker asks for it",
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => "; the broker must speak MQTT 5",
        _ => "",
    };
    MqttError::Refused { code: format!("{code:?}"), hint }
}

/// One connection. `Ok` only after `cancel`.
pub(super) async fn run_once(
    external: &External,
    cancel: &CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), MqttError> {
    let (client, eventloop) = AsyncClient::builder(options(external)?).capacity(REQUESTS_MAX).build();
    let (packets_tx, packets_rx) = mpsc::channel(PACKETS_MAX);
    let polling: Polling = Box::pin(poll(eventloop, packets_tx, external.client_id.clone()));
    let mut connection = Connection {
        external,
        client,
        polling,
        packets_rx,
        waiting: VecDeque::new(),
        judging: None,
        asked: FuturesUnordered::new(),
        denied: Vec::new(),
    };
    tokio::select! {
        opened = connection.open() => opened?,
        () = cancel.cancelled() => return Ok(()),
    }
    external.speak_by(Some(connection.client.clone()));
    ready();
    let ended = connection.serve(cancel).await;
    if ended.is_err() {
        connection.finish_judging().await;
    }
    ended
}

struct Connection<'a> {
    external: &'a External,
    client: AsyncClient,
    polling: Polling,
    packets_rx: mpsc::Receiver<Packet>,
    /// In the order of arrival; at most [`WINDOW`].
    waiting: VecDeque<Publish>,
    /// What is being committed.
    judging: Option<BoxFuture<'a, Judged>>,
    asked: FuturesUnordered<BoxFuture<'static, Granted>>,
    /// Topics that the broker does not let us hear.
    denied: Vec<String>,
}

impl Connection<'_> {
    /// CONNACK, the subscriptions' requests, and what a lost session means.
    async fn open(&mut self) -> Result<(), MqttError> {
        let until = Instant::now() + CONNACK_WAIT;
        let connack = loop {
            tokio::select! {
                biased;
                packet = self.packets_rx.recv() => match packet {
                    Some(Packet::ConnAck(connack)) => break connack,
                    Some(_) => {}
                    None => return Err(MqttError::Lost("it ended before CONNACK".to_owned())),
                },
                error = &mut self.polling => return Err(error),
                () = sleep_until(until) => return Err(MqttError::Lost("no CONNACK came".to_owned())),
            }
        };
        self.external.up(connack.session_present);
        if self.external.session_lost.load(Ordering::SeqCst) {
            // First of all, so that it stands in front of what comes now.
            self.judging = Some(tell_session_lost(self.external).boxed());
        }
        self.subscribe()
    }

    /// Exactly the topics that the roster needs. Of a session that the broker kept, retained messages do not come again:
    /// they would overtake what it has queued.
    fn subscribe(&mut self) -> Result<(), MqttError> {
        let mut topics: Vec<String> = self.external.line.roster.topics().map(str::to_owned).collect();
        topics.sort_unstable();
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            let filter = |topic: &String| {
                SubscribeFilterInput::new(topic, QoS::AtLeastOnce)
                    .retain_forward_rule(RetainForwardRule::OnNewSubscribe)
            };
            let notice = self
                .client
                .try_subscribe_many_tracked(topics.iter().map(filter))
                .map_err(|error| MqttError::Lost(format!("SUBSCRIBE could not be sent: {error}")))?;
            let topics = topics.to_vec();
            self.asked.push(async move { (topics, notice.wait_async().await) }.boxed());
        }
        Ok(())
    }

    async fn serve(&mut self, cancel: &CancellationToken) -> Result<(), MqttError> {
        loop {
            self.judge_next();
            let room = self.waiting.len() < usize::from(WINDOW);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.say_goodbye().await,
                judged = under_way(&mut self.judging) => self.answer(judged)?,
                Some(granted) = self.asked.next() => self.take_granted(granted)?,
                packet = self.packets_rx.recv(), if room => {
                    if let Some(Packet::Publish(publish)) = packet {
                        self.waiting.push_back(publish);
                    }
                }
                error = &mut self.polling => return Err(error),
            }
        }
    }

    /// Takes up what waits, if nothing is under way.
    fn judge_next(&mut self) {
        if self.judging.is_none() && !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH_MAX);
            let batch = self.waiting.drain(..count).collect();
            self.judging = Some(judge(self.external, batch).boxed());
        }
    }

    /// Acknowledges up to the first that was not stored; then the connection ends, so that the broker sends again.
    fn answer(&mut self, (publishes, verdicts): Judged) -> Result<(), MqttError> {
        self.judging = None;
        let mut publishes = publishes.iter();
        for verdict in verdicts {
            if let Verdict::Withheld(reason) = verdict {
                return Err(MqttError::Withheld(reason));
            }
            let Some(publish) = publishes.next() else { continue };
            let lost =
                |error: rumqttc::ClientError| MqttError::Lost(format!("PUBACK could not be sent: {error}"));
            self.client.try_ack(publish).map_err(lost)?;
            if verdict == Verdict::Refused(Refusal::TopicUnknown) {
                // The session still knows a device that was taken out of the configuration.
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                if let Err(error) = self.client.try_unsubscribe(topic) {
                    tracing::debug!(bus = %self.external.line.bus, %error, "UNSUBSCRIBE could not be sent");
                }
            }
        }
        Ok(())
    }

    /// The answer to one SUBSCRIBE. When all have come, the session is worth remembering.
    fn take_granted(&mut self, (topics, answer): Granted) -> Result<(), MqttError> {
        let suback = answer.map_err(|error| MqttError::Lost(format!("SUBSCRIBE: {error}")))?;
        let codes = suback.return_codes.iter().map(Some).chain(std::iter::repeat(None));
        for (topic, code) in topics.into_iter().zip(codes) {
            if !matches!(code, Some(SubscribeReasonCode::Success(_))) {
                self.external.line.count(self.external.line.bus.as_str(), Refusal::SubscriptionDenied);
                self.denied.push(topic);
            }
        }
        if !self.asked.is_empty() {
            return Ok(());
        }
        if let (Some(first), count) = (self.denied.first(), self.denied.len()) {
            self.external.warn(&format!(
                "the broker refuses {count} subscriptions, the first to {first:?}; grant this client to read it"
            ));
        }
        if let Err(error) = self.external.known.note() {
            tracing::warn!(bus = %self.external.line.bus, %error, "the session could not be noted: if the broker loses it over a restart of the gateway, nobody will know");
        }
        Ok(())
    }

    /// After the connection's end: what is being judged is settled, so that it is known when the broker repeats it.
    async fn finish_judging(&mut self) {
        if self.judging.is_some() {
            let until = Instant::now() + self.external.line.commit_timeout;
            // The broker repeats it whatever became of it.
            if timeout_at(until, under_way(&mut self.judging)).await.is_err() {
                tracing::warn!(bus = %self.external.line.bus, "a commit was left under way");
            }
        }
    }

    /// Acknowledges what is on disk and disconnects. The broker keeps the session.
    async fn say_goodbye(&mut self) -> Result<(), MqttError> {
        let until = Instant::now() + GOODBYE_WAIT;
        while self.judging.is_some() {
            tokio::select! {
                biased;
                judged = under_way(&mut self.judging) => self.answer(judged)?,
                // What still arrives is not taken any more, and comes again.
                _untaken = self.packets_rx.recv() => {}
                error = &mut self.polling => return Err(error),
                () = sleep_until(until) => break,
            }
        }
        self.external.speak_by(None);
        self.client
            .try_disconnect()
            .map_err(|error| MqttError::Lost(format!("DISCONNECT could not be sent: {error}")))?;
        loop {
            tokio::select! {
                end = &mut self.polling => {
                    tracing::debug!(bus = %self.external.line.bus, %end, "disconnected");
                    return Ok(());
                }
                _untaken = self.packets_rx.recv() => {}
                () = sleep_until(until) => return Ok(()),
            }
        }
    }
}

/// What is under way, or never if nothing is.
async fn under_way(judging: &mut Option<BoxFuture<'_, Judged>>) -> Judged {
    match judging {
        Some(judging) => judging.await,
        None => std::future::pending().await,
    }
}

/// Judges messages and commits what they say.
async fn judge(external: &External, publishes: Vec<Publish>) -> Judged {
    let source = Source { name: external.line.bus.as_str(), speaker: &external.speaker, base: None };
    let messages: Vec<Message<'_>> = publishes.iter().map(message).collect();
    let verdicts = external.line.publish_all(source, &messages).await;
    drop(messages);
    (publishes, verdicts)
}

fn message(publish: &Publish) -> Message<'_> {
    Message {
        // No topic of ours is empty: what is no text is refused as malformed.
        topic: std::str::from_utf8(&publish.topic).unwrap_or_default(),
        payload: &publish.payload,
        qos: publish.qos as u8,
        // Without "retain as published" the flag stands only on what the broker had kept (MQTT 5, 3.3.1.3).
        origin: if publish.retain { Origin::Kept } else { Origin::Live },
    }
}

/// Tells that the session was lost; while that is not stored, the connection does not stand.
async fn tell_session_lost(external: &External) -> Judged {
    let at = external.line.deps.clock.now();
    let draft = notice::session_lost(&at, &external.line.bus, &external.config.peer().authority());
    let append = external.line.deps.journal.append(vec![draft], Durability::Synced);
    match tokio::time::timeout(external.line.commit_timeout, append).await {
        Ok(Ok(_) | Err(JournalError::Rejected(_) | JournalError::Volatile)) => {
            external.session_lost.store(false, Ordering::SeqCst);
            (Vec::new(), vec![Verdict::Taken])
        }
        Ok(Err(_)) => (Vec::new(), vec![Verdict::Withheld(Refusal::StoreFailed)]),
        Err(_elapsed) => (Vec::new(), vec![Verdict::Withheld(Refusal::StoreSlow)]),
    }
}
