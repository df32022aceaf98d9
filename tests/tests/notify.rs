//! People are told without a platform: whatever their robot and the gateway suffer, no alarm is lost.

use std::collections::BTreeSet;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::robot::Robot;
use gatehouse_tests::site::{LATER, SOON, press};
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;

/// Nobody listens there.
const NOWHERE: &str = "mqtt://127.0.0.1:1";

/// Names the devices whose alarms are told.
const TEMPLATE: &str = r#"{"devices": [{% for alarm in alarms %}{{ alarm.device | tojson }}{{ "," if not loop.last }}{% endfor %}]}"#;

async fn start(name: &str, robot: &Robot) -> Gateway {
    let mut plan = Plan::new(name, NOWHERE);
    plan.buttons.push("button-3".to_owned());
    plan.extra = format!(
        "[notifiers.guards.webhook]\nkind = \"own\"\nurl = \"http://{}/\"\ntemplate_file = \"guards.json.j2\"\n\
         categories = [\"emergency\"]\nper_minute = 600\n",
        robot.address
    );
    let mut gateway = Gateway::prepare(plan);
    std::fs::write(gateway.folder().join("guards.json.j2"), TEMPLATE).unwrap();
    gateway.run().await;
    gateway
}

/// The devices of each message that was taken.
fn told(robot: &Robot) -> Vec<Vec<String>> {
    let devices = |body: &serde_json::Value| {
        let names = body["devices"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    robot.taken().iter().map(devices).collect()
}

async fn await_refusal(robot: &Robot) {
    let before = robot.refused();
    eventually("another refusal", LATER, || (robot.refused() > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_robot_did_not_take_is_told_after_any_number_of_deaths() {
    let _turn = turn::shared();
    let robot = Robot::start().await;
    let mut gateway = start("gw-notify", &robot).await;
    for button in ["button-1", "button-2"] {
        let mut device = Device::connect_patiently(&gateway.login()).await;
        press(&mut device, button, 1).await.unwrap();
        await_refusal(&robot).await;
        gateway.kill();
        gateway.run().await;
        // What it was refused before its death it tries again.
        await_refusal(&robot).await;
    }
    gateway.kill();
    robot.get_well();
    gateway.run().await;
    let wanted: BTreeSet<String> = ["button-1", "button-2"].map(str::to_owned).into();
    eventually("both alarms are told", SOON, || {
        (told(&robot).concat().into_iter().collect::<BTreeSet<_>>() == wanted).then_some(())
    })
    .await;
    // Stopped in order it remembers what was told.
    gateway.stop().await;
    let before = told(&robot).len();
    gateway.run().await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, "button-3", 1).await.unwrap();
    eventually("the third alarm is told", SOON, || (told(&robot).len() > before).then_some(())).await;
    // Three buttons within a minute are an alarm of their own, which bears the third one's name.
    let last = told(&robot).split_off(before).concat();
    assert!(last.iter().all(|device| device == "button-3"), "the others again: {last:?}");
}
