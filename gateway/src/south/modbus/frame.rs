//! What a master says on a Modbus line, and what it takes as the answer: requests into bytes, bytes into a reply or a
//! named fault. Pure; reads nothing and never panics (property-tested, and fuzzed through [`fuzz_reply`]).
//!
//! Own code, and not tokio-modbus's client: its RTU decoder skips bytes until something fits, so that a broken frame
//! shows as a time-out; it does not hold the number of values against what was asked; and a late frame of the same
//! shape passes. Here a reply is the whole of what came, byte for byte, or it is refused by name.
//!
//! Sources: Modbus Application Protocol V1.1b3; Modbus over Serial Line V1.02; Messaging on TCP/IP V1.0b.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::model::refusal::Refusal;

/// Longest serial frame: address, 253 bytes of data unit, CRC.
pub(super) const RTU_BYTES_MAX: usize = 256;

/// Longest frame on TCP: header of 7 bytes, of which the unit counts to the length, and 253 bytes of data unit.
pub(super) const TCP_BYTES_MAX: usize = 260;

/// Header on TCP: transaction, protocol 0, length, unit.
const TCP_HEADER_BYTES: usize = 7;

/// Registers of one write (function 16).
const WRITE_REGISTERS_MAX: usize = 123;

/// The four tables of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

impl Table {
    const fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// Whether it holds bits, and not registers.
    pub(super) const fn bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }
}

/// What a master asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Read { table: Table, at: u16, count: u16 },
    WriteCoil { at: u16, on: bool },
    WriteRegister { at: u16, word: u16 },
    WriteRegisters { at: u16, words: Vec<u16> },
}

/// What a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Bits(Vec<bool>),
    Words(Vec<u16>),
    /// The write is echoed as it was asked.
    Written,
    /// The device refuses: an exception code.
    Exception(u8),
}

/// How frames are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Tcp,
    Rtu,
}

/// Whom a frame is to, or from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) unit: u8,
    /// On TCP alone.
    pub(super) transaction: u16,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More must come.
    Incomplete,
    Reply(Reply),
}

impl Request {
    const fn function(&self) -> u8 {
        match self {
            Self::Read { table, .. } => table.function(),
            Self::WriteCoil { .. } => 5,
            Self::WriteRegister { .. } => 6,
            Self::WriteRegisters { .. } => 16,
        }
    }

    /// The protocol data unit.
    fn data(&self) -> Vec<u8> {
        let mut out = vec![self.function()];
        let mut word = |value: u16| out.extend(value.to_be_bytes());
        match self {
            Self::Read { at, count, .. } => {
                word(*at);
                word(*count);
            }
            Self::WriteCoil { at, on } => {
                word(*at);
                word(if *on { 0xff00 } else { 0 });
            }
            Self::WriteRegister { at, word: value } => {
                word(*at);
                word(*value);
            }
            Self::WriteRegisters { at, words } => {
                debug_assert!(words.len() <= WRITE_REGISTERS_MAX, "no value takes more than four registers");
                let count = u16::try_from(words.len()).unwrap_or(u16::MAX);
                word(*at);
                word(count);
                out.push(u8::try_from(words.len().saturating_mul(2)).unwrap_or(u8::MAX));
                out.extend(words.iter().flat_map(|value| value.to_be_bytes()));
            }
        }
        out
    }

    /// Bytes of values in the reply to a read.
    fn values_bytes(&self) -> Option<usize> {
        let Self::Read { table, count, .. } = self else { return None };
        let count = usize::from(*count);
        Some(if table.bits() { count.div_ceil(8) } else { count.saturating_mul(2) })
    }

    /// The frame as it goes out.
    pub(super) fn frame(&self, framing: Framing, to: Address) -> Vec<u8> {
        let data = self.data();
        match framing {
            Framing::Rtu => {
                let mut out = vec![to.unit];
                out.extend(data);
                let crc = crc(&out);
                out.extend(crc.to_le_bytes());
                out
            }
            Framing::Tcp => {
                let length = u16::try_from(data.len().saturating_add(1)).unwrap_or(u16::MAX);
                let mut out = Vec::with_capacity(data.len().saturating_add(TCP_HEADER_BYTES));
                out.extend(to.transaction.to_be_bytes());
                out.extend([0, 0]);
                out.extend(length.to_be_bytes());
                out.push(to.unit);
                out.extend(data);
                out
            }
        }
    }

    /// What `bytes`, all that came since the request, are. What comes after a whole reply makes it none: nobody may
    /// speak unasked on a Modbus line, so the reply cannot be told from somebody else's.
    pub(super) fn parse(&self, framing: Framing, from: Address, bytes: &[u8]) -> Result<Parsed, Refusal> {
        match framing {
            Framing::Tcp => self.parse_tcp(from, bytes),
            Framing::Rtu => self.parse_rtu(from.unit, bytes),
        }
    }

    fn parse_tcp(&self, from: Address, bytes: &[u8]) -> Result<Parsed, Refusal> {
        let Some((header, data)) = bytes.split_first_chunk::<TCP_HEADER_BYTES>() else {
            return Ok(Parsed::Incomplete);
        };
        let &[t1, t2, p1, p2, l1, l2, unit] = header;
        let length = usize::from(u16::from_be_bytes([l1, l2]));
        if [p1, p2] != [0, 0] || !(3..=254).contains(&length) {
            return Err(Refusal::FrameMalformed);
        }
        let Some(wanted) = data.get(..length.saturating_sub(1)) else { return Ok(Parsed::Incomplete) };
        if data.len() > wanted.len() {
            return Err(Refusal::FrameSurplus);
        }
        if u16::from_be_bytes([t1, t2]) != from.transaction {
            return Err(Refusal::FrameLate);
        }
        if unit != from.unit {
            return Err(Refusal::FrameUnit);
        }
        self.reply(wanted).map(Parsed::Reply)
    }

    fn parse_rtu(&self, unit: u8, bytes: &[u8]) -> Result<Parsed, Refusal> {
        let &[from, function, third, ..] = bytes else { return Ok(Parsed::Incomplete) };
        // The length is told by the first bytes; it is only believed once the CRC fits.
        let data_bytes = if function & 0x80 != 0 {
            2
        } else {
            match function {
                1..=4 => usize::from(third).saturating_add(2),
                5 | 6 | 15 | 16 => 5,
                // Nobody was asked that: take it to the end of what came.
                _ => bytes.len().saturating_sub(3).max(1),
            }
        };
        let frame_bytes = data_bytes.saturating_add(3);
        let Some(frame) = bytes.get(..frame_bytes) else {
            return if frame_bytes > RTU_BYTES_MAX {
                Err(Refusal::FrameMalformed)
            } else {
                Ok(Parsed::Incomplete)
            };
        };
        let Some((body, sum)) = frame.split_last_chunk::<2>() else { return Ok(Parsed::Incomplete) };
        if crc(body) != u16::from_le_bytes(*sum) {
            return Err(Refusal::FrameCrc);
        }
        if bytes.len() > frame_bytes {
            return Err(Refusal::FrameSurplus);
        }
        if from != unit {
            return Err(Refusal::FrameUnit);
        }
        self.reply(body.get(1..).unwrap_or_default()).map(Parsed::Reply)
    }

    /// The reply in a whole data unit.
    fn reply(&self, data: &[u8]) -> Result<Reply, Refusal> {
        let function = self.function();
        match data {
            [code, exception] if *code == function | 0x80 => Ok(Reply::Exception(*exception)),
            [code, ..] if *code != function => Err(Refusal::FrameFunction),
            [_, count, values @ ..] if matches!(self, Self::Read { .. }) => self.values(*count, values),
            [_, echo @ ..] => {
                let asked = self.data();
                // Address and value or quantity: the four bytes after the function.
                let same = asked.get(1..5) == Some(echo);
                if same { Ok(Reply::Written) } else { Err(Refusal::FrameMalformed) }
            }
            [] => Err(Refusal::FrameMalformed),
        }
    }

    fn values(&self, count: u8, values: &[u8]) -> Result<Reply, Refusal> {
        let Self::Read { table, count: asked, .. } = self else { return Err(Refusal::FrameFunction) };
        if Some(values.len()) != self.values_bytes() || usize::from(count) != values.len() {
            return Err(Refusal::FrameMalformed);
        }
        if table.bits() {
            let bits = values.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
            return Ok(Reply::Bits(bits.take(usize::from(*asked)).collect()));
        }
        let words = values.chunks_exact(2).filter_map(|pair| pair.first_chunk::<2>().copied());
        Ok(Reply::Words(words.map(u16::from_be_bytes).collect()))
    }

    /// Bytes of request and reply on a serial line, for the line's load.
    pub(super) fn line_bytes(&self) -> usize {
        let reply = self.values_bytes().map_or(8, |values| values.saturating_add(5));
        self.data().len().saturating_add(3).saturating_add(reply)
    }
}

/// CRC-16/MODBUS: polynomial 0xA001 reflected, initial value 0xFFFF.
fn crc(bytes: &[u8]) -> u16 {
    let step = |crc: u16, _bit: u8| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
    bytes.iter().fold(0xffff, |crc: u16, byte| (0..8).fold(crc ^ u16::from(*byte), step))
}

/// Entry for fuzzing: the first bytes choose the request, the rest is what came.
pub fn fuzz_reply(bytes: &[u8]) {
    let Some((&[choice, unit, at, count], rest)) = bytes.split_first_chunk::<4>() else { return };
    let (at, count) = (u16::from(at), u16::from(count).max(1));
    let table = match choice & 3 {
        0 => Table::Coil,
        1 => Table::Discrete,
        2 => Table::Input,
        _ => Table::Holding,
    };
    let request = match choice >> 2 & 3 {
        0 | 1 => Request::Read { table, at, count: count.min(125) },
        2 => Request::WriteCoil { at, on: count & 1 == 1 },
        _ => Request::WriteRegisters { at, words: vec![count; 4] },
    };
    let framing = if choice & 16 == 0 { Framing::Tcp } else { Framing::Rtu };
    let from = Address { unit, transaction: u16::from(choice) };
    if let Ok(Parsed::Reply(reply)) = request.parse(framing, from, rest) {
        let fits = match (&request, &reply) {
            (_, Reply::Exception(_)) => true,
            (Request::Read { table, count, .. }, Reply::Bits(bits)) => {
                table.bits() && bits.len() == usize::from(*count)
            }
            (Request::Read { table, count, .. }, Reply::Words(words)) => {
                !table.bits() && words.len() == usize::from(*count)
            }
            (Request::Read { .. }, Reply::Written) => false,
            (_, reply) => *reply == Reply::Written,
        };
        assert!(fits, "{request:?} was answered by {reply:?}");
    }
}

#[cfg(test)]
#[path = "tests/frame.rs"]
mod tests;
