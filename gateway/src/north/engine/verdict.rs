//! What the reason code of a PUBACK means for the record (MQTT 5.0, section 3.4.2.1).

/// Unspecified error: also for a refusal without a word.
pub(super) const UNSPECIFIED: u8 = 0x80;

/// The platform's broker on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    /// 0x10: nobody has subscribed to the topic; the broker threw the message away.
    NobodyListens,
    /// The broker cannot just now.
    Busy,
    /// Refused for its own sake: the same message will hardly be taken later.
    Refused,
}

impl Verdict {
    pub(super) const fn of(code: u8) -> Self {
        match code {
            0x10 => Self::NobodyListens,
            // Server unavailable, busy, packet identifier in use, receive maximum exceeded, quota exceeded.
            0x88 | 0x89 | 0x91 | 0x93 | 0x97 => Self::Busy,
            0x80.. => Self::Refused,
            _ => Self::Taken,
        }
    }
}

/// Whether a DISCONNECT with this code may be the answer to a record under way (MQTT 5.0, section 3.14.2.1). Others
/// are about the connection, the session or the broker.
pub(super) const fn blames_a_record(code: u8) -> bool {
    matches!(code, 0x80 | 0x81 | 0x82 | 0x83 | 0x87 | 0x90 | 0x95 | 0x99)
}

/// The code and its name in the standard.
pub(super) fn code_text(code: u8) -> String {
    let name = match code {
        0x10 => "no matching subscribers",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x93 => "receive maximum exceeded",
        0x95 => "packet too large",
        0x97 => "quota exceeded",
        0x99 => "payload format invalid",
        _ => "unknown reason",
    };
    format!("0x{code:02x} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_architecture_says() {
        let table = [
            (0x00, Verdict::Taken),
            (0x10, Verdict::NobodyListens),
            (0x80, Verdict::Refused),
            (0x83, Verdict::Refused),
            (0x87, Verdict::Refused),
            (0x88, Verdict::Busy),
            (0x89, Verdict::Busy),
            (0x90, Verdict::Refused),
            (0x93, Verdict::Busy),
            (0x95, Verdict::Refused),
            (0x97, Verdict::Busy),
            (0x99, Verdict::Refused),
            (0xff, Verdict::Refused),
        ];
        for (code, verdict) in table {
            assert_eq!(Verdict::of(code), verdict, "0x{code:02x}");
        }
    }
}
