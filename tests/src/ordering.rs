//! Commands as a platform gives them, and the answers to them.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::platform::{Message, Platform};
use crate::site::SOON;
use crate::wait::eventually;

/// Where commands for this gateway go.
pub fn topic(gateway: &Gateway) -> String {
    format!("gatehouse/v1/{}/down/command", gateway.plan.name)
}

/// A command issued now by the box's own clock, as its newest state tells it.
pub fn command(state: &Message, id: &str, name: &str, args: &Value) -> Value {
    let passed = u64::try_from(state.at.elapsed().as_millis()).unwrap();
    let monotonic: u64 = state.text("monotonic").parse().unwrap();
    json!({
        "id": id, "command": name, "lifetime_s": 50, "operator": "duty-07", "reason": "a test", "args": args,
        "issued": { "bootid": state.text("bootid"), "monotonic": (monotonic + passed).to_string() },
    })
}

/// The answers to a command so far.
pub fn answers(platform: &Platform, id: &str) -> Vec<Value> {
    platform.look(|all| {
        let ours = |m: &&Message| m.channel() == "command/result" && m.json["data"]["command_id"] == id;
        all.iter().filter(ours).map(|message| message.json["data"].clone()).collect()
    })
}

/// Publishes it once, and waits for its last answer.
pub async fn order(platform: &Platform, gateway: &Gateway, command: &Value) -> Value {
    let id = command["id"].as_str().unwrap();
    let before = answers(platform, id).len();
    platform.publish(&topic(gateway), command.to_string(), false);
    eventually(&format!("the answer to {command}"), SOON, || {
        answers(platform, id).into_iter().skip(before).find(|answer| answer["last"] == true)
    })
    .await
}
