//! Files and directories that the configuration names: relative ones start at the configuration file, and secrets
//! must not be open to everybody. Looks at files' metadata; opens none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{BusConfig, NotifierTable, Settings, UplinkTable};
use crate::model::check::Problem;
use crate::rt::mqtt::Peer;

/// Bits of a file's mode that let others than owner and group in.
const OTHERS: u32 = 0o007;

/// Makes every path of the configuration absolute.
pub(super) fn resolve(settings: &mut Settings, base: &Path) {
    let join = |path: &mut PathBuf| *path = base.join(&path);
    let gateway = &mut settings.gateway;
    join(&mut gateway.data_dir);
    join(&mut gateway.secrets_dir);
    gateway.socket.iter_mut().for_each(join);
    gateway.profiles_dir.iter_mut().for_each(join);
    gateway.rules_dir.iter_mut().for_each(join);
    for bus in settings.buses.values_mut() {
        match bus {
            BusConfig::Broker(broker) => {
                let tls = broker.tls.iter_mut();
                tls.flat_map(|tls| [&mut tls.cert_file, &mut tls.key_file, &mut tls.client_ca_file])
                    .for_each(join);
            }
            BusConfig::Mqtt(mqtt) => {
                let files =
                    [&mut mqtt.password_file, &mut mqtt.ca_file, &mut mqtt.cert_file, &mut mqtt.key_file];
                files.into_iter().flatten().for_each(join);
            }
            BusConfig::Modbus(_) => {}
        }
    }
    for UplinkTable::Mqtt(uplink) in settings.uplinks.values_mut() {
        let files = [
            &mut uplink.password_file,
            &mut uplink.ca_file,
            &mut uplink.cert_file,
            &mut uplink.key_file,
            &mut uplink.filter.pseudonym_key_file,
        ];
        files.into_iter().flatten().for_each(join);
    }
    for NotifierTable::Webhook(webhook) in settings.notifiers.values_mut() {
        let files = [
            &mut webhook.url_file,
            &mut webhook.secret_file,
            &mut webhook.ca_file,
            &mut webhook.template_file,
        ];
        files.into_iter().flatten().for_each(join);
    }
}

/// Files that are missing, cannot be read, or let everybody read a secret: warnings, since `check` may run on another
/// machine or as another user, and since a box whose uplink lacks a file must still guard its compound.
pub(super) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut out = Vec::new();
    for (name, bus) in &settings.buses {
        match bus {
            BusConfig::Broker(broker) => {
                let files = broker.tls.iter().flat_map(|tls| {
                    [
                        ("cert_file", &tls.cert_file),
                        ("key_file", &tls.key_file),
                        ("client_ca_file", &tls.client_ca_file),
                    ]
                });
                out.extend(files.filter_map(|(key, file)| {
                    file_problem(&["buses", name.as_str(), "broker", "tls", key], file)
                }));
            }
            BusConfig::Mqtt(mqtt) => {
                out.extend(peer_problems(&["buses", name.as_str(), "mqtt"], &mqtt.peer()));
            }
            BusConfig::Modbus(_) => {}
        }
    }
    for (name, _) in settings.clients.iter().filter(|(_, client)| !client.certificate) {
        let path = ["clients", name.as_str()];
        let file = settings.gateway.secrets_dir.join(name.as_str());
        out.extend(secret_problem(&path, &file, name.as_str()));
    }
    for (name, UplinkTable::Mqtt(uplink)) in &settings.uplinks {
        out.extend(peer_problems(&["uplinks", name.as_str(), "mqtt"], &uplink.peer()));
        let path = ["uplinks", name.as_str(), "mqtt", "filter", "pseudonym_key_file"];
        out.extend(uplink.filter.pseudonym_key_file.as_ref().and_then(|file| file_problem(&path, file)));
    }
    for (name, NotifierTable::Webhook(webhook)) in &settings.notifiers {
        let files = [
            ("url_file", &webhook.url_file),
            ("secret_file", &webhook.secret_file),
            ("ca_file", &webhook.ca_file),
            ("template_file", &webhook.template_file),
        ];
        out.extend(files.iter().filter_map(|(key, file)| {
            file_problem(&["notifiers", name.as_str(), "webhook", key], file.as_ref()?)
        }));
    }
    out
}

/// The files by which we log in to a broker that others run.
fn peer_problems(table: &[&str], peer: &Peer<'_>) -> Vec<Problem> {
    let files = [
        ("password_file", peer.password_file),
        ("ca_file", peer.ca_file),
        ("cert_file", peer.cert_file),
        ("key_file", peer.key_file),
    ];
    files.iter().filter_map(|(key, file)| file_problem(&[table, &[*key]].concat(), (*file)?)).collect()
}

/// The password of a client at the broker lies in `secrets_dir`, in a file of the client's name.
fn secret_problem(path: &[&str], file: &Path, client: &str) -> Option<Problem> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let problem = Problem::warning(path, format!("client \"{client}\" has no password yet"));
            Some(problem.hint(format!("gatehouse client add {client}")))
        }
        Ok(metadata) if metadata.permissions().mode() & OTHERS != 0 => {
            let shown = file.display();
            let problem =
                Problem::warning(path, format!("everybody on this machine can reach the secret in {shown}"));
            Some(problem.hint(format!("chmod 600 {shown}")))
        }
        // Another user's secrets may well be closed to who runs the check.
        _ => None,
    }
}

fn file_problem(path: &[&str], file: &Path) -> Option<Problem> {
    let shown = file.display();
    let metadata = match std::fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) => return Some(Problem::warning(path, format!("cannot see the file {shown}: {error}"))),
    };
    if !metadata.is_file() {
        return Some(Problem::warning(path, format!("{shown} is not a file")));
    }
    let secret = path.last().is_some_and(|key| {
        key.ends_with("key_file") || ["password_file", "url_file", "secret_file"].contains(key)
    });
    if secret && metadata.permissions().mode() & OTHERS != 0 {
        let problem =
            Problem::warning(path, format!("everybody on this machine can reach the secret in {shown}"));
        return Some(problem.hint(format!("chmod 640 {shown}")));
    }
    let denied = access(file, Access::READ_OK).err()?;
    let problem = Problem::warning(path, format!("cannot read the file {shown}: {denied}"));
    Some(problem.hint("the daemon's user must be able to read it"))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;
    use crate::model::check::Weight;

    #[test]
    fn a_secret_open_to_all_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pw");
        let path = ["uplinks", "p", "mqtt", "password_file"];
        let client = ["clients", "z2m"];
        assert!(secret_problem(&client, &file, "z2m").unwrap().hint.unwrap().contains("client add z2m"));
        let missing = file_problem(&path, &file).unwrap();
        assert_eq!(missing.weight, Weight::Warning);
        write(&file, "x").unwrap();
        set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(file_problem(&path, &file).unwrap().message.contains("everybody"));
        assert!(secret_problem(&client, &file, "z2m").unwrap().message.contains("everybody"));
        set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(file_problem(&path, &file), None);
        assert_eq!(secret_problem(&client, &file, "z2m"), None);
        // A certificate is public.
        set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(file_problem(&["uplinks", "p", "mqtt", "cert_file"], &file), None);
        assert!(file_problem(&path, directory.path()).unwrap().message.contains("not a file"));
    }
}
