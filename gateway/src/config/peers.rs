//! What the keys of one broker mean for each other: those of an uplink's and of a bus's. Opens nothing and resolves
//! no names.

use std::net::IpAddr;

use crate::model::check::Problem;
use crate::rt::mqtt::Peer;

/// Mistakes between the keys; `table` is their path.
pub(super) fn problems(table: &[&str], peer: &Peer<'_>) -> Vec<Problem> {
    let at = |key| [table, &[key]].concat();
    let mut out = Vec::new();
    match (peer.cert_file, peer.key_file) {
        (Some(_), None) => {
            out.push(Problem::error(&at("cert_file"), "`cert_file` needs `key_file`, its private key"));
        }
        (None, Some(_)) => {
            out.push(Problem::error(&at("key_file"), "`key_file` needs `cert_file`, its certificate"));
        }
        _ => {}
    }
    let tls = peer.url.starts_with("mqtts://") || peer.url.starts_with("wss://");
    let files = [("ca_file", peer.ca_file), ("cert_file", peer.cert_file), ("key_file", peer.key_file)];
    for (key, _) in files.iter().filter(|(_, file)| file.is_some() && !tls) {
        let problem = Problem::error(&at(key), format!("`{key}` has no use without TLS"));
        out.push(problem.hint("write mqtts:// or wss:// in `url`"));
    }
    match (peer.username, peer.password_file) {
        (None, Some(_)) => out.push(Problem::error(&at("password_file"), "`password_file` needs `username`")),
        (Some(_), None) => out.push(Problem::warning(&at("username"), "`username` without `password_file`")),
        _ => {}
    }
    out
}

/// Mistakes in the URL alone.
pub(super) fn url_problem(table: &[&str], peer: &Peer<'_>) -> Option<Problem> {
    let (message, hint) = url(peer.url)?;
    Some(Problem::error(&[table, &["url"]].concat(), message).hint(hint))
}

/// The host of a broker that is not this machine and is spoken to in clear.
pub(super) fn in_clear<'a>(peer: &'a Peer<'_>) -> Option<&'a str> {
    let plain = peer.url.starts_with("mqtt://") || peer.url.starts_with("ws://");
    (plain && !loopback(peer.host())).then(|| peer.host())
}

/// What is wrong with a URL, and what to write.
fn url(text: &str) -> Option<(String, String)> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) =
        rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    if authority.contains('@') {
        let hint = "write `username`, and put the password into a file named by `password_file`";
        return Some(("`url` holds a user name or password".to_owned(), hint.to_owned()));
    }
    let (host, port) = split(authority);
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some(("`url` names no host".to_owned(), format!("write {scheme}://host:port")));
    }
    if let Some(port) = port
        && port.parse::<u16>().map_or(true, |port| port == 0)
    {
        return Some((format!("{port:?} is not a port"), "a port is a number from 1 to 65535".to_owned()));
    }
    let web = scheme == "ws" || scheme == "wss";
    if !web && path.is_some_and(|path| !path.is_empty()) {
        let hint = format!("write {scheme}://{authority}; only ws:// and wss:// have a path");
        return Some((format!("{scheme}:// has no path"), hint));
    }
    None
}

/// Host and port of an authority; an IPv6 address stands in brackets.
fn split(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
}

/// Whether a host is this machine. Names are not resolved.
fn loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_looked_at_whole() {
        for good in
            ["mqtt://h", "mqtts://h.example:8883", "mqtt://[::1]:1883", "wss://h/mqtt", "mqtt://h:1883/"]
        {
            assert_eq!(url(good), None, "{good}");
        }
        for (bad, part) in [
            ("mqtt://:1883", "no host"),
            ("mqtt://h:0", "not a port"),
            ("mqtt://h:x", "not a port"),
            ("mqtt://h:99999", "not a port"),
            ("mqtt://h/mqtt", "no path"),
            ("mqtts://me:pw@h", "password"),
            ("mqtt://a b", "no host"),
        ] {
            assert!(url(bad).is_some_and(|(message, _)| message.contains(part)), "{bad}");
        }
        let host = |url| in_clear(&Peer { url, ..Peer::default() }).map(str::to_owned);
        for near in ["mqtt://127.0.0.1:1883", "ws://[::1]/x", "mqtt://localhost", "mqtts://far.example"] {
            assert_eq!(host(near), None, "{near}");
        }
        assert_eq!(host("mqtt://localhost.example").as_deref(), Some("localhost.example"));
    }
}
