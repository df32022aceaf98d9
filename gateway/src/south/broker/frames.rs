//! The frames of MQTT, as far as the door must see them: where each begins and how long it says it is (2.1). What a
//! frame says is the broker's. Bytes come from outside: no indexing, no arithmetic that can overflow.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::model::limits::DEVICE_PACKET_BYTES_MAX;
use crate::model::refusal::Refusal;

/// Largest CONNECT: client id, name, password and a will of ordinary size.
pub(super) const CONNECT_BYTES_MAX: usize = 64 * 1024;

/// The remaining length takes four bytes at most (2.1.4).
const LENGTH_BYTES_MAX: u32 = 4;

const CONNECT: u8 = 1;

/// Follows a client's stream from frame to frame, after its CONNECT.
#[derive(Debug, Default)]
pub(super) struct Frames {
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Header,
    Length {
        value: usize,
        bytes: u32,
    },
    Body {
        left: usize,
    },
}

impl Frames {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`Refusal::PayloadTooLarge`], [`Refusal::NotMqtt`]: the stream must be cut.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.state {
                State::Header => {
                    // What a client may send after CONNECT: PUBLISH and its answers, (UN)SUBSCRIBE, PINGREQ,
                    // DISCONNECT, AUTH.
                    if !matches!(first >> 4, 3..=8 | 10 | 12 | 14 | 15) {
                        return Err(Refusal::NotMqtt);
                    }
                    self.state = State::Length { value: 0, bytes: 0 };
                    bytes = rest;
                }
                State::Length { value, bytes: count } => {
                    let (value, done) = length(value, count, *first)?;
                    if value > DEVICE_PACKET_BYTES_MAX {
                        return Err(Refusal::PayloadTooLarge);
                    }
                    self.state = match (done, value) {
                        (false, _) => State::Length { value, bytes: count.saturating_add(1) },
                        (true, 0) => State::Header,
                        (true, left) => State::Body { left },
                    };
                    bytes = rest;
                }
                State::Body { left } => {
                    let taken = left.min(bytes.len());
                    let left = left.saturating_sub(taken);
                    self.state = if left == 0 { State::Header } else { State::Body { left } };
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }
}

/// One more byte of a remaining length: the value so far, and whether it is complete.
fn length(value: usize, count: u32, byte: u8) -> Result<(usize, bool), Refusal> {
    if count >= LENGTH_BYTES_MAX {
        return Err(Refusal::NotMqtt);
    }
    let shift = count.saturating_mul(7);
    let digits = usize::from(byte & 0x7f).checked_shl(shift).ok_or(Refusal::NotMqtt)?;
    Ok((value.saturating_add(digits), byte & 0x80 == 0))
}

/// Looks at the first bytes of a connection: the length of the CONNECT in all, once it is known to be one.
///
/// # Errors
/// [`Refusal::NotMqtt`] as soon as the bytes cannot become a CONNECT, [`Refusal::PayloadTooLarge`].
pub(super) fn connect_length(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    if *first != CONNECT << 4 {
        return Err(Refusal::NotMqtt);
    }
    let mut value = 0;
    for (count, byte) in (0_u32..).zip(rest) {
        let done;
        (value, done) = length(value, count, *byte)?;
        if done {
            let header = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(2);
            check_name(bytes.get(header..).unwrap_or_default(), value)?;
            if value > CONNECT_BYTES_MAX {
                return Err(Refusal::PayloadTooLarge);
            }
            return Ok(Some(header.saturating_add(value)));
        }
    }
    Ok(None)
}

/// Whether the broker speaks the version that a CONNECT asks for (3.1.2.2): 3.1, 3.1.1 or 5. Mosquitto's bridges set
/// the highest bit at first, and go without it when they are told so.
pub(super) fn version_known(connect: &[u8]) -> bool {
    let body = connect_body(connect);
    let name_bytes = usize::from(body.get(1).copied().unwrap_or_default());
    let level = body.get(name_bytes.saturating_add(2)).copied();
    matches!((name_bytes, level), (6, Some(3)) | (4, Some(4 | 5)))
}

/// Marks a CONNECT that [`connect_length`] has accepted as one for a clean session. A kept session would be taken over
/// with what still waits in it, and a command for a door would arrive late; "session present" 0 tells the client.
pub(super) fn ask_for_clean_session(connect: &mut [u8]) {
    /// 3.1.2.4: bit 1 of the connect flags; in MQTT 5 Clean Start.
    const CLEAN: u8 = 0x02;
    let header = connect_header_bytes(connect);
    let body = connect.get_mut(header..).unwrap_or_default();
    let name_bytes = usize::from(body.get(1).copied().unwrap_or_default());
    // After the name and its length stands the level, then the flags.
    if let Some(flags) = body.get_mut(name_bytes.saturating_add(3)) {
        *flags |= CLEAN;
    }
}

/// What stands before a CONNECT's body: its type, and its length in one to four bytes.
fn connect_header_bytes(connect: &[u8]) -> usize {
    connect.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count().saturating_add(2)
}

fn connect_body(connect: &[u8]) -> &[u8] {
    connect.get(connect_header_bytes(connect)..).unwrap_or_default()
}

/// The protocol's name stands first: "MQTT" (3.1.1 and 5) or "MQIsdp" (3.1).
fn check_name(body: &[u8], length: usize) -> Result<(), Refusal> {
    let names: [&[u8]; 2] = [b"\x00\x04MQTT", b"\x00\x06MQIsdp"];
    let known = names.iter().any(|name| {
        let seen = body.len().min(name.len());
        name.get(..seen) == body.get(..seen) && length > name.len()
    });
    if known { Ok(()) } else { Err(Refusal::NotMqtt) }
}

/// Entry for fuzzing: takes the bytes as the first of a connection, and as what follows a CONNECT, whole and in halves.
pub fn fuzz_frames(bytes: &[u8]) {
    if let Ok(Some(length)) = connect_length(bytes) {
        assert!(length <= CONNECT_BYTES_MAX.saturating_add(5), "a CONNECT of {length} bytes was let in");
    }
    version_known(bytes);
    ask_for_clean_session(&mut bytes.to_vec());
    let whole = Frames::default().feed(bytes);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut frames = Frames::default();
    let halves = frames.feed(first).and_then(|()| frames.feed(second));
    assert_eq!(whole, halves, "where the stream was cut made a difference");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_connect_is_known_by_its_first_bytes() {
        let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
        for seen in 2..=connect.len() {
            assert_eq!(connect_length(&connect[..seen]), Ok(Some(15)), "{seen} bytes");
        }
        assert_eq!(connect_length(b"\x10"), Ok(None));
        for garbage in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"\x16\x03\x01\x02\x00",
            b"\x10\xff\xff\xff\xff\x01",
            b"\x10\x0d\x00\x04HTTP",
            b"\x10\x00",
            b"\x30\x00",
        ] {
            assert_eq!(connect_length(garbage), Err(Refusal::NotMqtt), "{garbage:?}");
        }
        assert_eq!(connect_length(b"\x10\xff\xff\x7f\x00\x04MQTT"), Err(Refusal::PayloadTooLarge));
    }

    #[test]
    fn a_frame_that_is_too_large_is_known_by_its_header() {
        let mut frames = Frames::default();
        assert_eq!(frames.feed(b"\xc0\x00\x30\x03abc\xc0\x00"), Ok(()));
        assert_eq!(frames.feed(b"\x30\x80\x80\x80\x01"), Err(Refusal::PayloadTooLarge));
        assert_eq!(Frames::default().feed(b"\x30\xff\xff\xff\xff\x7f"), Err(Refusal::PayloadTooLarge));
        for answer in [0x00_u8, 0x10, 0x20, 0x90, 0xb0, 0xd0] {
            assert_eq!(Frames::default().feed(&[answer, 0]), Err(Refusal::NotMqtt), "{answer:#x}");
        }
    }

    #[test]
    fn versions_that_the_broker_speaks_are_known() {
        for (connect, known) in [
            (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a".as_slice(), true),
            (b"\x10\x8d\x00\x00\x04MQTT\x05\x02", true),
            (b"\x10\x8d\x00\x00\x06MQIsdp\x03\x02", true),
            (b"\x10\x0d\x00\x04MQTT\x84\x02", false),
            (b"\x10\x0d\x00\x04MQTT\x06\x02", false),
            (b"\x10\x0d\x00\x06MQIsdp\x04\x02", false),
            (b"\x10\x0d\x00\x04MQTT", false),
        ] {
            assert_eq!(version_known(connect), known, "{connect:?}");
        }
    }

    #[test]
    fn every_session_is_asked_for_clean() {
        for (connect, flags) in [
            (b"\x10\x0d\x00\x04MQTT\x04\xc0\x00\x3c\x00\x01a".to_vec(), 9),
            (b"\x10\x8d\x00\x00\x06MQIsdp\x03\xc0\x00\x3c".to_vec(), 12),
        ] {
            let mut changed = connect.clone();
            ask_for_clean_session(&mut changed);
            let mut expected = connect;
            expected[flags] = 0xc2;
            assert_eq!(changed, expected);
        }
        for short in [b"".as_slice(), b"\x10", b"\x10\x01\x00"] {
            ask_for_clean_session(&mut short.to_vec());
        }
    }

    proptest! {
        #[test]
        fn how_the_stream_is_cut_into_reads_does_not_matter(
            bytes in prop::collection::vec(prop_oneof![Just(0x30), Just(2), any::<u8>()], 0..64),
            cuts in prop::collection::vec(0_usize..64, 0..8),
        ) {
            let whole = Frames::default().feed(&bytes);
            let mut frames = Frames::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut from = 0;
            let mut parts = Ok(());
            for cut in cuts {
                parts = parts.and_then(|()| frames.feed(&bytes[from..cut]));
                from = cut;
            }
            prop_assert_eq!(parts, whole);
            fuzz_frames(&bytes);
        }
    }
}
