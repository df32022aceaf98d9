//! One connection, from CONNECT to its end: who is there, what is heard, what is published. Returns how it ended; the
//! loop around it decides what comes next.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rumqttc::{
    AsyncClient, ConnAck, ConnectReturnCode, ConnectionError, Event, EventLoop, Packet, PublishNoticeError,
    PublishOptions, PublishResult, QoS, StateError, SubscribeFilterInput, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::model::ids::Epoch;
use crate::model::journal::JournalError;
use crate::model::limits::PLATFORM_PAYLOAD_BYTES_MAX;
use crate::model::refusal::Refusal;
use crate::north::contract::{Down, StateReason, Stream, answer_to_refused, parse_down};
use crate::north::engine::{Kind, Publish, Session};

use super::LinkError;
use super::options::options;
use super::shell::Shell;

/// Packets from the broker that wait for the link. Full: the event loop is not polled until one was taken.
const PACKETS_MAX: usize = 64;
/// Publishes beside the window: answers, state, farewell.
const REQUESTS_SPARE: usize = 64;
/// How long CONNACK may take, TCP and TLS included.
const CONNACK_WAIT: Duration = Duration::from_secs(20);
/// How long the broker may take to answer SUBSCRIBE.
const SUBACK_WAIT: Duration = Duration::from_secs(8);
/// Retained messages follow the SUBACK at once; so long is waited for our own state.
const RETAINED_WAIT: Duration = Duration::from_millis(300);
/// Messages from the platform that may come before the first publish.
const EARLY_MAX: usize = 64;
/// How long the DISCONNECT may take to leave.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);
/// PUBACKs taken before the engine gets its turn.
const ACKS_AT_ONCE: usize = 256;
/// MQTT 5 reason code of DISCONNECT: session taken over.
const TAKEN_OVER: u8 = 0x8e;

type Ack = (u64, Result<PublishResult, PublishNoticeError>);
type Polling = Pin<Box<dyn Future<Output = LinkError> + Send>>;

/// The event loop as one future, polled without a break: it ends only with the connection.
async fn poll(mut eventloop: EventLoop, packets_tx: mpsc::Sender<Packet>) -> LinkError {
    loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(packet @ (Packet::ConnAck(_) | Packet::Publish(_)))) => {
                if packets_tx.send(packet).await.is_err() {
                    return LinkError::Lost("the link has ended".to_owned());
                }
            }
            // The rest is for the client: PUBACKs reach us by their notices.
            Ok(Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_)) => {}
            Err(error) => return ended(&error),
        }
    }
}

fn ended(error: &ConnectionError) -> LinkError {
    match error {
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::MqttState(StateError::ConnFail { reason }) => refused(*reason),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let code = *reason_code as u8;
            if code == TAKEN_OVER {
                return LinkError::TakenOver;
            }
            let words = reason_string.as_deref().unwrap_or_default();
            LinkError::Expelled { code, text: format!("0x{code:02x} {reason_code:?} {words}") }
        }
        other => LinkError::Lost(other.to_string()),
    }
}

fn refused(code: ConnectReturnCode) -> LinkError {
    use ConnectReturnCode as Code;
    let busy = matches!(
        code,
        Code::ServerUnavailable
            | Code::ServiceUnavailable
            | Code::ServerBusy
            | Code::QuotaExceeded
            | Code::ConnectionRateExceeded
    );
    let hint = match code {
        Code::BadUserNamePassword | Code::NotAuthorized => {
            "; check `username`, `password_file` and the broker's rights"
        }
        Code::ClientIdentifierNotValid | Code::BadClientId => "; set `client_id` as the platform asks for it",
        Code::RetainNotSupported => "; the broker must keep retained messages for up/state",
        Code::QoSNotSupported => "; the broker must take QoS 1",
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => "; the broker must speak MQTT 5",
        _ => "",
    };
    LinkError::Refused { code: format!("{code:?}"), hint, busy }
}

/// What a retained or late state on our own topic says of who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) epoch: Epoch,
    pub(super) conn: u64,
    pub(super) online: bool,
}

impl Seen {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > PLATFORM_PAYLOAD_BYTES_MAX {
            return None;
        }
        let state: serde_json::Value = serde_json::from_slice(payload).ok()?;
        let epoch = Epoch::try_from(state.get("epoch")?.as_str()?.to_owned()).ok()?;
        let data = state.get("data")?;
        Some(Self { epoch, conn: data.get("conn")?.as_u64()?, online: data.get("online")?.as_bool()? })
    }
}

/// One connection. `Ok` only after a goodbye.
pub(super) async fn run_once(shell: &mut Shell, cancel: &CancellationToken) -> Result<(), LinkError> {
    let parts = shell.parts.clone();
    let conn = parts.store.next_conn(&parts.uplink, shell.conn_floor).await?;
    let epoch = shell.source.epoch();
    let will = shell.wording.will(conn, epoch, &shell.now());
    let default_id = format!("gatehouse-{}-{}", parts.gateway, parts.uplink);
    let client_id = parts.config.client_id.as_deref().unwrap_or(&default_id);
    let options = options(&parts.config, client_id, will, &parts.clock)?;
    let requests = usize::from(parts.config.pacing.inflight) + REQUESTS_SPARE;
    let (client, eventloop) = AsyncClient::builder(options).capacity(requests).build();
    let (packets_tx, packets_rx) = mpsc::channel(PACKETS_MAX);
    let polling: Polling = Box::pin(poll(eventloop, packets_tx));
    shell.conn = conn;
    let mut connection = Connection {
        shell,
        client,
        polling,
        packets_rx,
        acks: FuturesUnordered::new(),
        epoch,
        retain: true,
        copied: None,
        early: Vec::new(),
    };
    tokio::select! {
        session = connection.open() => {
            let session = session?;
            connection.serve(session, cancel).await
        }
        () = cancel.cancelled() => Ok(()),
    }
}

struct Connection<'a> {
    shell: &'a mut Shell,
    client: AsyncClient,
    polling: Polling,
    packets_rx: mpsc::Receiver<Packet>,
    acks: FuturesUnordered<BoxFuture<'static, Ack>>,
    epoch: Epoch,
    /// Whether the broker keeps retained messages.
    retain: bool,
    /// A retained state that came late, perhaps from another life of this journal.
    copied: Option<Seen>,
    /// What came before the heads were fixed.
    early: Vec<rumqttc::Publish>,
}

impl Connection<'_> {
    async fn packet(&mut self, until: Instant, what: &str) -> Result<Option<Packet>, LinkError> {
        tokio::select! {
            biased;
            packet = self.packets_rx.recv() => {
                packet.map(Some).ok_or_else(|| LinkError::Lost(format!("it ended before {what}")))
            }
            error = &mut self.polling => Err(error),
            () = sleep_until(until) => Ok(None),
        }
    }

    /// CONNACK, subscriptions, and a look at who else speaks under this name.
    async fn open(&mut self) -> Result<Session, LinkError> {
        let until = Instant::now() + CONNACK_WAIT;
        let connack = loop {
            match self.packet(until, "CONNACK").await? {
                Some(Packet::ConnAck(connack)) => break connack,
                Some(_) => {}
                None => return Err(LinkError::Lost("no CONNACK came".to_owned())),
            }
        };
        let session = self.session(&connack);
        let state_readable = self.subscribe().await?;
        let own = self.shell.wording.topics.state();
        let is_own = |publish: &rumqttc::Publish| publish.topic.as_ref() == own.as_bytes();
        // It may have come before its SUBACK was looked at.
        let mut retained = self.early.iter().position(is_own).map(|place| self.early.remove(place));
        let until = Instant::now() + RETAINED_WAIT;
        while state_readable && retained.is_none() {
            match self.packet(until, "the retained state").await? {
                Some(Packet::Publish(publish)) if is_own(&publish) => retained = Some(publish),
                Some(Packet::Publish(publish)) => self.keep_early(publish),
                Some(_) => {}
                None => break,
            }
        }
        if let Some(seen) = retained.and_then(|publish| Seen::parse(&publish.payload)) {
            if seen.epoch != self.epoch {
                self.shell.meet_foreign(self.epoch);
            } else if seen.conn >= session.conn && self.is_copy(seen)? {
                return Err(self.fork(seen.conn).await);
            }
        }
        Ok(session)
    }

    /// Whether a later state of our epoch means that this journal is a copy. Not if another uplink of this gateway has
    /// written it, and not in an epoch that began in this process: that one was in nobody's copy.
    fn is_copy(&mut self, seen: Seen) -> Result<bool, LinkError> {
        let shell = &mut *self.shell;
        // Our own number, said by somebody before us, was given out twice.
        if seen.conn != shell.conn && seen.conn <= shell.source.conn_max()? {
            let trouble = "another uplink of this gateway speaks to the same platform under the same topics; \
                           remove one of the two, or give each its own `root` and `client_id`";
            if shell.trouble.as_deref() != Some(trouble) {
                warn!(uplink = %shell.parts.uplink, "{trouble}");
            }
            shell.trouble = Some(trouble.to_owned());
            return Ok(false);
        }
        if seen.epoch != shell.first_epoch {
            shell.suspect_duplicate();
            return Ok(false);
        }
        Ok(true)
    }

    fn session(&mut self, connack: &ConnAck) -> Session {
        let properties = connack.properties.as_ref();
        if properties.and_then(|properties| properties.retain_available) == Some(0) {
            self.retain = false;
            self.shell.trouble = Some(
                "the broker keeps no retained messages: platforms that come later miss up/state".to_owned(),
            );
        }
        Session {
            conn: self.shell.conn,
            epoch: self.epoch,
            receive_max: properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX),
            packet_max: properties.and_then(|properties| properties.max_packet_size).unwrap_or(u32::MAX),
        }
    }

    /// Subscribes to commands and to our own state. Says whether the state will be heard; a refusal stops nothing.
    async fn subscribe(&mut self) -> Result<bool, LinkError> {
        let topics = self.shell.wording.topics.clone();
        let at_least_once = |filter| SubscribeFilterInput::new(filter, QoS::AtLeastOnce);
        // What is retained must be known for it also when it comes at once: it would come again with each connection.
        let filters =
            [at_least_once(topics.down_filter()).preserve_retain(true), at_least_once(topics.state())];
        let notice = self
            .client
            .try_subscribe_many_tracked(filters)
            .map_err(|error| LinkError::Lost(format!("SUBSCRIBE could not be sent: {error}")))?;
        let until = Instant::now() + SUBACK_WAIT;
        let mut waiting = Box::pin(timeout_at(until, notice.wait_async()));
        let suback = loop {
            tokio::select! {
                biased;
                suback = &mut waiting => break suback,
                error = &mut self.polling => return Err(error),
                packet = self.packets_rx.recv() => {
                    if let Some(Packet::Publish(publish)) = packet {
                        self.keep_early(publish);
                    }
                }
            }
        };
        let codes = match suback {
            Ok(Ok(suback)) => suback.return_codes,
            Ok(Err(error)) => return Err(LinkError::Lost(format!("SUBSCRIBE: {error}"))),
            Err(_late) => return Err(LinkError::Lost("SUBSCRIBE was not answered".to_owned())),
        };
        let granted = |place: usize| matches!(codes.get(place), Some(SubscribeReasonCode::Success(_)));
        if !granted(0) {
            let (filter, code) = (topics.down_filter(), codes.first());
            warn!(uplink = %self.shell.parts.uplink, filter, ?code, "the broker refuses the subscription to commands");
            self.shell.trouble = Some(format!(
                "the broker refuses the subscription to {filter} ({code:?}): commands cannot come; grant this client to read it"
            ));
        }
        Ok(granted(1))
    }

    fn keep_early(&mut self, publish: rumqttc::Publish) {
        if self.early.len() < EARLY_MAX {
            self.early.push(publish);
        } else {
            let uplink = self.shell.parts.uplink.as_str();
            self.shell.parts.metrics.refused(uplink, Refusal::QueueFull);
        }
    }

    /// The platform has a state of our own epoch from a connection that we have not had yet: this journal is a copy.
    async fn fork(&mut self, seen_conn: u64) -> LinkError {
        let parts = &self.shell.parts;
        let reason = format!("platform {} has seen connection {seen_conn} of this epoch", parts.uplink);
        match parts.store.fork_epoch(&reason).await {
            Ok(_epoch) => LinkError::Forked,
            // No record gets a lasting number before the disk is back, and then the fork comes first.
            Err(JournalError::Volatile) => {
                self.shell.conn_floor = seen_conn.saturating_add(1);
                LinkError::Outrun
            }
            Err(error) => error.into(),
        }
    }

    /// Publishes and listens until the connection ends or `cancel` asks for the goodbye.
    async fn serve(&mut self, session: Session, cancel: &CancellationToken) -> Result<(), LinkError> {
        let shell = &mut *self.shell;
        let uplink = shell.parts.uplink.clone();
        if shell.echo.tell("connected", shell.parts.clock.mono_ms()).is_some() {
            info!(%uplink, conn = session.conn, "connected to the platform");
        }
        shell.parts.metrics.connection(uplink.as_str(), "connected");
        let now_ms = shell.parts.clock.mono_ms();
        shell.begin_connection(now_ms);
        shell.engine.connected(session, &shell.parts.clock.now());
        shell.spoke_as = Some(session.epoch);
        shell.show(now_ms, true);
        shell.answer_late();
        for publish in std::mem::take(&mut self.early) {
            self.hear(&publish);
        }
        loop {
            if let Some(seen) = self.copied.take()
                && self.is_copy(seen)?
            {
                return Err(self.fork(seen.conn).await);
            }
            if self.shell.is_outdated() {
                return Err(LinkError::Reopened);
            }
            if self.shell.source.epoch() != self.epoch {
                // Another uplink found out that this journal is a copy: state and will must say the new epoch.
                return Err(LinkError::Forked);
            }
            let actions = self.shell.step().await;
            for publish in actions.publishes {
                self.publish(publish)?;
            }
            if let Some(why) = actions.cut {
                return Err(LinkError::Silent(why));
            }
            let wake_at = self.shell.wake_at;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.say_goodbye().await,
                Some(ack) = self.acks.next() => self.acknowledge(ack)?,
                packet = self.packets_rx.recv() => {
                    if let Some(Packet::Publish(publish)) = packet {
                        self.hear(&publish);
                    }
                }
                error = &mut self.polling => {
                    self.last_acks();
                    return Err(error);
                }
                news = self.shell.news() => {
                    if let Some(done) = news? {
                        self.shell.take_done(done);
                    }
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn publish(&mut self, publish: Publish) -> Result<(), LinkError> {
        let Publish { token, message } = publish;
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(message.retain && self.retain);
        let notice = self
            .client
            .try_publish_tracked(message.topic, message.payload, options)
            .map_err(|error| LinkError::Lost(format!("a publish could not be queued: {error}")))?;
        self.acks.push(async move { (token, notice.wait_async().await) }.boxed());
        Ok(())
    }

    /// This PUBACK and those that came with it.
    fn acknowledge(&mut self, first: Ack) -> Result<(), LinkError> {
        let now = self.shell.now();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some((token, result)) = next {
            let code = match result {
                Ok(PublishResult::Qos1(puback)) => puback.reason as u8,
                Ok(other) => {
                    return Err(LinkError::Lost(format!("a QoS 1 publish was answered by {other:?}")));
                }
                Err(error) => return Err(LinkError::Lost(error.to_string())),
            };
            self.shell.engine.puback(token, code, &now);
            taken += 1;
            next = if taken < ACKS_AT_ONCE { self.acks.next().now_or_never().flatten() } else { None };
        }
        Ok(())
    }

    /// PUBACKs that came just before the end.
    fn last_acks(&mut self) {
        let now = self.shell.now();
        while let Some(Some((token, result))) = self.acks.next().now_or_never() {
            if let Ok(PublishResult::Qos1(puback)) = result {
                self.shell.engine.puback(token, puback.reason as u8, &now);
            }
        }
    }

    fn hear(&mut self, publish: &rumqttc::Publish) {
        let shell = &mut *self.shell;
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        if topic == shell.wording.topics.state() {
            self.hear_state(&publish.payload, publish.retain);
            return;
        }
        let topics = shell.wording.topics.clone();
        match parse_down(&topics, topic, &publish.payload, publish.retain) {
            Ok(Down::Command(command)) => shell.take_command(command),
            Ok(Down::Receipt(receipt)) => {
                let kind = match receipt.stream {
                    Stream::Live => Kind::Live,
                    Stream::Backlog => Kind::Backlog,
                };
                shell.engine.receipt(receipt.epoch, receipt.class, kind, receipt.upto);
            }
            Ok(Down::Time(answer)) => shell.take_time(&answer),
            Err(refused) => {
                shell.parts.metrics.refused(shell.parts.uplink.as_str(), refused.0);
                if let Some(more) = shell.echo.tell(refused.0.as_str(), shell.parts.clock.mono_ms()) {
                    warn!(uplink = %shell.parts.uplink, topic, reason = refused.1, more, "a message from the platform was refused");
                }
                let epoch = shell.source.epoch();
                if let Some(result) = answer_to_refused(&topics, topic, &publish.payload, &refused, epoch) {
                    shell.refuse_unread(&result);
                }
            }
        }
    }

    /// Our own state came back to us: our echo, a late will, or a second box.
    fn hear_state(&mut self, payload: &[u8], retained: bool) {
        let shell = &mut *self.shell;
        let now_ms = shell.parts.clock.mono_ms();
        let Some(seen) = Seen::parse(payload) else { return };
        let ours = seen.epoch == self.epoch && seen.conn == shell.conn;
        if ours && seen.online {
            return;
        }
        let later = seen.epoch == self.epoch && seen.conn > shell.conn;
        if later && retained {
            self.copied = Some(seen);
            return;
        }
        if retained && seen.epoch != self.epoch {
            // What an older journal of this box left behind; our own state has taken its place by now.
            return;
        }
        if later && seen.conn <= shell.source.conn_max().unwrap_or(0) {
            self.copied = Some(seen);
            return;
        }
        if seen.online && (later || seen.epoch != self.epoch) {
            shell.suspect_duplicate();
            return;
        }
        if later {
            // A second box on its way out; what it leaves behind is not ours to fight over.
            return;
        }
        info!(uplink = %shell.parts.uplink, conn = seen.conn, "a late will said offline; the state is published again");
        shell.engine.republish_state(StateReason::Corrected, now_ms);
    }

    /// Nothing new; waits for PUBACKs as long as is allowed, then says offline and disconnects.
    async fn say_goodbye(&mut self) -> Result<(), LinkError> {
        let until = Instant::now() + self.shell.parts.drain;
        self.shell.engine.drain();
        self.drained(until).await?;
        let now = self.shell.now();
        if let Some(farewell) = self.shell.engine.farewell(&now) {
            self.publish(farewell)?;
        }
        self.drained(until.max(Instant::now() + GOODBYE_WAIT)).await?;
        self.client
            .try_disconnect()
            .map_err(|error| LinkError::Lost(format!("DISCONNECT could not be sent: {error}")))?;
        tokio::select! {
            error = &mut self.polling => debug!(uplink = %self.shell.parts.uplink, end = %error, "disconnected"),
            () = sleep_until(Instant::now() + GOODBYE_WAIT) => {}
        }
        Ok(())
    }

    async fn drained(&mut self, until: Instant) -> Result<(), LinkError> {
        while !self.shell.engine.is_drained() || self.shell.has_commands() {
            tokio::select! {
                biased;
                Some(ack) = self.acks.next() => self.acknowledge(ack)?,
                error = &mut self.polling => return Err(error),
                // Commands are not taken any more.
                _packet = self.packets_rx.recv() => {}
                news = self.shell.news() => {
                    if let Some(done) = news? {
                        self.shell.take_done(done);
                    }
                }
                () = sleep_until(until) => return Ok(()),
            }
            self.shell.step().await;
        }
        Ok(())
    }
}
