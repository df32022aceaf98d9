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
    // From a Modbus line.
    /// Nothing came within the time-out.
    NoReply,
    /// The reply broke off.
    FrameShort,
    /// More came than the reply: merged frames, or somebody else who speaks.
    FrameSurplus,
    FrameCrc,
    /// Another unit answered.
    FrameUnit,
    /// The reply belongs to an earlier request.
    FrameLate,
    /// The reply is to another function.
    FrameFunction,
    /// The reply does not hold what was asked for, or its header is wrong.
    FrameMalformed,
    /// The device answered with an exception.
    DeviceException,
    /// The port or the connection failed.
    LineFailed,
    /// A supervised input lies in none of its bands.
    BetweenBands,
    // From platforms.
    DownTooLarge,
    DownMalformed,
    DownRetained,
    CommandUnknown,
    CommandExpired,
    CommandNotAllowed,
    /// A time that nobody asked for: its nonce is not ours.
    TimeUnasked,
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
            Self::NoReply => "no_reply",
            Self::FrameShort => "frame_short",
            Self::FrameSurplus => "frame_surplus",
            Self::FrameCrc => "frame_crc",
            Self::FrameUnit => "frame_unit",
            Self::FrameLate => "frame_late",
            Self::FrameFunction => "frame_function",
            Self::FrameMalformed => "frame_malformed",
            Self::DeviceException => "device_exception",
            Self::LineFailed => "line_failed",
            Self::BetweenBands => "between_bands",
            Self::DownTooLarge => "down_too_large",
            Self::DownMalformed => "down_malformed",
            Self::DownRetained => "down_retained",
            Self::CommandUnknown => "command_unknown",
            Self::CommandExpired => "command_expired",
            Self::CommandNotAllowed => "command_not_allowed",
            Self::TimeUnasked => "time_unasked",
        }
    }
}
