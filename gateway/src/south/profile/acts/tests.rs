//! Every shipped speaker, door and output against the literal order that its source shows.

use serde_json::json;

use super::*;
use crate::model::ids::ProfileName;
use crate::south::profile::shipped_profiles;

fn profile(name: &str) -> Profile {
    shipped_profiles().unwrap().remove(&ProfileName::new(name).unwrap()).unwrap()
}

fn filling() -> Filling {
    Filling {
        id: "e-1-r.1-1-1".to_owned(),
        number: 7,
        now_s: 1_780_272_000,
        address: "1001".to_owned(),
        ..Filling::default()
    }
}

fn words() -> Filling {
    let text = Some("三栋\"一单元\"\\紧急求助".to_owned());
    Filling { text, volume: Some(60), repeat: Some(3), ..filling() }
}

fn clip() -> Filling {
    Filling { clip: Some("067-018".to_owned()), volume: Some(60), repeat: Some(2), ..filling() }
}

#[test]
fn shipped_speakers_say_what_their_sources_show() {
    for (name, filling, expected) in [
        (
            "showdoc-tts",
            words(),
            json!({"method": "startTts", "content": "三栋\"一单元\"\\紧急求助", "vol": 60, "repeat": 3}),
        ),
        ("mqlinks-speaker", clip(), json!({"playAudibleMsg": "067-018", "orderId": 7})),
        (
            "aliyun-speaker",
            clip(),
            json!({
                "id": "7", "version": "1.0", "method": "thing.service.SpeechBroadcast",
                "params": {"id": "e-1-r.1-1-1", "speechs": ["067-018", "067-018"]}
            }),
        ),
        (
            "lan-speaker",
            words(),
            json!({"id": "e-1-r.1-1-1", "text": "三栋\"一单元\"\\紧急求助", "volume": 60, "repeat": 3}),
        ),
        ("lan-speaker", clip(), json!({"id": "e-1-r.1-1-1", "clip": "067-018", "volume": 60, "repeat": 2})),
    ] {
        let speaker = profile(name).speaker.unwrap();
        let order = fill(&speaker.payload, &filling).unwrap();
        let order: serde_json::Value = serde_json::from_str(&order).unwrap();
        assert_eq!(order, expected, "{name}");
    }
    let stop = profile("showdoc-tts").speaker.unwrap().stop.unwrap();
    assert_eq!(fill(&stop.payload, &filling()).unwrap(), r#"{"method":"stop"}"#);
}

#[test]
fn shipped_doors_and_outputs_say_what_their_sources_show() {
    let lock = profile("z2m-lock").door.unwrap();
    assert_eq!(fill(lock.unlock.as_deref().unwrap(), &filling()).unwrap(), r#"{"state":"UNLOCK"}"#);
    assert_eq!(lock.topic.as_deref(), Some("{base}/{address}/set"));
    let volume = profile("pub6-broadcast").outputs.remove("volume").unwrap();
    let order = fill(&volume.payload, &Filling { value: Some(Value::Int(31)), ..filling() }).unwrap();
    let order: serde_json::Value = serde_json::from_str(&order).unwrap();
    assert_eq!(order["to"], "1001");
    assert_eq!(order["data"], json!({"act": "volume", "value": 31}));
    assert_eq!((&order["seq"], &order["ts"]), (&json!(7), &json!(1_780_272_000)));
    let door = profile("modbus-door");
    assert!(door.points[door.door.unwrap().output.as_ref().unwrap()].write);
}

#[test]
fn volume_is_spread_over_what_the_device_has() {
    for (min, max, percent, expected) in
        [(0, 31, 0, 0), (0, 31, 100, 31), (0, 31, 50, 16), (0, 100, 80, 80), (5, 30, 200, 30), (9, 3, 50, 9)]
    {
        assert_eq!(VolumeRange { min, max }.of(percent), expected, "{min} {max} {percent}");
    }
}

#[test]
fn mistakes_in_what_acts_are_told() {
    const SPEAKER: &str =
        "kind = 'speaker'\ntitle = { zh = '音', en = 's' }\n[mqtt]\ntopic = '{base}/{address}'\n";
    const MODBUS: &str =
        "kind = 'door'\ntitle = { zh = '门', en = 'd' }\n[modbus]\n[points.in]\ndiscrete = 0\n";
    let good = "[speaker]\nreach = 'lan'\ntopic = '{base}/{address}/set'\npayload = '{{ text | tojson }}'\n";
    for (text, needle) in [
        (format!("{SPEAKER}{good}"), ""),
        (format!("{SPEAKER}{}", good.replace("text |", "txt |")), "`txt` means nothing"),
        (format!("{SPEAKER}{}", good.replace("tojson }}", "tojson")), "cannot be filled in"),
        (format!("{SPEAKER}{}", good.replace("{base}/{address}/set", "set")), "under the client's base"),
        (format!("{SPEAKER}{good}volume = {{ min = 9, max = 1 }}"), "min is above max"),
        (
            format!(
                "{SPEAKER}{good}[speaker.ack]\npointer = 'x'\none_of = [1]\ntimeout_ms = 500\nmeans = 'played'"
            ),
            "JSON Pointer",
        ),
        (
            format!(
                "{SPEAKER}{good}[speaker.ack]\npointer = '/x'\none_of = []\ntimeout_ms = 5\nmeans = 'played'"
            ),
            "never matches",
        ),
        (format!("{SPEAKER}[door]\ntopic = '{{base}}/a'"), "how the door is released"),
        (format!("{MODBUS}[door]\noutput = 'in'"), "no output"),
        (format!("{MODBUS}{good}"), "spoken to by MQTT"),
        (format!("{MODBUS}[outputs.x]\ntopic = '{{base}}/a'\npayload = '1'"), "write = true"),
    ] {
        let profile: Profile = toml::from_str(&text).unwrap();
        let problems = profile.problems();
        let told: Vec<&str> = problems
            .iter()
            .map(|problem| problem.message.as_str())
            .chain(problems.iter().filter_map(|problem| problem.hint.as_deref()))
            .collect();
        let fits =
            if needle.is_empty() { told.is_empty() } else { told.iter().any(|told| told.contains(needle)) };
        assert!(fits, "{needle:?}: {told:?}\n{text}");
    }
}

#[test]
fn a_template_without_end_ends() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    assert!(fill(endless, &filling()).is_err());
    let long = format!("{}{{{{ text }}}}", "x".repeat(ORDER_BYTES_MAX));
    assert!(fill(&long, &words()).unwrap_err().contains("bytes"));
}
