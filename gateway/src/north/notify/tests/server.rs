//! A server that does what it is told, right or wrong.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::config::WebhookConfig;
use super::super::line::Outcome;
use super::super::post::{Post, first_line, host};
use super::messages::config;
use crate::rt::clock::ManualClock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Take,
    /// 200, and the robot's own word that it does not want this.
    Errcode(i64),
    Status(u16),
    /// 429 with this Retry-After.
    Throttle(&'static str),
    /// A page with this status that repeats what was asked for.
    Echo(u16),
    /// Takes the request and says nothing.
    Hang,
    /// Ends in the middle of the answer.
    CloseMidway,
    /// Ends before the request was read.
    CloseAtOnce,
    /// A page that is no answer.
    Portal,
}

/// Listens until the test ends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// Bodies that were taken, and all paths asked for.
    pub(super) taken: Arc<Mutex<Vec<String>>>,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn start(mut manner: impl FnMut(usize) -> Manner + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (keep, paths) = (Arc::clone(&taken), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                let manner = manner(number);
                if let Some(stream) = serve(stream.unwrap(), manner, &keep, &paths) {
                    hanging.push(stream);
                }
            }
        });
        Self { address, taken, asked }
    }

    pub(super) fn config(&self, more: &str) -> WebhookConfig {
        let mut config = config(more);
        config.url = Some(format!("http://{}/robot?key=secret", self.address));
        config
    }
}

fn serve(
    mut stream: TcpStream,
    manner: Manner,
    taken: &Mutex<Vec<String>>,
    asked: &Mutex<Vec<String>>,
) -> Option<TcpStream> {
    if manner == Manner::CloseAtOnce {
        return None;
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let text = line.trim_end();
        if let Some(rest) = text.strip_prefix("POST ") {
            asked.lock().unwrap().push(rest.split(' ').next().unwrap().to_owned());
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        if text.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = |status: &str, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    };
    let text = match manner {
        Manner::Take => {
            taken.lock().unwrap().push(String::from_utf8(body).unwrap());
            answer("200 OK", "Content-Type: application/json\r\n", r#"{"errcode":0,"errmsg":"ok"}"#)
        }
        Manner::Errcode(code) => answer("200 OK", "", &format!(r#"{{"errcode":{code},"errmsg":"no"}}"#)),
        Manner::Status(status) => answer(&format!("{status} Whatever"), "", "a page"),
        Manner::Throttle(after) => {
            let more = format!("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: {after}\r\n");
            answer("429 Too Many", &more, "")
        }
        Manner::Echo(status) => {
            let page = format!("Cannot POST {}", asked.lock().unwrap().last().unwrap());
            answer(&format!("{status} Whatever"), "", &page)
        }
        Manner::CloseMidway => "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"errcode\":".to_owned(),
        Manner::Portal => answer("200 OK", "Content-Type: text/html\r\n", "<html>please log in</html>"),
        Manner::Hang | Manner::CloseAtOnce => return Some(stream),
    };
    // The other side may be gone by now, and that is part of the game.
    if stream.write_all(text.as_bytes()).is_err() {
        return None;
    }
    None
}

fn outcome(manner: Manner) -> Outcome {
    let server = Server::start(move |_| manner);
    let clock: crate::rt::clock::SharedClock = Arc::new(ManualClock::new());
    Post::new(&server.config(""), &clock, Duration::from_millis(300)).unwrap().send("{}", 0)
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Taken => panic!("it was taken"),
        Outcome::Throttled { reason, .. } | Outcome::Failed { reason } | Outcome::Refused { reason } => {
            reason
        }
    }
}

#[test]
fn each_answer_has_its_meaning() {
    assert_eq!(outcome(Manner::Take), Outcome::Taken);
    for manner in [
        Manner::Status(500),
        Manner::Status(502),
        Manner::Status(302),
        Manner::Echo(500),
        Manner::Echo(200),
        Manner::Hang,
        Manner::CloseMidway,
        Manner::CloseAtOnce,
        Manner::Portal,
    ] {
        let outcome = outcome(manner);
        assert!(matches!(outcome, Outcome::Failed { .. }), "{manner:?}: {outcome:?}");
        let reason = reason(outcome);
        assert!(reason.contains("127.0.0.1:") && !reason.contains("secret"), "{manner:?}: {reason}");
    }
    for manner in [Manner::Errcode(93_000), Manner::Status(404), Manner::Echo(404)] {
        let outcome = outcome(manner);
        assert!(matches!(outcome, Outcome::Refused { .. }), "{manner:?}: {outcome:?}");
        assert!(!reason(outcome).contains("secret"));
    }
    for (asked, ms) in [
        ("7", Some(7_000)),
        ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30_000)),
        ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
        ("soon", None),
    ] {
        let outcome = outcome(Manner::Throttle(asked));
        assert!(
            matches!(outcome, Outcome::Throttled { after_ms, .. } if after_ms == ms),
            "{asked}: {outcome:?}"
        );
    }
    assert!(matches!(outcome(Manner::Errcode(45_009)), Outcome::Throttled { after_ms: None, .. }));
}

#[test]
fn what_is_not_there_is_a_failure_and_a_wrong_file_is_named() {
    let clock: crate::rt::clock::SharedClock = Arc::new(ManualClock::new());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut nobody = config("");
    nobody.url = Some(format!("http://{free}/?key=secret"));
    let post = Post::new(&nobody, &clock, Duration::from_secs(1)).unwrap();
    let reason = reason(post.send("{}", 0));
    assert!(reason.contains("127.0.0.1") && !reason.contains("secret"), "{reason}");
    let dir = tempfile::tempdir().unwrap();
    nobody.url = None;
    nobody.url_file = Some(dir.path().join("url"));
    let wrong = Post::new(&nobody, &clock, Duration::from_secs(1)).unwrap_err().to_string();
    assert!(wrong.contains("url file") && wrong.contains("cannot be read"), "{wrong}");
    std::fs::write(dir.path().join("url"), "ftp://x\n").unwrap();
    let wrong = Post::new(&nobody, &clock, Duration::from_secs(1)).unwrap_err().to_string();
    assert!(wrong.contains("neither https:// nor http://"), "{wrong}");
    std::fs::write(dir.path().join("url"), "  \n").unwrap();
    assert!(first_line("url file", &dir.path().join("url")).unwrap_err().to_string().contains("is empty"));
    assert_eq!(host("https://u:p@host:1/x?key=y"), "host:1");
}

#[test]
fn a_stranger_s_certificate_is_refused() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = Arc::new(tls);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut session = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
            let mut stream = rustls::Stream::new(&mut session, &mut stream);
            let mut request = [0; 4_096];
            if stream.read(&mut request).is_ok() {
                let body = r#"{"errcode":0}"#;
                let text = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(text.as_bytes()).unwrap_or_default();
            }
        }
    });
    let clock = ManualClock::new();
    clock.jump_wall_ms(1_772_294_400_000 - crate::rt::clock::Clock::now(&clock).wall_ms);
    let clock: crate::rt::clock::SharedClock = Arc::new(clock);
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (dir.path().join("ours.pem"), dir.path().join("other.pem"));
    std::fs::write(&ours, made.cert.pem()).unwrap();
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&other, stranger.cert.pem()).unwrap();
    let send = |ca: &std::path::Path| {
        let mut config = config("");
        config.url = Some(format!("https://localhost:{port}/?key=secret"));
        config.ca_file = Some(ca.to_owned());
        Post::new(&config, &clock, Duration::from_secs(5)).unwrap().send("{}", 0)
    };
    assert_eq!(send(&ours), Outcome::Taken);
    let reason = reason(send(&other));
    assert!(reason.contains("certificate") && !reason.contains("secret"), "{reason}");
}
