//! What strace saw: system calls with their files and bytes, in order of their beginning and their end.
//!
//! Reads the output of `strace -f -yy -xx`: descriptors are shown with what they stand for, strings as hexadecimal
//! escapes, and a call that another thread's line interrupts is split into "unfinished" and "resumed".

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// A finished system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub thread: u32,
    pub name: String,
    /// What the first argument's descriptor stands for: a path, or `TCP:[local->remote]`.
    pub on: String,
    /// All strings among the arguments, joined: what was written.
    pub bytes: Vec<u8>,
    /// The returned value; none if strace did not know.
    pub result: Option<i64>,
    /// Line where it began and line where it had returned.
    pub began: usize,
    pub ended: usize,
}

/// The command that traces `program` into `output`. With `-D` the tracer steps aside: the child's process id is the
/// program's own, so that signals reach it.
pub fn command(program: &Path, output: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-yy", "-xx", "-s", "8192", "-e", "signal=none"])
        .args(["-e", "trace=pwrite64,write,writev,fsync,fdatasync,sendto,sendmsg"])
        .arg("-o")
        .arg(output)
        .arg(program);
    command
}

/// Parses a whole output.
pub fn parse(text: &str) -> Vec<Call> {
    let mut open: HashMap<u32, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse::<u32>() else { continue };
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            open.insert(thread, (number, head.trim_end().to_owned()));
        } else if let Some((_, tail)) = rest.split_once(" resumed>").filter(|_| rest.starts_with("<... ")) {
            let Some((began, head)) = open.remove(&thread) else { continue };
            calls.extend(call(thread, &format!("{head}{tail}"), began, number));
        } else {
            calls.extend(call(thread, rest, number, number));
        }
    }
    calls
}

fn call(thread: u32, text: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return None;
    }
    let result = rest.rsplit_once(" = ").and_then(|(_, value)| value.split(' ').next()?.parse().ok());
    Some(Call {
        thread,
        name: name.to_owned(),
        on: descriptor(rest).unwrap_or_default(),
        bytes: strings(rest),
        result,
        began,
        ended,
    })
}

/// The text between the first argument's angle brackets; a socket's own text holds an arrow. With `-xx` strace
/// escapes paths too.
fn descriptor(arguments: &str) -> Option<String> {
    let (digits, rest) = arguments.split_once('<')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let end = rest.find(">, ").or_else(|| rest.find(">)"))?;
    let text = &rest[..end];
    if text.starts_with("\\x") {
        return Some(String::from_utf8_lossy(&unescape(text)).into_owned());
    }
    Some(text.to_owned())
}

fn unescape(text: &str) -> Vec<u8> {
    text.split("\\x").filter_map(|pair| u8::from_str_radix(pair.get(..2)?, 16).ok()).collect()
}

fn strings(arguments: &str) -> Vec<u8> {
    arguments.split('"').skip(1).step_by(2).flat_map(unescape).collect()
}

impl Call {
    /// A write of any kind that took something.
    pub fn writes(&self) -> bool {
        let write = matches!(self.name.as_str(), "write" | "pwrite64" | "writev" | "sendto" | "sendmsg");
        write && self.result.is_some_and(|count| count > 0)
    }

    /// A successful sync.
    pub fn syncs(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.result == Some(0)
    }

    /// Whether the bytes hold `needle`.
    pub fn holds(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}

/// What must have happened in order before a device may be told that its message is safe (promise G1): the journal's
/// log got the message, the log was synced, the PUBACK left. `port` is the device's end of the connection.
///
/// # Errors
///
/// Says which step is missing.
pub fn acknowledged_after_sync(
    calls: &[Call],
    marker: &[u8],
    port: u16,
    puback: &[u8],
) -> Result<(), String> {
    let peer = format!(":{port}]");
    let ack = calls
        .iter()
        .find(|call| call.writes() && call.on.ends_with(&peer) && call.holds(puback))
        .ok_or_else(|| format!("no PUBACK {puback:02x?} to port {port}"))?;
    let write = calls
        .iter()
        .find(|call| call.writes() && call.on.ends_with("-wal") && call.holds(marker))
        .ok_or("the message was never written to the journal's log")?;
    if write.ended >= ack.began {
        return Err(format!("written to the log at line {}, acknowledged at {}", write.ended, ack.began));
    }
    let synced = calls.iter().any(|call| {
        call.syncs() && call.on == write.on && call.began > write.ended && call.ended < ack.began
    });
    if !synced {
        return Err(format!("the log was not synced between lines {} and {}", write.ended, ack.began));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &str = r#"7 pwrite64(9</d/journal.db-wal>, "\x61\x62\x63", 3, 32) = 3"#;
    const SYNC: &str = "7 fdatasync(9</d/journal.db-wal>) = 0";
    const ACK: &str = r#"8 sendto(12<TCP:[127.0.0.1:1883->127.0.0.1:5555]>, "\x40\x02\x00\x01", 4, MSG_NOSIGNAL, NULL, 0) = 4"#;

    fn judge(lines: &[&str]) -> Result<(), String> {
        acknowledged_after_sync(&parse(&lines.join("\n")), b"abc", 5555, &[0x40, 2, 0, 1])
    }

    #[test]
    fn a_call_is_taken_apart() {
        let calls = parse(ACK);
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].on, "TCP:[127.0.0.1:1883->127.0.0.1:5555]");
        assert_eq!(calls[0].bytes, [0x40, 2, 0, 1]);
        assert_eq!(calls[0].result, Some(4));
        let escaped = parse(r"7 fsync(3<\x2f\x61\x2d\x77\x61\x6c>) = 0");
        assert_eq!(escaped[0].on, "/a-wal");
    }

    #[test]
    fn the_order_is_held() {
        assert_eq!(judge(&[WRITE, SYNC, ACK]), Ok(()));
        assert!(judge(&[WRITE, ACK, SYNC]).is_err(), "acknowledged before the sync");
        assert!(judge(&[SYNC, WRITE, ACK]).is_err(), "synced before the write only");
        assert!(judge(&[WRITE, ACK]).is_err(), "never synced");
        assert!(judge(&[ACK, WRITE, SYNC]).is_err(), "acknowledged first");
        assert!(judge(&[WRITE, SYNC]).is_err(), "never acknowledged");
        assert!(judge(&[SYNC, ACK]).is_err(), "never written");
    }

    #[test]
    fn a_sync_counts_when_it_has_returned() {
        let (start, end) =
            ("7 fdatasync(9</d/journal.db-wal> <unfinished ...>", "7 <... fdatasync resumed>) = 0");
        assert_eq!(judge(&[WRITE, start, end, ACK]), Ok(()));
        assert!(judge(&[WRITE, start, ACK, end]).is_err(), "acknowledged while the sync ran");
        let failed = "7 fdatasync(9</d/journal.db-wal>) = -1 EIO (Input/output error)";
        assert!(judge(&[WRITE, failed, ACK]).is_err(), "the sync failed");
    }
}
