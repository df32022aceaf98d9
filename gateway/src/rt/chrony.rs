//! What chrony says of its tracking, over its command protocol (UDP on loopback, port 323, protocol version 6: chrony
//! 1.31 to 4.x; layout as in chrony's candm.h). Read only; any local account may ask this. Bytes from outside: a reply of
//! another length, version or sequence number is refused.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Length of a request and of its reply: chrony answers no request that is shorter than the reply.
pub const PACKET_BYTES: usize = 104;

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// The request `tracking` and the format of its reply.
const REQ_TRACKING: u16 = 33;
const RPY_TRACKING: u16 = 5;
/// Leap status "not synchronised" (RFC 5905, figure 9).
const UNSYNCHRONISED: u16 = 3;
/// Reference id of chrony's own `local` mode, 127.127.1.1: it follows nobody.
const LOCAL: u32 = 0x7f7f_0101;
/// Strata of a synchronised clock (RFC 5905, figure 11).
const STRATA: std::ops::RangeInclusive<u16> = 1..=15;

/// Why a reply is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChronyError {
    #[error("chrony's reply has {0} bytes where {PACKET_BYTES} are due")]
    Length(usize),
    #[error("chrony's reply is of another protocol or kind")]
    Kind,
    #[error("chrony's reply is to another request")]
    Sequence,
    #[error("chrony refuses the request with status {0}")]
    Status(u16),
}

/// The request.
pub fn request(sequence: u32) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    let [command_high, command_low] = REQ_TRACKING.to_be_bytes();
    let head = [VERSION, REQUEST, 0, 0, command_high, command_low, 0, 0];
    for (place, byte) in packet.iter_mut().zip(head.into_iter().chain(sequence.to_be_bytes())) {
        *place = byte;
    }
    packet
}

fn u16_at(packet: &[u8], at: usize) -> u16 {
    let bytes = packet.get(at..).and_then(<[u8]>::first_chunk::<2>);
    bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(packet: &[u8], at: usize) -> u32 {
    let bytes = packet.get(at..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// When chrony was last told the time, in milliseconds since 1970; none while it follows nobody.
pub fn reply(packet: &[u8], sequence: u32) -> Result<Option<i64>, ChronyError> {
    if packet.len() != PACKET_BYTES {
        return Err(ChronyError::Length(packet.len()));
    }
    let head = (packet.first(), packet.get(1), u16_at(packet, 4));
    if head != (Some(&VERSION), Some(&REPLY), REQ_TRACKING) {
        return Err(ChronyError::Kind);
    }
    if u32_at(packet, 16) != sequence {
        return Err(ChronyError::Sequence);
    }
    match u16_at(packet, 8) {
        0 if u16_at(packet, 6) == RPY_TRACKING => {}
        0 => return Err(ChronyError::Kind),
        status => return Err(ChronyError::Status(status)),
    }
    let (reference, stratum, leap) = (u32_at(packet, 28), u16_at(packet, 52), u16_at(packet, 54));
    let seconds = (i64::from(u32_at(packet, 56)) << 32) | i64::from(u32_at(packet, 60));
    let millis = i64::from(u32_at(packet, 64) / 1_000_000);
    let follows = leap < UNSYNCHRONISED && reference != LOCAL && STRATA.contains(&stratum) && seconds > 0;
    Ok(follows.then(|| seconds.saturating_mul(1_000).saturating_add(millis)))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that breaks a packet of known length")]
mod tests {
    use super::*;

    const SYNCED: &[u8] = include_bytes!("../../tests/fixtures/time/chrony-tracking-synced.bin");
    const LOCAL: &[u8] = include_bytes!("../../tests/fixtures/time/chrony-tracking-local.bin");
    const UNSYNCED: &[u8] = include_bytes!("../../tests/fixtures/time/chrony-tracking-unsynced.bin");
    /// What the fixtures were asked with.
    const SEQUENCE: u32 = 0x0102_0304;

    #[test]
    fn only_a_chrony_that_follows_somebody_is_synchronised() {
        // 2026-11-22T05:54:37.390Z.
        let at_ms = 0x6b02_834d * 1_000 + 0x17ba_35e1 / 1_000_000;
        assert_eq!(reply(SYNCED, SEQUENCE), Ok(Some(at_ms)));
        assert_eq!(reply(LOCAL, SEQUENCE), Ok(None));
        assert_eq!(reply(UNSYNCED, SEQUENCE), Ok(None));
    }

    #[test]
    fn the_request_is_the_one_the_fixtures_answer() {
        let packet = request(SEQUENCE);
        assert_eq!(packet[..12], [6, 1, 0, 0, 0, 33, 0, 0, 1, 2, 3, 4]);
        assert!(packet[12..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        assert_eq!(reply(SYNCED, SEQUENCE + 1), Err(ChronyError::Sequence));
        assert_eq!(reply(&SYNCED[..103], SEQUENCE), Err(ChronyError::Length(103)));
        assert_eq!(reply(&request(SEQUENCE), SEQUENCE), Err(ChronyError::Kind));
        let mut refused = SYNCED.to_vec();
        refused[9] = 2;
        assert_eq!(reply(&refused, SEQUENCE), Err(ChronyError::Status(2)));
        for at in 0..SYNCED.len() {
            for bit in 0..8 {
                let mut broken = SYNCED.to_vec();
                broken[at] ^= 1 << bit;
                // Whatever it is, it is read or refused.
                let _read = reply(&broken, SEQUENCE);
            }
        }
    }
}
