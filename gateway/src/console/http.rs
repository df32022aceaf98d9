//! `/metrics` in Prometheus' text format and `/healthz`. Loopback only: `check` refuses other addresses.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::status::Reporter;

/// Why the pages are not served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0} cannot be listened on for /metrics and /healthz")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("the server of /metrics and /healthz ended")]
    Serve(#[source] io::Error),
}

async fn metrics(State(reporter): State<Reporter>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], reporter.metrics.render())
}

/// 200 and `ok`, or 503 and what is ill, a line each.
async fn healthz(State(reporter): State<Reporter>) -> impl IntoResponse {
    let ill = reporter.status().ill;
    if ill.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, ill.join("\n") + "\n")
    }
}

/// Serves until cancelled.
pub async fn serve(
    address: SocketAddr,
    reporter: Reporter,
    cancel: CancellationToken,
) -> Result<(), HttpError> {
    let listener = TcpListener::bind(address).await.map_err(|source| HttpError::Bind(address, source))?;
    let pages =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).with_state(reporter);
    axum::serve(listener, pages)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
        .map_err(HttpError::Serve)
}
