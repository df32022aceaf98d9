//! Accounts, and who may log in as which. A client id belongs to one account: it is checked before the broker's
//! session takeover, so that nobody evicts a rightful client by taking its id.
//!
//! The check of a generated secret costs a hash. A chosen password costs argon2 (21 ms, 19 MiB): one at a time, off
//! the async threads, and only once per password and run, since a right one is remembered as a keyed digest. So a
//! flood of guesses holds up only a client with a chosen password that has not logged in since the start.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::config::ClientConfig;
use super::secrets::{Secret, SecretFile, equal};
use crate::model::ids::ClientName;
use crate::model::refusal::Refusal;
use crate::south::device::Speaker;
use crate::south::line::Source;
use crate::south::topics::{check_topic, covers, is_filter, lies_under};

/// `[clients.NAME]`, resolved.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: ClientName,
    speaker: Speaker,
    pub(super) client_id: String,
    pub(super) base: String,
    subscribe: Vec<String>,
    certificate: bool,
    secret: SecretFile,
}

impl Account {
    fn new(name: &ClientName, config: &ClientConfig, secrets_dir: &Path) -> Self {
        Self {
            name: name.clone(),
            speaker: Speaker::Client(name.clone()),
            client_id: config.client_id(name).to_owned(),
            base: config.base(name).to_owned(),
            subscribe: config.subscribe.clone(),
            certificate: config.certificate,
            secret: SecretFile::new(secrets_dir.join(name.as_str())),
        }
    }

    /// Whether it may publish there.
    pub(super) fn owns(&self, topic: &str) -> bool {
        lies_under(&self.base, topic)
    }

    /// As who it publishes.
    pub(super) fn source(&self) -> Source<'_> {
        Source { name: self.name.as_str(), speaker: &self.speaker, base: Some(&self.base) }
    }

    /// Whether it may subscribe so.
    pub(super) fn may_subscribe(&self, filter: &str) -> bool {
        is_filter(filter) && self.subscribe.iter().any(|allowed| covers(allowed, filter))
    }
}

/// Who wants to log in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) client_id: &'a str,
    pub(super) password: Option<&'a [u8]>,
    /// Common name of the certificate; none on the plain port.
    pub(super) certificate: Option<&'a str>,
    pub(super) will_topic: Option<&'a str>,
}

/// All accounts of one broker.
#[derive(Debug)]
pub(super) struct Accounts {
    by_name: HashMap<String, Arc<Account>>,
    by_client_id: HashMap<String, Arc<Account>>,
    argon2: Arc<Semaphore>,
    /// Digests of the passwords that argon2 found right, keyed with this run's random number and the PHC string.
    known: Mutex<HashMap<ClientName, [u8; 32]>>,
    key: [u8; 16],
}

impl Accounts {
    pub(super) fn new<'a>(
        clients: impl Iterator<Item = (&'a ClientName, &'a ClientConfig)>,
        secrets_dir: &Path,
    ) -> Result<Self, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        let accounts: Vec<_> =
            clients.map(|(name, config)| Arc::new(Account::new(name, config, secrets_dir))).collect();
        let by = |key: fn(&Account) -> &str| {
            accounts.iter().map(|account| (key(account).to_owned(), Arc::clone(account))).collect()
        };
        Ok(Self {
            by_name: by(|account| account.name.as_str()),
            by_client_id: by(|account| &account.client_id),
            argon2: Arc::new(Semaphore::new(1)),
            known: Mutex::new(HashMap::new()),
            key,
        })
    }

    /// The account that logged in with this client id.
    pub(super) fn of_client_id(&self, client_id: &str) -> Option<&Arc<Account>> {
        self.by_client_id.get(client_id)
    }

    /// Judges a login: name, client id, secret or certificate, topic of the will; in this order, cheapest first.
    ///
    /// # Errors
    /// The reason, with the account's name if the login named one that exists.
    pub(super) async fn login(
        &self,
        login: Login<'_>,
    ) -> Result<Arc<Account>, (Refusal, Option<ClientName>)> {
        let user = login.certificate.or(login.user).unwrap_or_default();
        let account = self.by_name.get(user).ok_or((Refusal::UnknownClient, None))?;
        let refuse = |reason| (reason, Some(account.name.clone()));
        // The two doors are not exchangeable: a certificate's account has no password to guess.
        if account.certificate != login.certificate.is_some() {
            return Err(refuse(Refusal::WrongPassword));
        }
        if login.client_id != account.client_id {
            return Err(refuse(Refusal::ClientIdNotOwned));
        }
        if !account.certificate && !self.password_fits(account, login.password.unwrap_or_default()).await {
            return Err(refuse(Refusal::WrongPassword));
        }
        if let Some(topic) = login.will_topic
            && (check_topic(topic).is_err() || !account.owns(topic))
        {
            return Err(refuse(Refusal::WillTopic));
        }
        Ok(Arc::clone(account))
    }

    async fn password_fits(&self, account: &Account, password: &[u8]) -> bool {
        let secret = match account.secret.load() {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(client = %account.name, %error, "a client cannot log in");
                return false;
            }
        };
        let Secret::Argon2(phc) = secret.as_ref() else { return secret.verify(password) };
        let digest = self.digest(phc, password);
        if self.known().get(&account.name).is_some_and(|known| equal(known, &digest)) {
            return true;
        }
        // The permit moves into the thread: a login that is given up does not let a second hash start beside it.
        let Ok(permit) = Arc::clone(&self.argon2).acquire_owned().await else { return false };
        let password = password.to_vec();
        let hashed = Arc::clone(&secret);
        let verified = tokio::task::spawn_blocking(move || {
            let fits = hashed.verify(&password);
            drop(permit);
            fits
        });
        let fits = verified.await.unwrap_or(false);
        if fits {
            self.known().insert(account.name.clone(), digest);
        }
        fits
    }

    fn digest(&self, phc: &str, password: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(phc.as_bytes());
        hash.update([0]);
        hash.update(password);
        hash.finalize().into()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<ClientName, [u8; 32]>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
