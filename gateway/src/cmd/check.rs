//! `gatehouse check PATH`: every mistake of a configuration at once. Opens no port, no socket and no journal.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::config;

/// Nothing is wrong; there may be warnings.
pub const CLEAN: u8 = 0;
/// There are mistakes; with `--strict` also warnings.
pub const MISTAKES: u8 = 1;
/// A file or directory could not be read.
pub const UNREADABLE: u8 = 2;

/// Check a configuration and report every mistake at once, with file, line and column; opens nothing (检查配置).
///
/// Exit code: 0 nothing wrong (warnings are allowed), 1 mistakes, 2 unreadable.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// A configuration file, or a directory of *.toml files [default: /etc/gatehouse].
    pub path: Option<PathBuf>,
    /// The same, written as for the other commands.
    #[arg(long, short, value_name = "PATH", conflicts_with = "path")]
    pub config: Option<PathBuf>,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Take warnings for mistakes.
    #[arg(long)]
    pub strict: bool,
}

/// For a person or for a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Checks, reports to `out`, and returns the exit code.
///
/// # Errors
/// The report could not be written.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> io::Result<u8> {
    let path = args.path.as_deref().or(args.config.as_deref()).unwrap_or(Path::new(super::CONFIG_PATH));
    let (report, sum) = match config::load(path) {
        Ok(loaded) => {
            let settings = &loaded.settings;
            let sum = format!(
                "{}: {}, {}, {}, {}, {}: no mistakes",
                path.display(),
                counted(settings.devices.len(), "device", "devices"),
                counted(settings.clients.len(), "client", "clients"),
                counted(settings.buses.len(), "bus", "buses"),
                counted(settings.uplinks.len(), "uplink", "uplinks"),
                counted(loaded.rules.len(), "rule", "rules"),
            );
            (loaded.warnings, Some(sum))
        }
        Err(report) => (report, None),
    };
    match args.format {
        Format::Json => writeln!(out, "{:#}", report.json())?,
        Format::Text => {
            write!(out, "{}", report.text())?;
            if let Some(sum) = sum {
                writeln!(out, "{sum}")?;
            }
        }
    }
    Ok(exit_code(&report, args.strict))
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// The exit code of a report; `strict` takes warnings for mistakes.
fn exit_code(report: &config::Report, strict: bool) -> u8 {
    if report.unreadable() {
        UNREADABLE
    } else if report.mistakes() > 0 || (strict && report.warnings() > 0) {
        MISTAKES
    } else {
        CLEAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, format: Format, strict: bool) -> (u8, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gatehouse.toml");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let args = CheckArgs { path: Some(path), format, strict, ..CheckArgs::default() };
        let code = check(&args, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_exit_code_tells_mistakes_from_warnings() {
        let bare = "[gateway]\nname = \"g\"\ncompound = \"c\"\n";
        let (code, text) = checked(bare, Format::Text, false);
        assert_eq!(code, CLEAN, "{text}");
        assert!(text.contains("warning: there is no uplink") && text.ends_with("no mistakes\n"), "{text}");
        assert_eq!(checked(bare, Format::Text, true).0, MISTAKES);
        assert_eq!(checked("[gateway]\n", Format::Text, false).0, MISTAKES);
    }

    #[test]
    fn what_cannot_be_read_has_a_code_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        for (path, said) in
            [(directory.path().join("gone.toml"), "--config PATH"), (directory.path().into(), "no *.toml")]
        {
            let mut out = Vec::new();
            let args = CheckArgs { config: Some(path), ..CheckArgs::default() };
            let code = check(&args, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(code, UNREADABLE, "{text}");
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn a_program_gets_the_same() {
        let (code, text) = checked("[gatway]\n", Format::Json, false);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(code, MISTAKES);
        assert_eq!(json["ok"], false);
        let first = &json["findings"][0];
        let error =
            json["findings"].as_array().unwrap().iter().find(|found| found["weight"] == "error").unwrap();
        assert_eq!((&error["line"], &error["column"]), (&1.into(), &2.into()), "{first}");
        assert_eq!(error["hint"], "did you mean `gateway`?");
    }
}
