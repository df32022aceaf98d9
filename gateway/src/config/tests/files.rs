//! Files, directories, profiles, examples, documentation, and bytes from anywhere.

use std::path::Path;

use proptest::prelude::*;

use super::super::*;
use super::{GOOD, mistakes, root};
use crate::model::check::Weight;

#[test]
fn every_example_is_clean() {
    for (name, warnings) in [
        ("quickstart/gatehouse.toml", vec!["client \"z2m\" has no password yet"]),
        ("demo/gatehouse.toml", vec!["client \"", "an emergency input of"]),
        // The example's files and addresses are not here: that is told, and is no mistake.
        (
            "compound",
            vec!["passwords of clients", "cannot see the file", "client \"", "an emergency input of"],
        ),
    ] {
        let path = root().join("config/examples").join(name);
        let loaded = load(&path).unwrap_or_else(|report| panic!("{name}:\n{}", report.text()));
        for finding in loaded.warnings.findings() {
            assert_eq!(finding.weight, Weight::Warning);
            assert!(warnings.iter().any(|known| finding.message.starts_with(known)), "{name}: {finding:?}");
        }
        for device in loaded.settings.devices.values() {
            assert!(loaded.profiles.contains_key(&device.profile));
        }
    }
    let directories = std::fs::read_dir(root().join("config/examples")).unwrap();
    let directories = directories.filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(directories.count(), 3, "an example that no test loads");
}

#[test]
fn a_directory_is_read_as_one() {
    let loaded = load(&root().join("config/examples/compound")).unwrap();
    assert_eq!(loaded.settings.uplinks.len(), 3);
    assert_eq!(loaded.settings.devices.len(), 12);
    assert!(loaded.profiles.contains_key("pump-room"));
    assert!(loaded.base_dir.ends_with("config/examples/compound") && loaded.base_dir.is_absolute());
}

/// Writes files into a new directory and loads it.
pub(super) fn load_files(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Loaded, Report>) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let loaded = load(directory.path());
    (directory, loaded)
}

#[test]
fn the_same_table_in_two_files_is_told_with_both() {
    let again = "[gateway]\nname = \"b\"\n[devices.sos-1]\nprofile = \"z2m-lock\"\n[devices.sos-2]\n\
                 profile = \"z2m-lock\"\nclient = \"z2m\"\naddress = \"b\"\n";
    let (_directory, loaded) = load_files(&[("a.toml", GOOD), ("b.toml", again), (".hidden.toml", "=")]);
    let report = loaded.unwrap_err();
    assert_eq!(
        mistakes(&report),
        ["1:2 [gateway] stands in two files", "3:10 [devices.sos-1] stands in two files"]
    );
    let place = |place: &Option<Position>| {
        let place = place.as_ref().unwrap();
        (Path::new(&place.file).file_name().unwrap().to_str().unwrap().to_owned(), place.line)
    };
    let last = report.findings().last().unwrap();
    assert_eq!(place(&last.place), ("b.toml".to_owned(), 3));
    assert_eq!(place(&last.also[0].place), ("a.toml".to_owned(), 11));
}

#[test]
fn sizes_are_bounded() {
    let most = usize::try_from(crate::model::limits::CONFIG_FILE_BYTES_MAX).unwrap();
    let comment = |bytes: usize| format!("{GOOD}#{}", "x".repeat(bytes - GOOD.len() - 1));
    let (_directory, loaded) = load_files(&[("a.toml", &comment(most))]);
    assert!(loaded.is_ok());
    let (_directory, loaded) = load_files(&[("a.toml", &comment(most + 1))]);
    assert!(loaded.unwrap_err().unreadable());

    let directory = tempfile::tempdir().unwrap();
    for number in 0..=crate::model::limits::CONFIG_FILES_MAX {
        std::fs::write(directory.path().join(format!("{number}.toml")), "").unwrap();
    }
    let report = load(directory.path()).unwrap_err();
    assert!(report.unreadable() && report.text().contains("more than 256"), "{}", report.text());
}

#[test]
fn profiles_are_checked_like_the_rest() {
    let profile = "kind = \"x\"\ntitle = { zh = \"甲\", en = \"a\" }\n[mqtt]\ntopik = \"{base}/x\"\n";
    let main =
        GOOD.replace("compound =", "profiles_dir = \"models\"\ncompound =").replace("z2m-button-sos", "mine");
    let (_directory, loaded) = load_files(&[("a.toml", &main), ("models/mine.toml", profile)]);
    let report = loaded.unwrap_err();
    assert_eq!(mistakes(&report), ["4:1 unknown key `topik`"]);
    let told = report.findings().iter().find(|finding| finding.weight == Weight::Error).unwrap();
    assert!(told.place.as_ref().unwrap().file.ends_with("models/mine.toml"));

    let (_directory, loaded) = load_files(&[("a.toml", &main)]);
    let found = mistakes(&loaded.unwrap_err());
    assert!(found[0].starts_with("3:16 cannot read directory"), "{found:?}");
}

#[test]
fn relative_paths_start_at_the_file() {
    let text = r#"[gateway]
name = "g"
compound = "c"
data_dir = "REL"
socket = "REL"
secrets_dir = "REL"
[buses.b.broker.tls]
listen = "127.0.0.1:8883"
cert_file = "REL"
key_file = "REL"
client_ca_file = "REL"
[uplinks.u.mqtt]
url = "mqtts://127.0.0.1"
username = "x"
password_file = "REL"
ca_file = "REL"
cert_file = "REL"
key_file = "REL"
[uplinks.u.mqtt.filter]
pseudonym_key_file = "REL"
[notifiers.n.webhook]
kind = "dingtalk"
url_file = "REL"
secret_file = "REL"
ca_file = "REL"
template_file = "REL"
"#;
    let (directory, loaded) = load_files(&[("a.toml", text)]);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.text()));
    let all = format!("{:?}", loaded.settings);
    assert!(!all.contains("\"REL"), "{all}");
    assert_eq!(loaded.settings.gateway.data_dir, directory.path().join("REL"));
    // Every key of the types that names a file or a directory stands in the text above.
    let schema = schemars::schema_for!(Settings).to_value().to_string();
    for key in schema.split('"').filter(|key| key.ends_with("_file") || key.ends_with("_dir")) {
        assert!(
            text.contains(&format!("{key} =")) || ["profiles_dir", "rules_dir"].contains(&key),
            "{key} is not resolved by any test"
        );
    }
}

#[test]
fn warnings_do_not_stop() {
    let open = GOOD.replace("127.0.0.1:1883", "0.0.0.0:1883").replace("127.0.0.1:1884", "platform.example");
    let report = check_bytes("gatehouse.toml", open.as_bytes());
    let found: Vec<&str> = report.findings().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(
        found,
        [
            "passwords of clients cross the network in clear at 0.0.0.0:1883",
            "what goes to \"platform.example\" can be read on the way: no TLS",
        ]
    );
    assert!(report.clean());
}

#[test]
fn the_documentation_is_fresh() {
    let path = root().join("docs/configuration.md");
    let fresh = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == fresh, "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test -p gatehouse config");
    let example = fresh.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(check_bytes("docs", example.as_bytes()).findings().is_empty());
}

/// Pieces that make configurations go wrong in many ways.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "[gateway]",
        "[",
        "]",
        "[[",
        "]]",
        "name",
        "=",
        " = ",
        "\"",
        "\"\"\"",
        "'",
        "'''",
        "{",
        "}",
        ",",
        "\n",
        "\r\n",
        ".",
        "buses",
        "lan",
        "broker",
        "devices",
        "uplinks.a.mqtt",
        "1",
        "-1.5e9",
        "inf",
        "1979-05-27",
        "true",
        "名",
        "“",
        "\u{0}",
        "\u{feff}",
        "[clients.z2m]\n",
        "[devices.a]\nprofile = \"x\"\n",
        "password = \"x\"\n",
        "#",
        "\t",
        "0x",
        "99999999999999999999999999999999999999999999999999",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let report = check_bytes("fuzz", &bytes);
        prop_assert!(!report.text().is_empty());
    }

    #[test]
    fn arbitrary_pieces_never_panic(text in pieces()) {
        let report = check_bytes("fuzz", text.as_bytes());
        prop_assert!(report.json().is_object() && !report.text().is_empty());
    }

    /// One byte of a good configuration changed, or a stretch of it cut out.
    #[test]
    fn a_damaged_file_never_panics(at in 0..GOOD.len(), with in any::<u8>(), cut in 0..40_usize) {
        let mut bytes = GOOD.as_bytes().to_owned();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, [with]);
        let report = check_bytes("fuzz", &bytes);
        for finding in report.findings() {
            prop_assert!(finding.place.is_some());
        }
    }
}
