//! Frames of real modules (facts of Waveshare and Beckhoff), and every way in which one can be wrong.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

const UNIT_1: Address = Address { unit: 1, transaction: 7 };

fn read(table: Table, at: u16, count: u16) -> Request {
    Request::Read { table, at, count }
}

fn rtu(request: &Request, from: Address, bytes: &[u8]) -> Result<Parsed, Refusal> {
    request.parse(Framing::Rtu, from, bytes)
}

#[test]
fn the_check_value_of_the_crc() {
    assert_eq!(crc(b"123456789"), 0x4b37);
}

#[test]
fn requests_are_those_of_the_manuals() {
    let to = UNIT_1;
    for (request, expected) in [
        (read(Table::Discrete, 0, 8), "01 02 00 00 00 08 79 CC"),
        (read(Table::Coil, 0, 8), "01 01 00 00 00 08 3D CC"),
        (Request::WriteCoil { at: 0, on: true }, "01 05 00 00 FF 00 8C 3A"),
        (Request::WriteCoil { at: 0, on: false }, "01 05 00 00 00 00 CD CA"),
        (Request::WriteCoil { at: 1, on: true }, "01 05 00 01 FF 00 DD FA"),
        (read(Table::Holding, 0, 2), "01 03 00 00 00 02 C4 0B"),
        (read(Table::Holding, 0, 8), "01 03 00 00 00 08 44 0C"),
        (Request::WriteRegister { at: 0x1000, word: 2 }, "01 06 10 00 00 02 0C CB"),
    ] {
        assert_eq!(request.frame(Framing::Rtu, to), hex(expected), "{request:?}");
    }
    let ten = read(Table::Discrete, 0, 10).frame(Framing::Rtu, Address { unit: 11, transaction: 0 });
    assert_eq!(ten, hex("0B 02 00 00 00 0A F8 A7"));
    let tcp = read(Table::Holding, 0x10, 2).frame(Framing::Tcp, UNIT_1);
    assert_eq!(tcp, hex("00 07 00 00 00 06 01 03 00 10 00 02"));
}

#[test]
fn replies_of_real_modules() {
    let request = read(Table::Discrete, 0, 8);
    for (reply, bits) in [
        ("01 02 01 00 A1 88", 0x00_u8),
        ("01 02 01 01 60 48", 0x01),
        ("01 02 01 04 A0 4B", 0x04),
        ("01 02 01 FF E1 C8", 0xff),
    ] {
        let expected = Reply::Bits((0..8).map(|bit| bits >> bit & 1 == 1).collect());
        assert_eq!(rtu(&request, UNIT_1, &hex(reply)), Ok(Parsed::Reply(expected)), "{reply}");
    }
    let ten = rtu(
        &read(Table::Discrete, 0, 10),
        Address { unit: 11, transaction: 0 },
        &hex("0B 02 02 01 00 20 29"),
    );
    let mut bits = vec![false; 10];
    bits[0] = true;
    assert_eq!(ten, Ok(Parsed::Reply(Reply::Bits(bits))));
    assert_eq!(rtu(&request, UNIT_1, &hex("01 82 02 C1 61")), Ok(Parsed::Reply(Reply::Exception(2))));
    let on = Request::WriteCoil { at: 0, on: true };
    assert_eq!(rtu(&on, UNIT_1, &hex("01 05 00 00 FF 00 8C 3A")), Ok(Parsed::Reply(Reply::Written)));
}

#[test]
fn every_fault_has_its_name() {
    let request = read(Table::Discrete, 0, 8);
    let good = hex("01 02 01 01 60 48");
    for end in 0..good.len() {
        assert_eq!(rtu(&request, UNIT_1, &good[..end]), Ok(Parsed::Incomplete), "{end} bytes");
    }
    let with_crc = |bytes: &str| {
        let mut frame = hex(bytes);
        frame.extend(crc(&frame.clone()).to_le_bytes());
        frame
    };
    let merged = [good.clone(), good.clone()].concat();
    for (bytes, reason) in [
        (hex("01 02 01 01 60 49"), Refusal::FrameCrc),
        (hex("01 02 01 03 60 48"), Refusal::FrameCrc),
        (merged, Refusal::FrameSurplus),
        (with_crc("02 02 01 01"), Refusal::FrameUnit),
        (with_crc("01 01 01 01"), Refusal::FrameFunction),
        (with_crc("01 83 02"), Refusal::FrameFunction),
        (with_crc("01 02 02 01 00"), Refusal::FrameMalformed),
        (with_crc("01 02 00"), Refusal::FrameMalformed),
        (with_crc("01 07 33"), Refusal::FrameFunction),
    ] {
        assert_eq!(rtu(&request, UNIT_1, &bytes), Err(reason), "{bytes:02x?}");
    }
    // A write that echoes something else was not done as asked.
    let on = Request::WriteCoil { at: 0, on: true };
    assert_eq!(rtu(&on, UNIT_1, &hex("01 05 00 00 00 00 CD CA")), Err(Refusal::FrameMalformed));
}

#[test]
fn on_tcp_the_header_must_fit() {
    let request = read(Table::Holding, 0, 1);
    let parse = |bytes: &str| request.parse(Framing::Tcp, UNIT_1, &hex(bytes));
    assert_eq!(parse("00 07 00 00 00 05 01 03 02 00 1E"), Ok(Parsed::Reply(Reply::Words(vec![30]))));
    assert_eq!(parse("00 07 00 00 00 03 01 83 0B"), Ok(Parsed::Reply(Reply::Exception(11))));
    assert_eq!(parse("00 07 00 00 00 05 01 03 02 00"), Ok(Parsed::Incomplete));
    for (bytes, reason) in [
        ("00 06 00 00 00 05 01 03 02 0A 8C", Refusal::FrameLate),
        ("00 07 00 00 00 05 02 03 02 00 1E", Refusal::FrameUnit),
        ("00 07 00 01 00 05 01 03 02 00 1E", Refusal::FrameMalformed),
        ("00 07 00 00 00 00 01", Refusal::FrameMalformed),
        ("00 07 00 00 FF FF 01", Refusal::FrameMalformed),
        ("00 07 00 00 00 05 01 03 02 00 1E 00", Refusal::FrameSurplus),
        ("00 07 00 00 00 05 01 04 02 00 1E", Refusal::FrameFunction),
        ("00 07 00 00 00 07 01 03 04 00 1E 00 00", Refusal::FrameMalformed),
    ] {
        assert_eq!(parse(bytes), Err(reason), "{bytes}");
    }
}

#[test]
fn bytes_on_the_line_are_counted() {
    // 8 out, and 5 + 2 back.
    assert_eq!(read(Table::Holding, 0, 1).line_bytes(), 15);
    assert_eq!(read(Table::Discrete, 0, 16).line_bytes(), 15);
    assert_eq!(Request::WriteCoil { at: 0, on: true }.line_bytes(), 16);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reply_of_another_shape(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_reply(&bytes);
    }

    /// A reply comes back from its own bytes, and one flipped bit never makes another value.
    #[test]
    fn a_flipped_bit_is_never_another_value(
        words in prop::collection::vec(any::<u16>(), 1..60),
        flip in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let count = u16::try_from(words.len()).unwrap();
        let request = read(Table::Holding, 0, count);
        let mut frame = vec![1, 3, u8::try_from(words.len() * 2).unwrap()];
        frame.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        frame.extend(crc(&frame.clone()).to_le_bytes());
        prop_assert_eq!(rtu(&request, UNIT_1, &frame), Ok(Parsed::Reply(Reply::Words(words))));
        let at = flip.index(frame.len());
        frame[at] ^= 1 << bit;
        prop_assert!(!matches!(rtu(&request, UNIT_1, &frame), Ok(Parsed::Reply(_))));
    }
}
