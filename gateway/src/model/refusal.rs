//! Why something from outside was not taken: every reason has a name, and every refusal is counted (promise G12).

/// A counted reason. The text is the label in metrics, in `status` and in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    // Connecting.
    NotMqtt,
    UnsupportedVersion,
    TooManyConnections,
    HandshakeTimeout,
    HandshakeFailed,
    UnknownClient,
    WrongPassword,
    ClientIdNotOwned,
    LoginRate,
    WillTopic,
    // Publishing.
    TopicMalformed,
    TopicTooLong,
    TopicNotOwned,
    TopicUnknown,
    PayloadTooLarge,
    NotUtf8,
    NotJson,
    JsonTooDeep,
    WrongType,
    NotFinite,
    OutOfRange,
    TextTooLong,
    RetainedDelivery,
    Repeated,
    StoreFailed,
    StoreSlow,
    QueueFull,
    InternalFault,
    // Subscribing.
    SubscriptionDenied,
    // From platforms.
    DownTooLarge,
    DownMalformed,
    DownRetained,
    CommandUnknown,
    CommandExpired,
    CommandNotAllowed,
    /// A time that nobody asked for: its nonce is not ours, or was answered already.
    TimeUnasked,
    /// The answer took so long that it says too little.
    TimeLate,
    /// No time that this software can live in.
    TimeImplausible,
    /// Others who know the time say otherwise.
    TimeDisputed,
}

impl Refusal {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotMqtt => "not_mqtt",
            Self::UnsupportedVersion => "unsupported_version",
            Self::TooManyConnections => "too_many_connections",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::UnknownClient => "unknown_client",
            Self::WrongPassword => "wrong_password",
            Self::ClientIdNotOwned => "client_id_not_owned",
            Self::LoginRate => "login_rate",
            Self::WillTopic => "will_topic",
            Self::TopicMalformed => "topic_malformed",
            Self::TopicTooLong => "topic_too_long",
            Self::TopicNotOwned => "topic_not_owned",
            Self::TopicUnknown => "topic_unknown",
            Self::PayloadTooLarge => "payload_too_large",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::JsonTooDeep => "json_too_deep",
            Self::WrongType => "wrong_type",
            Self::NotFinite => "not_finite",
            Self::OutOfRange => "out_of_range",
            Self::TextTooLong => "text_too_long",
            Self::RetainedDelivery => "retained_delivery",
            Self::Repeated => "repeated",
            Self::StoreFailed => "store_failed",
            Self::StoreSlow => "store_slow",
            Self::QueueFull => "queue_full",
            Self::InternalFault => "internal_fault",
            Self::SubscriptionDenied => "subscription_denied",
            Self::DownTooLarge => "down_too_large",
            Self::DownMalformed => "down_malformed",
            Self::DownRetained => "down_retained",
            Self::CommandUnknown => "command_unknown",
            Self::CommandExpired => "command_expired",
            Self::CommandNotAllowed => "command_not_allowed",
            Self::TimeUnasked => "time_unasked",
            Self::TimeLate => "time_late",
            Self::TimeImplausible => "time_implausible",
            Self::TimeDisputed => "time_disputed",
        }
    }
}
