//! Rules that a platform puts: at work with the next record, and gone again if the gateway dies with them (promise G13).

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::ordering::{command, order};
use gatehouse_tests::platform::Platform;
use gatehouse_tests::site::{SOON, await_event, await_state, press};
use gatehouse_tests::turn;
use serde_json::json;

/// A rule of this name that raises an alarm for each press.
fn rule(name: &str) -> String {
    format!(
        r#"
[[rule]]
name = "{name}"
title = {{ zh = "测试规则", en = "a rule of the test" }}
on = {{ event = "button.pressed", kind = "button" }}
cooldown_s = 0

[rule.raise]
category = "emergency"
severity = "critical"
text = {{ zh = "求助", en = "help" }}
"#
    )
}

async fn await_alarm(platform: &Platform, rule: &str) {
    let ours = |message: &gatehouse_tests::platform::Message| {
        message.channel() == "alarm" && message.json["data"]["rule"] == rule
    };
    platform.await_message(&format!("an alarm of {rule}"), SOON, ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_are_put_work_at_once_and_go_with_the_deaths_that_they_cause() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-rules", &mosquitto.url());
    plan.gateway.push_str("rules_dir = \"rules\"\n");
    plan.uplinks[0] = plan.uplinks[0].clone().extra("commands = { allow = [\"rules.put\"] }");
    let mut gateway = Gateway::prepare(plan);
    let file = gateway.folder().join("rules/own.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, rule("from-before")).unwrap();
    gateway.run().await;
    let state = await_state(&platform, "gw-rules", 1).await;
    let put =
        |id: &str, toml: &str| command(&state, id, "rules.put", &json!({ "name": "own", "toml": toml }));

    let refused = order(&platform, &gateway, &put("bad", &rule("no name"))).await;
    assert_eq!((&refused["outcome"], &refused["code"]), (&json!("rejected"), &json!("rules_wrong")));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), rule("from-before"));

    let done = order(&platform, &gateway, &put("good", &rule("from-afar"))).await;
    assert_eq!((&done["outcome"], &done["code"]), (&json!("done"), &json!("ok")), "{done}");
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, "button-1", 1).await.unwrap();
    await_alarm(&platform, "from-afar").await;

    for expected in [rule("from-afar"), rule("from-before")] {
        gateway.kill();
        gateway.run().await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    }
    let told = await_event(&platform, "rules.taken_back", SOON).await;
    assert_eq!(told.param("files"), "own.toml");
    let mut button = Device::connect_patiently(&gateway.login()).await;
    let raised = || platform.look(|all| all.iter().filter(|m| m.json["data"]["rule"] == "from-afar").count());
    let before = raised();
    press(&mut button, "button-2", 2).await.unwrap();
    await_alarm(&platform, "from-before").await;
    gateway.await_delivered().await;
    assert_eq!(raised(), before, "the new rule is still at work");
}
