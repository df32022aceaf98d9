//! A robot of a chat group: a server that takes posts, or says that it cannot.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Debug, Default)]
struct Inbox {
    taken: Mutex<Vec<Value>>,
    refused: AtomicUsize,
    well: AtomicBool,
}

/// Listens until it is dropped. It is ill at first: 503.
#[derive(Debug)]
pub struct Robot {
    pub address: SocketAddr,
    inbox: Arc<Inbox>,
    _task: JoinSet<()>,
}

impl Robot {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, inbox) = (listener.local_addr().unwrap(), Arc::<Inbox>::default());
        let mut task = JoinSet::new();
        let kept = Arc::clone(&inbox);
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who ends in the middle of a post has not posted.
                serve(stream, &kept).await.ok();
            }
        });
        Self { address, inbox, _task: task }
    }

    /// From now on it takes what is posted.
    pub fn get_well(&self) {
        self.inbox.well.store(true, Ordering::SeqCst);
    }

    /// The bodies that it took, in their order.
    pub fn taken(&self) -> Vec<Value> {
        self.inbox.taken.lock().unwrap().clone()
    }

    /// How many posts it did not take.
    pub fn refused(&self) -> usize {
        self.inbox.refused.load(Ordering::SeqCst)
    }
}

/// One post of one connection.
async fn serve(stream: TcpStream, inbox: &Inbox) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line).await? > 2 {
        if let Some((key, value)) = line.split_once(':')
            && key.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let status = if inbox.well.load(Ordering::SeqCst) {
        inbox.taken.lock().unwrap().push(serde_json::from_slice(&body)?);
        "200 OK"
    } else {
        inbox.refused.fetch_add(1, Ordering::SeqCst);
        "503 Service Unavailable"
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
    stream.get_mut().write_all(answer.as_bytes()).await
}
