//! rmqtt's hooks, and what each of its traps needs:
//!
//! - `MessagePublishCheckAcl` is awaited before the PUBACK and can refuse: authorising and committing stand here.
//! - Wills skip it: their topic is judged at the login, and what they say is committed in `MessagePublish`.
//! - Without an answer to `ClientSubscribeCheckAcl`, `#` is granted; with one, QoS 0 is all that is granted, so that
//!   nothing for an actuator is ever repeated or queued.
//! - Handlers hold the broker weakly: rmqtt's context refers to itself and outlives its runtime.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::codec::error::DecodeError;
use rmqtt::codec::v5::PublishAckReason;
use rmqtt::context::ServerContext;
use rmqtt::fitter::{DefaultFitter, Fitter, FitterManager};
use rmqtt::hook::{Handler, HookResult, Parameter, Register, ReturnType, Type};
use rmqtt::net::MqttError;
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, CodecPublish, ConnectInfo, Disconnect, FitterType, FromType, Id, LastWill, ListenerConfig,
    Publish, PublishAclResult, PublishResult, QoS, Reason, SubscribeAclResult,
};

use super::accounts::{Account, Accounts, Login};
use super::visits::{Stage, Visits};
use crate::model::ids::ClientName;
use crate::model::refusal::Refusal;
use crate::south::line::{Line, Message, Verdict};
use crate::south::profile::Origin;

/// What the hooks work on.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) accounts: Accounts,
    pub(super) line: Line,
    pub(super) visits: Arc<Visits>,
    /// Sessions by the inner port of their connection: at a takeover the old one leaves after the new one came.
    pub(super) present: Mutex<HashMap<u16, ClientName>>,
    /// rmqtt itself, once it is made.
    pub(super) context: OnceLock<ServerContext>,
}

/// How long a login waits for the account's earlier session to end: longer than a session can wait for the journal by
/// default, shorter than a client waits for its CONNACK.
const MAKE_WAY_WITHIN: Duration = Duration::from_secs(5);

impl Inside {
    async fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        let Some(visit) = self.visits.find(connect.id().remote_addr) else {
            self.line.deps.metrics.refused(self.line.bus.as_str(), Refusal::UnknownClient);
            return AuthResult::NotAuthorized;
        };
        let will = connect.last_will();
        let login = Login {
            user: connect.username().map(|name| &**name),
            client_id: connect.client_id(),
            password: connect.password().map(|password| &**password),
            certificate: visit.certificate.as_deref(),
            will_topic: will.as_ref().map(|will| match will {
                LastWill::V3(will) => &*will.topic,
                LastWill::V5(will) => &*will.topic,
            }),
        };
        match self.accounts.login(login).await {
            Ok(account) => {
                self.make_way(&account, connect.id()).await;
                AuthResult::Allow(false, None)
            }
            Err((reason, client)) => {
                let source = client.as_ref().map_or(self.line.bus.as_str(), ClientName::as_str);
                self.line.deps.metrics.refused(source, reason);
                tracing::info!(client = source, from = %visit.from, reason = reason.as_str(), "login refused");
                visit.stage.send_replace(Stage::Refused(reason));
                match reason {
                    Refusal::WrongPassword | Refusal::UnknownClient => AuthResult::BadUsernameOrPassword,
                    _ => AuthResult::NotAuthorized,
                }
            }
        }
    }

    /// Ends the account's earlier session and waits until it is gone. rmqtt's own takeover refuses the new login when the
    /// old session is just ending, and waits in vain for one that waits for the journal.
    async fn make_way(&self, account: &Account, id: &Id) {
        let earlier: Vec<u16> = {
            let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
            present.iter().filter(|(_, name)| **name == account.name).map(|(port, _)| *port).collect()
        };
        for visit in earlier.iter().filter_map(|port| self.visits.by_port(*port)) {
            tracing::warn!(client = %account.name, old = %visit.from, "a second login takes over");
            visit.leave.cancel();
        }
        let Some(context) = self.context.get() else { return };
        let gone = async {
            while context.extends.shared().await.entry(id.clone()).exist() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(MAKE_WAY_WITHIN, gone).await.is_err() {
            tracing::warn!(client = %account.name, "its earlier session does not end");
        }
    }

    fn account(&self, session: &Session) -> Option<&Arc<Account>> {
        self.accounts.of_client_id(&session.id.client_id)
    }

    fn connected(&self, id: &Id) {
        let Some(account) = self.accounts.of_client_id(&id.client_id) else { return };
        if let Some(visit) = self.visits.find(id.remote_addr) {
            tracing::info!(client = %account.name, from = %visit.from, "connected");
            visit.stage.send_replace(Stage::Inside(account.name.clone()));
        }
        self.set_present(id.remote_addr, Some(account.name.clone()));
    }

    fn disconnected(&self, id: &Id, reason: &Reason) {
        let Some(account) = self.accounts.of_client_id(&id.client_id) else { return };
        tracing::info!(client = %account.name, %reason, "disconnected");
        // Frames that are no MQTT inside: the door sees only where they begin and end.
        if is_no_mqtt(reason) {
            self.line.count(account.name.as_str(), Refusal::NotMqtt);
        }
        self.set_present(id.remote_addr, None);
    }

    fn set_present(&self, peer: Option<SocketAddr>, client: Option<ClientName>) {
        let Some(peer) = peer else { return };
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        match client {
            Some(client) => present.insert(peer.port(), client),
            None => present.remove(&peer.port()),
        };
        self.line.deps.board.update(|board| {
            if let Some(bus) = board.buses.get_mut(&self.line.bus) {
                bus.clients = present.values().map(|name| name.as_str().to_owned()).collect();
            }
        });
    }

    async fn publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        let Some(account) = self.account(session) else {
            return refused(PublishAckReason::NotAuthorized, Refusal::UnknownClient, true);
        };
        match self.line.publish(account.source(), message(publish)).await {
            Verdict::Taken => PublishAclResult::allow(),
            Verdict::Refused(reason) => refused(reason_code(reason), reason, false),
            Verdict::Withheld(reason) => refused(PublishAckReason::UnspecifiedError, reason, true),
        }
    }

    /// What a will says happened now, and is stored like any publish. Nobody waits for its acknowledgement.
    async fn will(&self, session: &Session, publish: &Publish) {
        let Some(account) = self.account(session) else { return };
        let verdict = self.line.publish(account.source(), message(publish)).await;
        tracing::info!(client = %account.name, topic = %publish.inner.topic, ?verdict, "last will");
    }

    fn subscribe(&self, session: &Session, filter: &str) -> SubscribeAclResult {
        match self.account(session) {
            Some(account) if account.may_subscribe(filter) => {
                SubscribeAclResult::new_success(QoS::AtMostOnce, None)
            }
            Some(account) => {
                tracing::info!(client = %account.name, filter, "subscription denied");
                self.line.count(account.name.as_str(), Refusal::SubscriptionDenied);
                denied()
            }
            None => denied(),
        }
    }
}

/// Whether a session ended because its frames could not be read.
fn is_no_mqtt(reason: &Reason) -> bool {
    match reason {
        Reason::MqttError(MqttError::Decode(_) | MqttError::Protocol(_)) | Reason::ProtocolError(_) => true,
        Reason::Reasons(reasons) => reasons.iter().any(is_no_mqtt),
        // rmqtt keeps only the text of its codec's errors.
        Reason::Error(text) => UNREADABLE.iter().any(|error| **text == error.to_string()),
        _ => false,
    }
}

/// What its codec says of frames that it cannot read.
const UNREADABLE: [DecodeError; 10] = [
    DecodeError::InvalidProtocol,
    DecodeError::InvalidLength,
    DecodeError::MalformedPacket,
    DecodeError::UnsupportedProtocolLevel,
    DecodeError::InvalidClientId,
    DecodeError::UnsupportedPacketType,
    DecodeError::PacketIdRequired,
    DecodeError::InvalidTopicFilter,
    DecodeError::InvalidTopicName,
    DecodeError::Utf8Error,
];

fn denied() -> SubscribeAclResult {
    SubscribeAclResult::new_failure(rmqtt::codec::v5::SubscribeAckReason::NotAuthorized)
}

fn message(publish: &Publish) -> Message<'_> {
    // Whatever its RETAIN flag says, it is being said now.
    Message {
        topic: &publish.inner.topic,
        payload: &publish.inner.payload,
        qos: publish.inner.qos.value(),
        origin: Origin::Live,
    }
}

fn refused(code: PublishAckReason, reason: Refusal, disconnect: bool) -> PublishAclResult {
    PublishAclResult(PublishResult::reason_code(code, Some(reason.as_str().into()), disconnect))
}

/// The reason code of the PUBACK (MQTT 5, 3.4.2.1); a client of 3.1.1 gets a plain PUBACK.
const fn reason_code(reason: Refusal) -> PublishAckReason {
    match reason {
        Refusal::TopicMalformed | Refusal::TopicTooLong => PublishAckReason::TopicNameInvalid,
        Refusal::TopicNotOwned | Refusal::TopicUnknown => PublishAckReason::NotAuthorized,
        Refusal::PayloadTooLarge | Refusal::QueueFull => PublishAckReason::QuotaExceeded,
        Refusal::InternalFault => PublishAckReason::ImplementationSpecificError,
        _ => PublishAckReason::PayloadFormatInvalid,
    }
}

/// The hooks as rmqtt calls them.
struct Hooks(Weak<Inside>);

#[async_trait]
impl Handler for Hooks {
    #[expect(
        elided_lifetimes_in_paths,
        reason = "the trait's own signature elides it, and async_trait needs the same"
    )]
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        let Some(inside) = self.0.upgrade() else {
            // The broker is being taken down: nothing may be acknowledged any more.
            let closed = refused(PublishAckReason::UnspecifiedError, Refusal::StoreFailed, true);
            return (false, Some(HookResult::PublishAclResult(closed)));
        };
        match parameter {
            Parameter::ClientAuthenticate(connect) => {
                (false, Some(HookResult::AuthResult(inside.authenticate(connect).await)))
            }
            Parameter::ClientConnected(session) => {
                inside.connected(&session.id);
                (true, before)
            }
            Parameter::ClientDisconnected(session, reason) => {
                inside.disconnected(&session.id, reason);
                (true, before)
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                let answer = inside.subscribe(session, &subscribe.topic_filter);
                (false, Some(HookResult::SubscribeAclResult(answer)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                (false, Some(HookResult::PublishAclResult(inside.publish(session, publish).await)))
            }
            Parameter::MessagePublish(Some(session), from, publish)
                if matches!(from.typ(), FromType::LastWill) =>
            {
                inside.will(session, publish).await;
                (true, before)
            }
            Parameter::MessageDropped(Some(_to), _from, _publish, _reason) => {
                inside.line.deps.metrics.dropped("delivery", "subscriber_slow_or_gone", 1);
                (true, before)
            }
            _ => (true, before),
        }
    }
}

/// Puts the hooks into a broker.
pub(super) async fn register(register: &dyn Register, inside: &Arc<Inside>) {
    for kind in [
        Type::ClientAuthenticate,
        Type::ClientConnected,
        Type::ClientDisconnected,
        Type::ClientSubscribeCheckAcl,
        Type::MessagePublishCheckAcl,
        Type::MessagePublish,
        Type::MessageDropped,
    ] {
        register.add(kind, Box::new(Hooks(Arc::downgrade(inside)))).await;
    }
    register.start().await;
}

/// Sessions end with their connection: a command that waited for an absent door would open it when it returns.
pub(super) struct NoSessions;

impl FitterManager for NoSessions {
    fn create(&self, connect: Arc<ConnectInfo>, id: Id, listener: ListenerConfig) -> FitterType {
        Arc::new(EndsAtOnce(DefaultFitter::new(connect, id, listener)))
    }
}

#[derive(Clone)]
struct EndsAtOnce(DefaultFitter);

#[async_trait]
impl Fitter for EndsAtOnce {
    fn keep_alive(&self, keep_alive: &mut u16) -> rmqtt::Result<u16> {
        self.0.keep_alive(keep_alive)
    }

    fn max_mqueue_len(&self) -> usize {
        self.0.max_mqueue_len()
    }

    fn mqueue_rate_limit(&self) -> (std::num::NonZeroU32, Duration) {
        self.0.mqueue_rate_limit()
    }

    fn max_inflight(&self) -> std::num::NonZeroU16 {
        self.0.max_inflight()
    }

    fn session_expiry_interval(&self, _disconnect: Option<&Disconnect>) -> Duration {
        Duration::ZERO
    }

    fn message_expiry_interval(&self, publish: &CodecPublish) -> Duration {
        self.0.message_expiry_interval(publish)
    }

    fn max_client_topic_aliases(&self) -> u16 {
        0
    }

    fn max_server_topic_aliases(&self) -> u16 {
        0
    }
}
