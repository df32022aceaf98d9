//! What the keys of an uplink mean for each other. Opens nothing and resolves no names.

use std::net::IpAddr;

use super::UplinkTable;
use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::UplinkName;

/// Mistakes between the keys of one uplink.
pub(super) fn problems(name: &UplinkName, table: &UplinkTable) -> Vec<Problem> {
    let UplinkTable::Mqtt(uplink) = table;
    let at = |key: &'static str| ["uplinks", name.as_str(), "mqtt", key];
    let mut out = Vec::new();
    match (&uplink.cert_file, &uplink.key_file) {
        (Some(_), None) => {
            out.push(Problem::error(&at("cert_file"), "`cert_file` needs `key_file`, its private key"));
        }
        (None, Some(_)) => {
            out.push(Problem::error(&at("key_file"), "`key_file` needs `cert_file`, its certificate"));
        }
        _ => {}
    }
    let tls = uplink.url.starts_with("mqtts://") || uplink.url.starts_with("wss://");
    let files =
        [("ca_file", &uplink.ca_file), ("cert_file", &uplink.cert_file), ("key_file", &uplink.key_file)];
    for (key, _) in files.iter().filter(|(_, file)| file.is_some() && !tls) {
        let problem = Problem::error(&at(key), format!("`{key}` has no use without TLS"));
        out.push(problem.hint("write mqtts:// or wss:// in `url`"));
    }
    match (&uplink.username, &uplink.password_file) {
        (None, Some(_)) => out.push(Problem::error(&at("password_file"), "`password_file` needs `username`")),
        (Some(_), None) => out.push(Problem::warning(&at("username"), "`username` without `password_file`")),
        _ => {}
    }
    out
}

/// Mistakes in an uplink's URL alone.
pub(super) fn url_problem(name: &UplinkName, table: &UplinkTable) -> Option<Problem> {
    let UplinkTable::Mqtt(uplink) = table;
    let (message, hint) = url(&uplink.url)?;
    Some(Problem::error(&["uplinks", name.as_str(), "mqtt", "url"], message).hint(hint))
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

/// One gateway's topics at one broker: two uplinks there would overwrite each other's state.
pub(super) fn claim(name: &UplinkName, table: &UplinkTable) -> Claim {
    let UplinkTable::Mqtt(uplink) = table;
    let (scheme, rest) = uplink.url.split_once("://").unwrap_or(("", &uplink.url));
    let (host, port) = split(rest.split('/').next().unwrap_or(rest));
    let port = port.unwrap_or(match scheme {
        "mqtts" => "8883",
        "ws" => "80",
        "wss" => "443",
        _ => "1883",
    });
    let path = ["uplinks", name.as_str(), "mqtt", "url"].map(str::to_owned).to_vec();
    let broker = format!("{}:{port}", host.to_ascii_lowercase());
    Claim { path, resource: Resource::Topics { broker, root: uplink.root.clone() } }
}

/// Host and port of an authority; an IPv6 address stands in brackets.
fn split(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
}

/// The host of a URL.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    split(authority.rsplit('@').next().unwrap_or(authority)).0
}

/// Whether a host is this machine. Names are not resolved.
pub(super) fn loopback(host: &str) -> bool {
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
        assert!(loopback(host("mqtt://127.0.0.1:1883")) && loopback(host("ws://[::1]/x")));
        assert!(!loopback(host("mqtt://localhost.example")));
    }
}
