//! `gatehouse client add NAME` and `gatehouse client passwd NAME`: makes the secret of an account at the embedded
//! broker. Where the secrets lie is the configuration's to say, and the caller's to read.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::config::Settings;
use crate::model::ids::{ClientName, NameError};
use crate::south::broker::secrets::{Secret, write_secret};

/// Accounts at the embedded broker.
#[derive(Debug, Args)]
pub struct ClientArgs {
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// What to do with an account.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Make the secret of a new client and show it once.
    Add(SecretArgs),
    /// Give a client another secret; the running daemon takes it at the next login.
    Passwd(SecretArgs),
}

/// Whose secret, and which.
#[derive(Debug, Args)]
pub struct SecretArgs {
    /// The client: NAME of its table [clients.NAME].
    #[arg(value_parser = client_name)]
    pub name: ClientName,
    /// Read a password from standard input, one line, instead of making a secret. For devices whose password cannot
    /// be changed; a made secret is better and costs the gateway less.
    #[arg(long)]
    pub password_stdin: bool,
}

fn client_name(text: &str) -> Result<ClientName, NameError> {
    ClientName::new(text)
}

/// Where a password comes from, where a made secret goes, and where a person is told the rest.
#[expect(missing_debug_implementations, reason = "streams have nothing to show")]
pub struct Streams<'a> {
    pub input: &'a mut dyn BufRead,
    pub out: &'a mut dyn Write,
    pub notes: &'a mut dyn Write,
}

impl ClientArgs {
    /// Writes the secret's digest into the configured directory. A made secret goes to `streams.out`, alone on its line, so that a
    /// script can take it; what a person should know goes to `streams.notes`.
    ///
    /// # Errors
    /// The password is too short, the file exists already (`add`) or not (`passwd`), or cannot be written; or the client
    /// logs in with a certificate and has no secret.
    pub fn run(&self, settings: &Settings, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let (ClientCommand::Add(args) | ClientCommand::Passwd(args)) = &self.command;
        let name = &args.name;
        let configured = settings.clients.get(name);
        if configured.is_some_and(|client| client.certificate) {
            bail!("client {name} logs in with a certificate: it has no secret");
        }
        let path = settings.gateway.secrets_dir.join(name.as_str());
        match &self.command {
            ClientCommand::Add(_) => add(args, &path, configured.is_some(), streams),
            ClientCommand::Passwd(_) => passwd(args, &path, streams),
        }
    }
}

fn add(args: &SecretArgs, path: &Path, configured: bool, streams: &mut Streams<'_>) -> anyhow::Result<()> {
    let (shown, secret) = make(args, streams.input)?;
    write_secret(path, &secret, false)?;
    tell(streams, args, shown.as_deref())?;
    if configured {
        return Ok(());
    }
    let name = &args.name;
    writeln!(
        streams.notes,
        "The configuration does not have it yet; add, and restart the gateway:\n\n  [clients.{name}]\n  \
         # base = \"{name}\"       # it publishes under this topic; for Zigbee2MQTT \"zigbee2mqtt\"\n  \
         # client_id = \"{name}\"  # the MQTT client id that it must use\n  \
         # subscribe = []        # what it may subscribe to; for Zigbee2MQTT [\"zigbee2mqtt/#\"]"
    )?;
    Ok(())
}

fn passwd(args: &SecretArgs, path: &Path, streams: &mut Streams<'_>) -> anyhow::Result<()> {
    // A typing error would otherwise make a secret that no client has.
    if !path.exists() {
        bail!("there is no client {}; make it with `gatehouse client add {}`", args.name, args.name);
    }
    let (shown, secret) = make(args, streams.input)?;
    write_secret(path, &secret, true)?;
    tell(streams, args, shown.as_deref())
}

/// The secret, and its text if it was made here.
fn make(args: &SecretArgs, input: &mut dyn BufRead) -> anyhow::Result<(Option<String>, Secret)> {
    if !args.password_stdin {
        let (text, secret) = Secret::generate()?;
        return Ok((Some(text), secret));
    }
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the password from standard input")?;
    Ok((None, Secret::of_password(line.trim_end_matches(['\r', '\n']))?))
}

fn tell(streams: &mut Streams<'_>, args: &SecretArgs, shown: Option<&str>) -> anyhow::Result<()> {
    match shown {
        Some(text) => {
            writeln!(
                streams.notes,
                "the password of user {}, shown once and kept only as a digest:",
                args.name
            )?;
            writeln!(streams.out, "{text}")?;
        }
        None => writeln!(streams.notes, "user {} has the password that was given", args.name)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        client: ClientArgs,
    }

    fn run(directory: &Path, words: &[&str], input: &str) -> anyhow::Result<String> {
        let line = Line::try_parse_from([&["client"], words].concat())?;
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut streams = Streams { input: &mut input.as_bytes(), out: &mut out, notes: &mut notes };
        let text = format!(
            "clients = {{ panel = {{}}, door = {{ certificate = true }} }}\n\
             [gateway]\nname = 'g'\ncompound = 'c'\nsecrets_dir = '{}'",
            directory.display()
        );
        line.client.run(&toml::from_str(&text).unwrap(), &mut streams)?;
        Ok(String::from_utf8([out, notes].concat()).unwrap())
    }

    fn secret(directory: &Path) -> Secret {
        Secret::parse(&std::fs::read_to_string(directory.join("z2m")).unwrap()).unwrap()
    }

    fn shown(said: &str) -> &str {
        said.lines().next().unwrap()
    }

    #[test]
    fn a_secret_is_made_once_and_exchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(run(path, &["passwd", "z2m"], "").unwrap_err().to_string().contains("client add z2m"));
        let said = run(path, &["add", "z2m"], "").unwrap();
        assert!(secret(path).verify(shown(&said).as_bytes()));
        assert!(said.contains("[clients.z2m]"));
        assert!(
            !run(path, &["add", "panel"], "").unwrap().contains("[clients.panel]"),
            "it is there already"
        );
        let refused = run(path, &["add", "door"], "").unwrap_err().to_string();
        assert!(refused.contains("certificate") && !path.join("door").exists(), "{refused}");
        assert!(run(path, &["add", "z2m"], "").unwrap_err().to_string().contains("passwd"));
        let again = run(path, &["passwd", "z2m"], "").unwrap();
        assert_ne!(shown(&again), shown(&said));
        assert!(secret(path).verify(shown(&again).as_bytes()));
    }

    #[test]
    fn a_chosen_password_is_hashed_and_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let said = run(path, &["add", "z2m", "--password-stdin"], "my long password\n").unwrap();
        assert!(!said.contains("my long"));
        assert!(matches!(secret(path), Secret::Argon2(_)) && secret(path).verify(b"my long password"));
        assert!(run(path, &["passwd", "z2m", "--password-stdin"], "short\n").is_err());
        assert!(run(path, &["add", "../evil"], "").is_err());
    }
}
