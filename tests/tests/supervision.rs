//! Starting, ending and being ill (promise G14): what systemd and an installer rely on.

use std::process::Command;
use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan, command, program};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::process::Process;
use gatehouse_tests::site::{LATER, SOON, Site, await_event, await_presses, press};
use gatehouse_tests::turn;
use tokio::time::Instant;

const BUTTON: &str = "button-1";

/// Promised in the issue: SIGTERM drains and ends within so long.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_in_time_with_the_platform_up_and_down() {
    let _turn = turn::alone();
    let mut site = Site::start("gw-term").await;
    for (round, platform_up) in [(1, true), (2, false)] {
        if !platform_up {
            site.mosquitto.stop().await;
            site.gateway.run().await;
        }
        if platform_up {
            site.await_online(1).await;
        }
        let mut device = site.device().await;
        press(&mut device, BUTTON, round).await.unwrap();
        let before = Instant::now();
        let status = site.gateway.terminate(ENDS_WITHIN + Duration::from_secs(10)).await;
        let took = before.elapsed();
        println!("platform up: {platform_up}; ended after {took:?}");
        assert!(took < ENDS_WITHIN, "SIGTERM took {took:?}");
        assert_eq!(status.code(), Some(0));
        assert!(device.await_end(SOON).await);
        if platform_up {
            let goodbye = |message: &gatehouse_tests::platform::Message| {
                message.channel() == "state" && message.json["data"]["reason"] == "shutdown"
            };
            let state = site.platform.await_message("the last word", SOON, goodbye).await;
            assert_eq!(state.json["data"]["online"], false);
        }
    }
    // What was told to be safe is still there.
    site.mosquitto.run().await;
    site.gateway.run().await;
    site.await_presses(BUTTON, &[1, 2].into(), LATER).await;
    site.audit().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_journal_is_refused() {
    let _turn = turn::shared();
    let mut site = Site::start("gw-second").await;
    let mut command = Command::new(program());
    command.arg("run").arg("--config").arg(site.gateway.config_file());
    let log = site.gateway.folder().join("second.log");
    let mut second = Process::spawn("the second daemon", &mut command, &log);
    let status = second.wait(SOON).await;
    assert!(!status.success());
    let text = second.output();
    assert!(text.contains("data"), "the refusal does not name the folder: {text}");
    let mut device = site.device().await;
    press(&mut device, BUTTON, 1).await.expect("the first daemon goes on");
    site.await_presses(BUTTON, &[1].into(), SOON).await;
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_box_is_well_while_its_platform_is_away() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let url = mosquitto.url();
    drop(mosquitto);
    let gateway = Gateway::start(Plan::new("gw-alone", &url)).await;
    let (code, _) = gatehouse_tests::http::get(gateway.http, "/healthz").await.unwrap();
    assert_eq!(code, 200, "a dead uplink is not ill health");
    let status = gateway.status();
    assert_eq!(status["gateway"], "gw-alone");
    assert_eq!(status["board"]["uplinks"]["street"]["connected"], false);
    assert_eq!(status["board"]["buses"]["lan"]["kind"], "broker");
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    let status = gateway.status();
    assert_eq!(status["board"]["devices"][BUTTON]["messages"], 1);
    assert!(status["board"]["devices"]["button-2"]["heard"].is_null(), "heard before it has spoken");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_button_at_qos_0_is_warned_of() {
    let _turn = turn::shared();
    let site = Site::start("gw-qos").await;
    let mut device = site.device().await;
    device.send("zigbee2mqtt/button-1", br#"{"action":"emergency","n":1}"#, 0).await.unwrap();
    site.await_presses(BUTTON, &[1].into(), SOON).await;
    let warnings = site.gateway.status()["board"]["devices"][BUTTON]["warnings"].to_string();
    assert!(warnings.to_lowercase().contains("qos"), "no warning: {warnings}");
}

#[test]
fn a_broken_configuration_is_refused_with_the_report_of_check() {
    let _turn = turn::shared();
    let gateway = Gateway::prepare(Plan::new("gw-broken", "mqtt://127.0.0.1:1"));
    let good = gateway.gatehouse(&["check"]);
    let path = gateway.config_file();
    let told = if good.status.success() {
        good
    } else {
        // `check` takes its path as an argument of its own.
        command(&["check", path.to_str().unwrap()])
    };
    assert!(told.status.success(), "the good one: {}", String::from_utf8_lossy(&told.stdout));

    let text = std::fs::read_to_string(&path).unwrap();
    let broken = text
        .replace("compound =", "compund =")
        .replace("profile = \"test-button\"", "profile = \"test-buton\"")
        .replace("logins_per_s = 1000", "logins_per_s = 0");
    std::fs::write(&path, &broken).unwrap();
    let checked = command(&["check", path.to_str().unwrap()]);
    let report = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{report}");
    for (wrong, right) in [("compund", "compound"), ("test-buton", "test-button"), ("logins_per_s", "")] {
        let line = 1 + broken.lines().position(|line| line.contains(wrong)).unwrap();
        assert!(report.contains(&format!("gatehouse.toml:{line}:")), "no line {line} for {wrong}:\n{report}");
        assert!(report.contains(right), "{right} is not proposed:\n{report}");
    }
    let run = command(&["run", "--config", path.to_str().unwrap()]);
    assert!(!run.status.success(), "a broken configuration was run");
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    for line in report.lines().filter(|line| line.contains("gatehouse.toml:")) {
        assert!(said.contains(line.trim()), "`run` does not say {line:?}:\n{said}");
    }
    assert!(!gateway.data_dir().exists(), "something was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_set_aside_and_told() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut gateway = Gateway::prepare(Plan::new("gw-damage", &mosquitto.url()));
    gateway.run().await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    for n in 1..=5 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    await_presses(&platform, BUTTON, &(1..=5).collect(), SOON).await;
    gateway.stop().await;

    let journal = gateway.data_dir().join("journal.db");
    let mut bytes = std::fs::read(&journal).unwrap();
    for byte in bytes.iter_mut().skip(4_096).step_by(3) {
        *byte ^= 0x5a;
    }
    std::fs::write(&journal, &bytes).unwrap();
    gateway.run().await;
    let event = await_event(&platform, "store.reset", SOON).await;
    assert_eq!(event.json["data"]["severity"], "critical");
    let kept: Vec<String> = std::fs::read_dir(gateway.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let aside = event.json["data"]["params"]["set_aside"].as_str().expect("it says what was set aside");
    assert!(kept.iter().any(|name| name == aside), "{aside} is not among {kept:?}");
    assert_eq!(std::fs::read(gateway.data_dir().join(aside)).unwrap(), bytes, "the damaged file was changed");

    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 6).await.unwrap();
    await_presses(&platform, BUTTON, &(1..=6).collect(), SOON).await;
    let report = platform.look(|messages| gatehouse_tests::audit::audit(messages, "gw-damage"));
    assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_can_be_read_while_the_daemon_runs() {
    let _turn = turn::shared();
    let site = Site::start("gw-export").await;
    let mut device = site.device().await;
    for n in 1..=20 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    let exported = site.gateway.journal();
    // The alarm that they raise tells the same name.
    let pressed = |record: &&serde_json::Value| {
        record["class"] == "event" && record.to_string().contains("button.pressed")
    };
    let count = exported.iter().filter(pressed).count();
    assert_eq!(count, 20, "acknowledged and not in the journal");
}

#[test]
fn every_command_explains_itself() {
    let _turn = turn::shared();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["demo", "--help"],
        &["status", "--help"],
        &["journal", "export", "--help"],
        &["client", "add", "--help"],
        &["platform-check", "--help"],
    ] {
        let output = command(arguments);
        assert!(output.status.success() && output.stdout.len() > 100, "{arguments:?}: {output:?}");
    }
    assert_eq!(command(&["no-such-command"]).status.code(), Some(2));
}
