//! MQTT 3.1.1 and 5.0 by hand: enough to be a device, a platform or a broker in a test, and to send what no library
//! would. QoS 2 is left out, since nothing here uses it.
//!
//! Sources: OASIS MQTT 3.1.1 and 5.0, sections 2 and 3.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Protocol level of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// Largest packet that the harness itself reads.
const PACKET_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A CONNECT packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<String>,
    pub keep_alive_s: u16,
    pub clean: bool,
    pub will: Option<Will>,
}

/// The will of a CONNECT packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
}

/// A PUBLISH packet; `id` is 0 at QoS 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
}

/// What was read. Reason codes are 0 where the packet bears none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connect(Connect),
    ConnAck { code: u8 },
    Publish(Publish),
    PubAck { id: u16, code: u8 },
    Subscribe { id: u16, filters: Vec<String> },
    SubAck { id: u16, codes: Vec<u8> },
    Unsubscribe { id: u16, count: usize },
    PingReq,
    PingResp,
    Disconnect { code: u8 },
    Other { first: u8 },
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(
        &u16::try_from(bytes.len()).expect("an MQTT string fits 65535 bytes").to_be_bytes(),
    );
    out.extend_from_slice(bytes);
}

/// Puts the fixed header before `body`.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

impl Connect {
    /// A clean session without a name; fill in the rest.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            username: None,
            password: None,
            keep_alive_s: 30,
            clean: true,
            will: None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(&mut body, b"MQTT");
        body.push(match self.version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5);
        }
        flags |= u8::from(self.password.is_some()) << 6;
        flags |= u8::from(self.username.is_some()) << 7;
        body.push(flags);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            body.push(0);
        }
        put_bytes(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                body.push(0);
            }
            put_bytes(&mut body, will.topic.as_bytes());
            put_bytes(&mut body, &will.payload);
        }
        for text in [&self.username, &self.password].into_iter().flatten() {
            put_bytes(&mut body, text.as_bytes());
        }
        frame(0x10, &body)
    }
}

impl Publish {
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>, qos: u8, id: u16) -> Self {
        Self { topic: topic.to_owned(), payload: payload.into(), qos, retain: false, dup: false, id }
    }

    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.payload.len() + self.topic.len() + 8);
        put_bytes(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            body.push(0);
        }
        body.extend_from_slice(&self.payload);
        frame(0x30 | (u8::from(self.dup) << 3) | (self.qos << 1) | u8::from(self.retain), &body)
    }
}

/// SUBSCRIBE to one filter at QoS 1.
pub fn subscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    put_bytes(&mut body, filter.as_bytes());
    body.push(1);
    frame(0x82, &body)
}

/// PUBACK; a code other than 0 needs version 5.
pub fn puback(version: Version, id: u16, code: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 && code != 0 {
        body.extend_from_slice(&[code, 0]);
    }
    frame(0x40, &body)
}

/// CONNACK without a session; properties are empty.
pub fn connack(version: Version, code: u8) -> Vec<u8> {
    match version {
        Version::V311 => frame(0x20, &[0, code]),
        Version::V5 => frame(0x20, &[0, code, 0]),
    }
}

/// SUBACK that grants QoS 1 to `count` filters.
pub fn suback(version: Version, id: u16, count: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(std::iter::repeat_n(1, count));
    frame(0x90, &body)
}

/// UNSUBACK of success.
pub fn unsuback(version: Version, id: u16, count: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
        body.extend(std::iter::repeat_n(0, count));
    }
    frame(0xb0, &body)
}

pub fn pingreq() -> Vec<u8> {
    frame(0xc0, &[])
}

pub fn pingresp() -> Vec<u8> {
    frame(0xd0, &[])
}

/// DISCONNECT; the code travels in version 5 only.
pub fn disconnect(version: Version, code: u8) -> Vec<u8> {
    match version {
        Version::V5 if code != 0 => frame(0xe0, &[code, 0]),
        Version::V5 | Version::V311 => frame(0xe0, &[]),
    }
}

/// Reads over a packet's body.
struct Cursor<'a> {
    rest: &'a [u8],
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an MQTT packet ends too early")
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or_else(short)?;
        self.rest = tail;
        Ok(head)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::from(self.u16()?);
        Ok(self.take(length)?.to_vec())
    }

    fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn skip_properties(&mut self, version: Version) -> io::Result<()> {
        if version == Version::V311 {
            return Ok(());
        }
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        self.take(length).map(|_properties| ())
    }
}

fn parse_connect(body: &[u8]) -> io::Result<Packet> {
    let mut cursor = Cursor { rest: body };
    cursor.bytes()?;
    let version = if cursor.u8()? == 5 { Version::V5 } else { Version::V311 };
    let flags = cursor.u8()?;
    let keep_alive_s = cursor.u16()?;
    cursor.skip_properties(version)?;
    let client_id = cursor.text()?;
    let mut will = None;
    if flags & 0x04 != 0 {
        cursor.skip_properties(version)?;
        let topic = cursor.text()?;
        let payload = cursor.bytes()?;
        will = Some(Will { topic, payload, qos: (flags >> 3) & 3, retain: flags & 0x20 != 0 });
    }
    let username = if flags & 0x80 != 0 { Some(cursor.text()?) } else { None };
    let password = if flags & 0x40 != 0 { Some(cursor.text()?) } else { None };
    let clean = flags & 0x02 != 0;
    Ok(Packet::Connect(Connect { version, client_id, username, password, keep_alive_s, clean, will }))
}

fn parse_publish(first: u8, body: &[u8], version: Version) -> io::Result<Packet> {
    let mut cursor = Cursor { rest: body };
    let topic = cursor.text()?;
    let qos = (first >> 1) & 3;
    let id = if qos > 0 { cursor.u16()? } else { 0 };
    cursor.skip_properties(version)?;
    let payload = cursor.rest.to_vec();
    Ok(Packet::Publish(Publish { topic, payload, qos, retain: first & 1 != 0, dup: first & 8 != 0, id }))
}

fn parse_subscribe(body: &[u8], version: Version, options: bool) -> io::Result<(u16, Vec<String>)> {
    let mut cursor = Cursor { rest: body };
    let id = cursor.u16()?;
    cursor.skip_properties(version)?;
    let mut filters = Vec::new();
    while !cursor.rest.is_empty() {
        filters.push(cursor.text()?);
        if options {
            cursor.u8()?;
        }
    }
    Ok((id, filters))
}

/// Parses a packet's body; `version` is the connection's, as its CONNECT said.
pub fn parse(first: u8, body: &[u8], version: Version) -> io::Result<Packet> {
    let mut cursor = Cursor { rest: body };
    Ok(match first >> 4 {
        1 => parse_connect(body)?,
        2 => {
            cursor.u8()?;
            Packet::ConnAck { code: cursor.u8()? }
        }
        3 => parse_publish(first, body, version)?,
        4 => Packet::PubAck { id: cursor.u16()?, code: cursor.u8().unwrap_or(0) },
        8 => {
            let (id, filters) = parse_subscribe(body, version, true)?;
            Packet::Subscribe { id, filters }
        }
        9 => {
            let id = cursor.u16()?;
            cursor.skip_properties(version)?;
            Packet::SubAck { id, codes: cursor.rest.to_vec() }
        }
        10 => {
            let (id, filters) = parse_subscribe(body, version, false)?;
            Packet::Unsubscribe { id, count: filters.len() }
        }
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => Packet::Disconnect { code: cursor.u8().unwrap_or(0) },
        _ => Packet::Other { first },
    })
}

/// Reads one packet; `None` at a clean end of the stream. Not safe to cancel.
pub async fn read(reader: &mut (impl AsyncRead + Unpin), version: Version) -> io::Result<Option<Packet>> {
    let Ok(first) = reader.read_u8().await else { return Ok(None) };
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21] {
        let byte = reader.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if length > PACKET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a packet of {length} bytes")));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    parse(first, &body, version).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn round(bytes: Vec<u8>, version: Version) -> Packet {
        read(&mut bytes.as_slice(), version).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_is_encoded_reads_back() {
        for version in [Version::V311, Version::V5] {
            let mut connect = Connect::new(version, "box");
            connect.username = Some("u".to_owned());
            connect.password = Some("p".to_owned());
            connect.will =
                Some(Will { topic: "w".to_owned(), payload: b"gone".to_vec(), qos: 1, retain: true });
            assert_eq!(round(connect.encode(), version).await, Packet::Connect(connect));
            let mut publish = Publish::new("a/b", vec![7; 300], 1, 0x1234);
            publish.retain = true;
            assert_eq!(round(publish.encode(version), version).await, Packet::Publish(publish));
            assert_eq!(round(puback(version, 9, 0), version).await, Packet::PubAck { id: 9, code: 0 });
            let filters = vec!["up/#".to_owned()];
            assert_eq!(
                round(subscribe(version, 3, "up/#"), version).await,
                Packet::Subscribe { id: 3, filters }
            );
            assert_eq!(round(suback(version, 3, 1), version).await, Packet::SubAck { id: 3, codes: vec![1] });
        }
        assert_eq!(
            round(puback(Version::V5, 9, 0x97), Version::V5).await,
            Packet::PubAck { id: 9, code: 0x97 }
        );
        assert_eq!(
            round(disconnect(Version::V5, 0x8e), Version::V5).await,
            Packet::Disconnect { code: 0x8e }
        );
    }
}
