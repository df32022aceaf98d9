//! What is posted, for each kind, and which alarms.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::super::config::{Kind, Language, WebhookConfig};
use super::super::select::wanted;
use super::super::sign;
use super::super::words::{Frame, Template, Told, told as told_of, words};
use crate::model::alarm::{Alarm, AlarmState, Change, ChangeKind};
use crate::model::ids::{BootId, DeviceId, Epoch};
use crate::model::place::Place;
use crate::model::record::{Body, Category, Class, DeviceRef, Event, Record, Severity, Text};
use crate::model::stamp::{ClockTrust, Stamp};

pub(super) fn config(more: &str) -> WebhookConfig {
    toml::from_str(&format!("kind = \"wecom\"\nurl = \"http://127.0.0.1:1/\"\n{more}")).unwrap()
}

pub(super) fn alarm(number: u64) -> Alarm {
    let device = DeviceId::new("sos-1").unwrap();
    let raised = Event {
        device: DeviceRef { id: device, kind: "button".to_owned(), profile: None, bus: None },
        place: Place {
            building: Some("3".to_owned()),
            unit: Some("1单元".to_owned()),
            household: Some("302".to_owned()),
            ..Place::default()
        },
        category: Category::Emergency,
        name: "button.pressed".to_owned(),
        severity: Some(Severity::Critical),
        params: BTreeMap::new(),
        text: Some(Text { zh: "紧急按钮\"按下\"".to_owned(), en: "emergency\nbutton".to_owned() }),
    };
    Alarm::new(format!("alarm-{number}"), AlarmState::Unacknowledged, raised)
}

pub(super) fn record(alarm: &Alarm) -> Record {
    Record {
        pos: 1,
        epoch: Epoch(1),
        class: Class::Alarm,
        seq: 1,
        at: Stamp {
            boot: BootId("b".into()),
            mono_ms: 1,
            wall_ms: 1_772_294_400_000,
            trust: ClockTrust::Ntp,
        },
        test: false,
        body: Body::Alarm(Box::new(alarm.clone())),
    }
}

pub(super) fn told() -> Told {
    told_in(Language::Zh)
}

fn told_in(language: Language) -> Told {
    let alarm = alarm(1);
    told_of(&record(&alarm), &alarm, language, 480)
}

fn frame(language: Language) -> Frame {
    Frame {
        gateway: "gate-1".to_owned(),
        compound: "阳光花园".to_owned(),
        timestamp: "1772294400".to_owned(),
        sign: None,
        more: 0,
        words: words(language),
    }
}

fn message(kind: Kind, alarms: &[Told], frame: &Frame) -> Json {
    let template = Template::new(kind.template().unwrap()).unwrap();
    serde_json::from_str(&template.render(alarms, frame).unwrap()).unwrap()
}

#[test]
fn shipped_templates_say_what_robots_expect() {
    let frame = frame(Language::Zh);
    let wecom = message(Kind::Wecom, &[told()], &frame);
    assert_eq!(wecom["msgtype"], "markdown");
    let content = wecom["markdown"]["content"].as_str().unwrap();
    let expected = "> <font color=\"warning\">**紧急**</font> 发生 紧急按钮\"按下\"\n> 位置： 3栋1单元302户\n> 时间： \
                    2026-03-01 00:00:00\n\n阳光花园 gate-1";
    assert_eq!(content, expected);
    let dingtalk = message(Kind::Dingtalk, &[told(), told()], &frame);
    assert_eq!(dingtalk["msgtype"], "markdown");
    assert_eq!(dingtalk["markdown"]["title"], "报警 紧急按钮\"按下\"");
    let text = dingtalk["markdown"]["text"].as_str().unwrap();
    assert!(text.starts_with("**报警条数： 2**\n\n- **紧急** 发生 "), "{text:?}");
    assert!(text.ends_with("\n阳光花园 gate-1"), "{text:?}");
    let feishu = message(Kind::Feishu, &[told()], &frame);
    assert_eq!(feishu["msg_type"], "text");
    let text = feishu["content"]["text"].as_str().unwrap();
    assert!(text.starts_with("【紧急】发生 紧急按钮"), "{text:?}");
    assert_eq!((feishu.get("sign"), feishu.get("timestamp")), (None, None));
    let signed = Frame { sign: Some("s".to_owned()), ..frame };
    let feishu = message(Kind::Feishu, &[told()], &signed);
    assert_eq!((&feishu["sign"], &feishu["timestamp"]), (&json!("s"), &json!("1772294400")));
}

#[test]
fn languages_and_unknown_times() {
    let english = message(Kind::Wecom, &[told_in(Language::En)], &frame(Language::En));
    let content = english["markdown"]["content"].as_str().unwrap().to_owned();
    assert!(
        content.contains("**CRITICAL**") && content.contains("building 3, unit 1单元, household 302"),
        "{content}"
    );
    let unknown = Told { time: None, count: 4, ..told_in(Language::Both) };
    let both = message(Kind::Wecom, &[unknown], &frame(Language::Both));
    let content = both["markdown"]["content"].as_str().unwrap().to_owned();
    assert!(content.contains("时间未知 at a time not known ×4"), "{content}");
}

#[test]
fn a_template_of_ones_own_is_judged() {
    let whole = "{\"n\": {{ alarms | length }}, \"first\": {{ alarms[0].id | tojson }}}";
    let text = Template::new(whole).unwrap().render(&[told()], &frame(Language::Zh)).unwrap();
    assert_eq!(text, "{\"n\": 1, \"first\": \"alarm-1\"}");
    assert!(Template::new("{% for %}").unwrap_err().to_string().contains("the template is wrong"));
    let render =
        |text: &str| Template::new(text).unwrap().render(&[told()], &frame(Language::Zh)).unwrap_err();
    assert!(render("{{ alarms[0].nothing }}").to_string().contains("undefined"));
    assert!(render("{\"a\": {{ alarms[0].text }}}").to_string().contains("no JSON"));
    assert!(
        render("\"{% for i in range(9000) %}0123456789{% endfor %}\"").to_string().contains("90002 bytes")
    );
}

#[test]
fn signatures_are_those_of_the_robots() {
    // Computed with Python's hmac, hashlib and urllib by the robots' public descriptions.
    let url =
        sign::dingtalk("https://oapi.dingtalk.com/robot/send?access_token=x", "SECabc", 1_577_262_236_757);
    let expected = "https://oapi.dingtalk.com/robot/send?access_token=x&timestamp=1577262236757&sign=I5TKCOTTj6fad4sJ4q9RsIffw0PAChVQZQGTdtRbNEQ%3D";
    assert_eq!(url, expected);
    assert_eq!(
        sign::feishu("SECabc", 1_599_360_473_999),
        ("1599360473".to_owned(), "KjJCRpeZcpDq6nFA4wlSAm5ZsE3Y8HuB1O1Sgv2Y9xA=".to_owned())
    );
}

#[test]
fn only_what_was_asked_for_is_told() {
    let change = |what| {
        let mut alarm = alarm(1);
        alarm.rev = 3;
        alarm.change = Some(Change {
            what,
            actor: "rule x".to_owned(),
            source: "rule".to_owned(),
            command: None,
            reason: None,
        });
        alarm
    };
    let takes = |more: &str, alarm: &Alarm| wanted(&config(more), &record(alarm), alarm);
    assert!(takes("", &alarm(1)) && takes("", &change(ChangeKind::Escalated)));
    assert!(!takes("", &change(ChangeKind::Acknowledged)) && !takes("", &change(ChangeKind::Folded)));
    assert!(takes("tell = [\"closed\"]", &change(ChangeKind::Closed)));
    assert!(!takes("categories = [\"fire\"]", &alarm(1)) && takes("buildings = [\"3\"]", &alarm(1)));
    assert!(!takes("buildings = [\"4\"]", &alarm(1)));
    let mut minor = alarm(1);
    minor.raised.severity = Some(Severity::Warning);
    assert!(!takes("", &minor) && takes("severity = \"warning\"", &minor));
    minor.severity = Some(Severity::Critical);
    assert!(takes("", &minor), "its severity has grown since");
    let test = Record { test: true, ..record(&alarm(1)) };
    assert!(!wanted(&config(""), &test, &alarm(1)) && wanted(&config("tests = true"), &test, &alarm(1)));
}
