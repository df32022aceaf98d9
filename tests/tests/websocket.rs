//! North by WebSocket, as networks that let only 443 out need it: with TLS, and through an HTTP server that has MQTT on
//! one of its paths.

use std::net::SocketAddr;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan, Uplink};
use gatehouse_tests::mosquitto::{Mosquitto, Options};
use gatehouse_tests::pki::Pki;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::site::{SOON, await_state, press, pressed};
use gatehouse_tests::turn;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const BUTTON: &str = "button-1";

async fn presses_arrive(gateway: &mut Gateway, platform: &Platform) {
    let mut device = Device::connect_patiently(&gateway.login()).await;
    for n in 1..=20 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    platform.await_message("the last press", SOON, |message| pressed(message, BUTTON) == Some(20)).await;
    await_state(platform, &gateway.plan.name, 1).await;
    gateway.await_delivered().await;
    gateway.stop().await;
    platform.look(|messages| gatehouse_tests::audit::audit(messages, &gateway.plan.name)).assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn north_by_websocket_with_tls() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let pki = Pki::new(folder.path());
    let server = pki.identity("server");
    let options = Options { websocket_tls: Some(&server), ..Options::default() };
    let mosquitto = Mosquitto::start_with(&options).await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-wss", "");
    let uplink = Uplink::new("street", &mosquitto.websocket_tls_url());
    plan.uplinks = vec![uplink.extra(&format!("ca_file = {:?}", pki.ca()))];
    let mut gateway = Gateway::start(plan).await;
    presses_arrive(&mut gateway, &platform).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_is_not_trusted() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let (pki, other) = (Pki::new(&folder.path().join("a")), Pki::new(&folder.path().join("b")));
    let server = pki.identity("server");
    let options = Options { websocket_tls: Some(&server), ..Options::default() };
    let mosquitto = Mosquitto::start_with(&options).await;
    let mut plan = Plan::new("gw-wss-other", "");
    let uplink = Uplink::new("street", &mosquitto.websocket_tls_url());
    plan.uplinks = vec![uplink.extra(&format!("ca_file = {:?}", other.ca()))];
    let gateway = Gateway::start(plan).await;
    gatehouse_tests::wait::eventually("the trouble is told", SOON, || {
        let status = gateway.status();
        let uplink = &status["board"]["uplinks"]["street"];
        assert_ne!(uplink["connected"], true, "a server of nobody's was trusted");
        uplink["trouble"].as_str().filter(|trouble| trouble.contains("certificate")).map(str::to_owned)
    })
    .await;
}

/// What an HTTP server in front does: looks at the request, and passes it on if it is for its path.
async fn front(listener: TcpListener, path: &'static str, behind: SocketAddr) {
    let mut passing = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        passing.spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await?);
            }
            let text = String::from_utf8_lossy(&head).to_lowercase();
            let ours = text.starts_with(&format!("get {path} http/1.1\r\n"))
                && text.contains("\r\nupgrade: websocket\r\n")
                && text.contains("\r\nsec-websocket-protocol: mqtt\r\n")
                && text.contains("\r\nhost: ");
            if !ours {
                return client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
            }
            let mut server = TcpStream::connect(behind).await?;
            server.write_all(&head).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await.map(|_| ())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn north_through_the_path_of_an_http_server() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start_with(&Options { websocket: true, ..Options::default() }).await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(front(listener, "/street/iot/mqtt", mosquitto.websocket()));
    // A path that the server does not have is a trouble, and the right one is none.
    let mut gateway = Gateway::start(Plan::new("gw-path", &format!("ws://{address}/mqtt"))).await;
    gatehouse_tests::wait::eventually("the wrong path is told", SOON, || {
        let status = gateway.status();
        status["board"]["uplinks"]["street"]["trouble"]
            .as_str()
            .filter(|trouble| trouble.contains("404"))
            .map(str::to_owned)
    })
    .await;
    gateway.stop().await;
    gateway.plan.uplinks = vec![Uplink::new("street", &format!("ws://{address}/street/iot/mqtt"))];
    gateway.write();
    gateway.run().await;
    presses_arrive(&mut gateway, &platform).await;
}
