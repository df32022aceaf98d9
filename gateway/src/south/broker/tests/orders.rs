//! Orders to clients of the broker: to the one that is meant, if it is there and listens; nothing waits for it.

use super::*;
use crate::south::acting::PostError;

const SET: &str = "zigbee2mqtt/front/set";

fn way(bench: &Bench, client: &str) -> Outgoing {
    let outgoing = bench.broker.outgoing().into_iter();
    let mut meant = outgoing.filter(|(speaker, _)| speaker.to_string() == format!("client {client}"));
    meant.next().expect("the broker has this client").1
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_reaches_who_listens_and_nobody_later() {
    let mut bench = Bench::new().await;
    let z2m = way(&bench, "z2m");
    let order = |n: u8| z2m.post.post(SET, format!("{{\"n\":{n}}}"));
    assert_eq!(order(1).await, Err(PostError::NotListening), "it has not logged in");
    let mut client = bench.client("z2m").await;
    assert_eq!(order(2).await, Err(PostError::NotListening), "it has not subscribed");
    assert_eq!(client.subscribe("zigbee2mqtt/+/set").await, 0);
    assert_eq!(way(&bench, "other").post.post(SET, String::new()).await, Err(PostError::NotListening));
    assert_eq!(order(3).await, Ok(()));
    let (header, body) = client.read().await.unwrap();
    assert_eq!(header, 0x30, "QoS 0, not retained");
    assert!(body.ends_with(br#"{"n":3}"#) && body.windows(SET.len()).any(|part| part == SET.as_bytes()));
    drop(client);
    bench.until("it has left", |b| b.board.snapshot().buses.values().all(|bus| bus.clients.is_empty())).await;
    assert_eq!(order(4).await, Err(PostError::NotListening));
    let mut client = bench.client("z2m").await;
    assert_eq!(client.subscribe("zigbee2mqtt/+/set").await, 0);
    assert!(client.pings().await, "what was sent while it was away came");
    bench.stop().await;
    assert_eq!(order(5).await, Err(PostError::NotConnected));
    bench.start().await;
    let mut client = bench.client("z2m").await;
    assert_eq!(client.subscribe("zigbee2mqtt/+/set").await, 0);
    assert_eq!(order(6).await, Ok(()), "the next run of the broker takes orders too");
    assert!(client.read().await.unwrap().1.ends_with(br#"{"n":6}"#));
}
