//! HTTP requests that block, over the house's own TLS: one provider, one look at the calendar (`certificates`) for MQTT
//! and HTTP. For threads of their own. Must not know what is asked.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read as _, Write as _};
use ureq::Agent;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    TcpConnector, Transport, TransportAdapter,
};

use super::clock::SharedClock;
use super::mqtt::{Peer, PeerError, client_config};

/// Names and TCP; a line that is up answers within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest header section of an answer.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Something that asks one server. Redirections are not followed: whoever answers with one is told apart from whoever
/// takes what is sent. `timeout` bounds a request from first to last.
///
/// # Errors
/// No certificate authority is known, or `ca_file` cannot be used. Only asked for `https://`.
pub fn agent(
    url: &str,
    ca_file: Option<&Path>,
    clock: &SharedClock,
    timeout: Duration,
) -> Result<Agent, PeerError> {
    let tls = if url.starts_with("https://") {
        Some(client_config(&Peer { url, ca_file, ..Peer::default() }, clock)?)
    } else {
        None
    };
    let config = Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_response_header_size(HEADERS_BYTES_MAX)
        .user_agent(concat!("gatehouse/", env!("CARGO_PKG_VERSION")))
        .build();
    let connector = ConnectProxyConnector::default().chain(TcpConnector::default()).chain(Tls(tls));
    Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
}

/// Puts TLS onto a connection that needs it.
struct Tls(Option<Arc<ClientConfig>>);

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Tls").field(&self.0.is_some()).finish()
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Secured>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let config = self.0.clone().ok_or(ureq::Error::Tls("the url was not https"))?;
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_no_name| ureq::Error::Tls("the host is no name"))?;
        let broken = |error: rustls::Error| ureq::Error::Io(std::io::Error::other(error));
        let mut conn = ClientConnection::new(config, name).map_err(broken)?;
        let mut sock = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let sizes = (details.config.input_buffer_size(), details.config.output_buffer_size());
        let buffers = LazyBuffers::new(sizes.0, sizes.1);
        Ok(Some(Either::B(Secured { buffers, stream: StreamOwned { conn, sock } })))
    }
}

/// A connection under TLS.
struct Secured {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Secured").finish_non_exhaustive()
    }
}

impl Transport for Secured {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output();
        self.stream.write_all(output.get(..amount).unwrap_or(output))?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
