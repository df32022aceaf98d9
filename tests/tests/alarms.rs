//! The life of an alarm as the platform sees it, over kill -9 and commands: a dead field bus is one alarm that names what it
//! hides, a snapshot lists it, and it is over when a person has seen it.

use std::process::Command;
use std::time::Duration;

use gatehouse_tests::gateway::{self, Gateway, Plan};
use gatehouse_tests::modbus::{At, Slave};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::SOON;
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Back-off of a line after short trouble.
const BACK: Duration = Duration::from_mins(1);

fn bus_alarm(message: &Message) -> bool {
    message.channel() == "alarm" && message.json["data"]["rule"] == "bus-offline"
}

async fn state_comes(platform: &Platform, state: &str, rev_above: u64) -> Value {
    let wanted = |message: &Message| {
        let data = &message.json["data"];
        bus_alarm(message) && data["state"] == state && data["rev"].as_u64().unwrap() > rev_above
    };
    platform.await_message(&format!("the alarm {state}"), BACK, wanted).await.json
}

async fn acknowledge(platform: &Platform, gateway: &str, id: &str, alarm: &Value) -> Value {
    let sent = &alarm["data"];
    let command = json!({
        "id": id,
        "command": "alarm.acknowledge",
        "issued": { "bootid": alarm["bootid"], "monotonic": alarm["monotonic"] },
        "lifetime_s": 600,
        "operator": "duty-07",
        "reason": "electrician is on the way",
        "args": { "alarm": sent["alarm"], "rev": sent["rev"] },
    });
    platform.publish(&format!("gatehouse/v1/{gateway}/down/command"), command.to_string(), false);
    let wanted =
        |message: &Message| message.channel() == "command/result" && message.json["data"]["command_id"] == id;
    platform.await_message("the answer", SOON, wanted).await.json["data"].clone()
}

/// The open alarms of the bus in the snapshot of the newest connection.
fn listed(messages: &[Message]) -> Option<Vec<Value>> {
    let page = messages.iter().rfind(|message| message.channel() == "snapshot")?;
    let alarms = page.json["data"]["alarms"].as_array()?.iter();
    Some(alarms.filter(|alarm| alarm["rule"] == "bus-offline").cloned().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_bus_is_one_alarm_over_kill_9_until_somebody_has_seen_it() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let at = At::free_tcp();
    let At::Tcp(port) = at else { unreachable!() };
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-alarms", &mosquitto.url());
    // Also on a machine that has just booted.
    plan.gateway = "alarms = { start_s = 0, recover_s = 1 }".to_owned();
    plan.extra = format!("[buses.field.modbus]\ntcp = \"127.0.0.1:{port}\"\n");
    for unit in 1..=3 {
        plan.extra.push_str(&format!(
            "\n[devices.m{unit}]\nprofile = \"modbus-button\"\nbus = \"field\"\nunit = {unit}\n"
        ));
    }
    let mut gateway = Gateway::prepare(plan);
    // It is not ready while its bus is dead.
    gateway.spawn(&mut Command::new(gateway::program()));
    let first = state_comes(&platform, "unacknowledged", 0).await;
    assert_eq!(
        (&first["data"]["hides"], &first["data"]["active"]),
        (&json!(["m1", "m2", "m3"]), &json!(true))
    );
    assert_eq!(
        first["data"]["change"],
        json!({ "what": "raised", "actor": "rule bus-offline", "source": "rule" })
    );

    gateway.kill();
    let before = platform.look(<[Message]>::len);
    gateway.spawn(&mut Command::new(gateway::program()));
    let again =
        eventually("a snapshot of the new process", BACK, || platform.look(|all| listed(&all[before..])))
            .await;
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(again[0]["alarm"], first["data"]["alarm"], "a restart made another alarm");
    // The new process says again that the bus is dead: it counts.
    let second = state_comes(&platform, "unacknowledged", 1).await;
    assert_eq!((&second["data"]["alarm"], &second["data"]["count"]), (&first["data"]["alarm"], &json!(2)));

    let still = [(1, 'd', 0, 0), (2, 'd', 0, 0), (3, 'd', 0, 0)];
    let _slave = Slave::start(folder.path(), at, &still).await;
    let over = state_comes(&platform, "returned_unacknowledged", 2).await;
    let stale = acknowledge(&platform, "gw-alarms", "c-1", &first).await;
    assert_eq!(stale["outcome"], "rejected", "{stale}");
    let done = acknowledge(&platform, "gw-alarms", "c-2", &over).await;
    assert_eq!(done["outcome"], "done", "{done}");
    let last = state_comes(&platform, "normal", 0).await;
    assert_eq!((&last["data"]["open"], &last["data"]["change"]["actor"]), (&json!(false), &json!("duty-07")));

    gateway.await_delivered().await;
    gateway.stop().await;
    let before = platform.look(<[Message]>::len);
    gateway.run().await;
    let last =
        eventually("a snapshot without it", SOON, || platform.look(|all| listed(&all[before..]))).await;
    assert_eq!(last, Vec::<Value>::new());
    platform.look(|all| {
        let ids: std::collections::BTreeSet<String> = all
            .iter()
            .filter(|message| bus_alarm(message))
            .map(|m| m.json["data"]["alarm"].to_string())
            .collect();
        assert_eq!(ids.len(), 1, "one alarm, whatever happened: {ids:?}");
        let ticks = all.iter().filter(|message| message.json["data"]["name"] == "pipeline.tick").count();
        assert_eq!(ticks, 0, "ticks go to nobody");
        gatehouse_tests::audit::audit(all, "gw-alarms").assert_clean();
    });
}
