//! The uplink's cable: a TCP proxy between gateway and platform that can be cut and mended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A cable that starts whole.
#[derive(Debug)]
pub(super) struct Cable {
    whole: watch::Sender<bool>,
    pub(super) address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Cable {
    /// Listens on a free loopback port and carries connections to `platform`.
    pub(super) async fn lay(platform: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (whole, state) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(listener, platform, state));
        Ok(Self { whole, address, tasks })
    }

    /// Cuts all connections and refuses new ones.
    pub(super) fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub(super) fn mend(&self) {
        self.whole.send_replace(true);
    }

    pub(super) fn is_whole(&self) -> bool {
        *self.whole.borrow()
    }

    pub(super) async fn remove(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn carry(listener: TcpListener, platform: SocketAddr, state: watch::Receiver<bool>) {
    let state = Arc::new(state);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _peer)) = accepted else { continue };
                if *state.borrow() {
                    connections.spawn(connection(near, platform, state.as_ref().clone()));
                }
            }
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(mut near: TcpStream, platform: SocketAddr, mut state: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(platform).await else { return };
    for stream in [&near, &far] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the demo's cable keeps Nagle's delay");
        }
    }
    tokio::select! {
        _ended = copy_bidirectional(&mut near, &mut far) => {}
        _cut = state.wait_for(|whole| !whole) => {}
    }
}
