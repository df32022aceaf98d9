//! The demo's platform: a plain MQTT broker on loopback, on a runtime of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use tokio::runtime::Runtime;

use crate::rt::metrics::Metrics;
use crate::south::broker::retained::Retained;

/// A running broker; it ends when dropped.
#[derive(Debug)]
pub(super) struct PlatformBroker {
    pub(super) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl PlatformBroker {
    /// Listens on a free loopback port and lets everybody in: it lives for the demo alone.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("demo-platform")
            .enable_all()
            .build()
            .context("the demo platform's runtime could not be built")?;
        let starting = runtime.spawn(async {
            let listener = Builder::new()
                .name("demo/platform")
                .laddr(([127, 0, 0, 1], 0).into())
                .allow_anonymous(true)
                .bind()
                .and_then(rmqtt::net::Listener::tcp)?;
            let address = listener.local_addr()?;
            let context = ServerContext::new().build().await;
            // A gateway's state is a retained message.
            *context.extends.retain_mut().await = Box::new(Retained::new(Arc::new(Metrics::new())));
            let server = MqttServer::new(context).listener_by_id(listener, address.port()).build();
            Ok::<_, anyhow::Error>((address, server))
        });
        let (address, server) = starting.await.context("the demo platform could not be started")??;
        runtime.spawn(async move {
            if let Err(error) = server.run().await {
                tracing::error!(%error, "the demo platform's broker ended");
            }
        });
        if address.port() == 0 {
            return Err(anyhow!("the demo platform got no port"));
        }
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for PlatformBroker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
