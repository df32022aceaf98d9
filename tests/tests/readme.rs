//! The quick start of README.md, typed as it stands: a stranger who follows it gets a press to a platform, and
//! `platform-check` finds nothing to report.
//!
//! Three things differ from a reader's terminal: the build is not repeated (the binary under test stands in for the
//! release build), the two fixed ports become free ones, and what runs in the background is ended afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::gateway::{program, root};
use gatehouse_tests::process::Process;
use gatehouse_tests::readme::commands;
use gatehouse_tests::{ports, turn};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// The page's ports: devices and platform.
const DEVICES: &str = "1883";
const PLATFORM: &str = "1884";

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Puts other ports into every configuration file below `folder`.
fn move_ports(folder: &Path, ports: &[(&str, String)]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            move_ports(&path, ports);
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            fs::write(&path, with_ports(&fs::read_to_string(&path).unwrap(), ports)).unwrap();
        }
    }
}

fn with_ports(text: &str, ports: &[(&str, String)]) -> String {
    ports.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The page's commands as one script. Where it starts something in the background, a reader waits until that is
/// there before typing on; the script waits for the port.
fn script(page: &str, ports: &[(&str, String)]) -> String {
    let mut script = String::from(
        "set -eu\nwait_for() { for _ in $(seq 400); do (: < /dev/tcp/127.0.0.1/$1) 2>/dev/null && return; \
         sleep 0.05; done; echo \"nothing listens on $1\"; exit 1; }\n",
    );
    let typed = commands(page, "quick start");
    assert!(typed.len() >= 8, "the quick start has lost its commands: {typed:?}");
    for typed in typed {
        if typed.command.starts_with("cargo build") {
            continue;
        }
        let command = with_ports(&typed.command, ports);
        script.push_str(&format!("echo '--- README.md:{}'\n{command}\n", typed.line));
        if command.starts_with("mosquitto ") {
            script.push_str(&format!("wait_for {}\n", ports[1].1));
        } else if command.contains("gatehouse run") {
            script.push_str(&format!("wait_for {}\n", ports[0].1));
        } else if command.starts_with("mosquitto_sub") {
            // Its subscription has no port to wait for: it is in place when the retained state has come.
            script.push_str("for _ in $(seq 400); do grep -q up/state ../log && break; sleep 0.05; done\n");
        }
    }
    script.push_str("echo '--- done'\n");
    script
}

async fn follow(page: &str) {
    let folder = TempDir::new().unwrap();
    let work = folder.path().join("gatehouse");
    copy_tree(&root().join("config"), &work.join("config"));
    fs::create_dir_all(work.join("target/release")).unwrap();
    std::os::unix::fs::symlink(program(), work.join("target/release/gatehouse")).unwrap();
    let ports = [(DEVICES, ports::free().port().to_string()), (PLATFORM, ports::free().port().to_string())];
    move_ports(&work.join("config"), &ports);
    let text = fs::read_to_string(root().join(page)).unwrap();
    fs::write(folder.path().join("script"), script(&text, &ports)).unwrap();

    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg("../script").current_dir(&work).env("PATH", path);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut shell = Process::spawn(page, &mut command, &folder.path().join("log"));
    let group = Pid::from_raw(i32::try_from(shell.id()).unwrap()).unwrap();
    let status = shell.wait(Duration::from_mins(2)).await;
    // What the page starts in the background belongs to the same group.
    kill_process_group(group, Signal::TERM).ok();

    let log = shell.output();
    assert!(status.success(), "{page}: {status}\n{log}");
    assert!(log.contains("--- done"), "{page} was not followed to its end:\n{log}");
    assert!(log.contains("up/event/emergency"), "{page}: the platform's terminal shows no event:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_brings_a_press_to_the_platform() {
    let _turn = turn::shared();
    follow("README.md").await;
}

#[test]
fn the_chinese_quick_start_says_the_same() {
    let _turn = turn::shared();
    let (english, chinese) = ("README.md", "README.zh-CN.md");
    let text = fs::read_to_string(root().join(chinese)).unwrap();
    let page = fs::read_to_string(root().join(english)).unwrap();
    let typed = |text: &str, heading: &str| -> Vec<String> {
        commands(text, heading).into_iter().map(|typed| typed.command).collect()
    };
    let shown = typed(&text, "快速开始");
    assert!(!shown.is_empty(), "{chinese} has no section 快速开始");
    assert_eq!(shown, typed(&page, "quick start"), "{chinese} and {english} differ");
}
