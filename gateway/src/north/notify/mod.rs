//! Telling people without a platform: alarms go to robots of chat groups, or to any server that takes a POST. Owns the
//! line of what waits; must not know devices.
//!
//! What must be survived: a server that fails, hangs, throttles or closes midway (the same again later, with back-off),
//! one that refuses (a person must mend something; one alarm that is refused alone keeps nobody waiting), kill -9 (the
//! cursor in the journal is behind what was taken, never ahead: at least once), a lost disk (what is in memory is told).
//!
//! Limits: [`line::WAITING_MAX`] alarms in memory, the rest stays in the journal.

pub mod config;
mod feed;
mod line;
mod post;
mod select;
mod sign;
mod silence;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::config::WebhookConfig;
use self::feed::Feed;
use self::line::{Batch, Line, Next, Outcome, Waiting};
use self::post::Post;
use self::words::{Frame, Template, Told};
use crate::model::ids::{GatewayName, NotifierName};
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::record::{Draft, Severity, Text, Value};
use crate::model::roll::Roll;
use crate::rt::board::{Board, NotifierStatus};
use crate::rt::clock::SharedClock;
use crate::rt::echo::Echo;
use crate::store::Store;

pub use feed::CURSOR_PREFIX;
pub use post::PostError;
pub use silence::Silence;
pub use words::WordsError;

/// Nobody can be told for long: an event, which becomes an alarm.
const FAILING: &str = "notifier.failing";

/// Longest time between two looks: for a journal that came back, or a file that a person has mended.
const LOOK_AT_LEAST: Duration = Duration::from_mins(1);

/// Largest template file.
const TEMPLATE_BYTES_MAX: u64 = 64 * 1024;

/// What a notifier works with.
#[derive(Debug, Clone)]
pub struct Parts {
    pub name: NotifierName,
    pub gateway: GatewayName,
    pub compound: String,
    pub config: WebhookConfig,
    /// Minutes that the site's clock is ahead of UTC.
    pub utc_offset_min: i32,
    pub store: Store,
    pub clock: SharedClock,
    pub board: Arc<Board>,
    /// The open alarms: one of them may say that this notifier fails.
    pub roll: Arc<Roll>,
    pub silence: Silence,
    pub patience: Patience,
}

/// How long things may take: shorter in tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Of one post from first to last.
    pub timeout: Duration,
    /// Between two tries.
    pub retry_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { timeout: post::TIMEOUT, retry_max: line::RETRY_MAX }
    }
}

/// Why a notifier cannot begin; it is tried again, since a person may mend a file.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error(transparent)]
    Post(#[from] PostError),
    #[error(transparent)]
    Words(#[from] WordsError),
    #[error("the template {path} cannot be read: {source}")]
    Template { path: PathBuf, source: std::io::Error },
    #[error("the template {path} has {bytes} bytes, more than {TEMPLATE_BYTES_MAX}")]
    TemplateSize { path: PathBuf, bytes: u64 },
    #[error("kind \"own\" needs `template_file`")]
    NoTemplate,
}

/// A notifier.
#[derive(Debug)]
pub struct Notifier {
    parts: Parts,
}

/// One run of it.
struct Run<'a> {
    parts: &'a Parts,
    post: Post,
    template: Template,
    feed: Feed,
    line: Line,
    echo: Echo,
}

fn template_of(config: &WebhookConfig) -> Result<Template, NotifyError> {
    let text = match (&config.template_file, config.kind.template()) {
        (Some(path), _) => {
            let unreadable = |source| NotifyError::Template { path: path.clone(), source };
            let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
            if bytes > TEMPLATE_BYTES_MAX {
                return Err(NotifyError::TemplateSize { path: path.clone(), bytes });
            }
            std::fs::read_to_string(path).map_err(unreadable)?
        }
        (None, Some(shipped)) => shipped.to_owned(),
        (None, None) => return Err(NotifyError::NoTemplate),
    };
    Ok(Template::new(&text)?)
}

impl Notifier {
    pub const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Tells until `cancel`. Blocks while it posts: it belongs on a thread of its own.
    ///
    /// # Errors
    /// A file that the configuration names cannot be used.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), NotifyError> {
        let parts = &self.parts;
        let began = Post::new(&parts.config, &parts.clock, parts.patience.timeout)
            .map_err(NotifyError::from)
            .and_then(|post| Ok((post, template_of(&parts.config)?)));
        let (post, template) = match began {
            Ok(began) => began,
            Err(error) => {
                let trouble = error.to_string();
                missed(parts, &trouble, parts.clock.mono_ms()).await;
                show(parts, |status| status.trouble = Some(trouble));
                return Err(error);
            }
        };
        let mut run = Run {
            parts,
            post,
            template,
            feed: Feed::new(&parts.name, &parts.store),
            line: Line::new(parts.config.per_minute, parts.patience.retry_max, fastrand::Rng::new()),
            echo: Echo::default(),
        };
        while !cancel.is_cancelled() {
            run.feed.fill(parts, &mut run.line);
            run.feed.save(&run.line).await;
            if run.line.len() == 0 && run.feed.is_read() {
                well(parts).await;
            }
            run.shown();
            let wait = match run.line.next(parts.clock.mono_ms()) {
                Next::Send(batch) => {
                    run.send(batch).await;
                    continue;
                }
                Next::Wait(ms) => ms.map_or(LOOK_AT_LEAST, Duration::from_millis).min(LOOK_AT_LEAST),
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                () = run.feed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        // What was taken while the end was asked for is not told again.
        run.feed.save(&run.line).await;
        Ok(())
    }
}

impl Run<'_> {
    async fn send(&mut self, batch: Batch) {
        let now = self.parts.clock.now();
        let (batch, message) = self.message(batch, now.wall_ms);
        let outcome = match message {
            Ok(message) => self.post.send(&message, now.wall_ms),
            // The template fails for this alarm, as a server would refuse it.
            Err(error) => Outcome::Refused { reason: error.to_string() },
        };
        let failed = !matches!(outcome, Outcome::Taken);
        let guilty = self.line.settle(batch, outcome, self.parts.clock.mono_ms());
        if let Some((guilty, reason)) = guilty {
            record(self.parts, refused(self.parts, &guilty, &reason)).await;
        }
        if failed {
            self.trouble().await;
        } else {
            self.echo.over();
            well(self.parts).await;
        }
    }

    /// As many alarms as have room, one at least.
    fn message(&self, batch: Batch, wall_ms: i64) -> (Batch, Result<String, WordsError>) {
        let alarms = self.line.alarms(batch);
        let mut count = alarms.len();
        loop {
            let taken = alarms.get(..count).unwrap_or(&alarms);
            let message = self.render(taken, self.line.len().saturating_sub(count), wall_ms);
            let fits = message
                .as_ref()
                .is_ok_and(|text| text.len() as u64 <= u64::from(self.parts.config.bytes_max));
            if fits || count <= 1 {
                return (Batch { from: batch.from, count }, message);
            }
            count /= 2;
        }
    }

    fn render(&self, alarms: &[Told], more: usize, wall_ms: i64) -> Result<String, WordsError> {
        let (timestamp, sign) = self.post.signature(wall_ms);
        let frame = Frame {
            gateway: self.parts.gateway.to_string(),
            compound: self.parts.compound.clone(),
            timestamp,
            sign,
            more,
            words: words::words(self.parts.config.language),
        };
        self.template.render(alarms, &frame)
    }

    async fn trouble(&mut self) {
        let Some(trouble) = self.line.trouble.clone() else { return };
        let now_ms = self.parts.clock.mono_ms();
        if self.echo.tell(&trouble, now_ms).is_some() {
            tracing::warn!(notifier = %self.parts.name, trouble, "alarms could not be told; they wait");
        }
        missed(self.parts, &trouble, self.line.troubled_since_ms.unwrap_or(now_ms)).await;
    }

    fn shown(&self) {
        let (waiting, delivered, refused) = (self.line.len() as u64, self.line.delivered, self.line.refused);
        let trouble = self.line.trouble.clone();
        show(self.parts, |status| {
            *status = NotifierStatus { waiting, delivered, refused, trouble };
        });
    }
}

/// Nobody can be told, since `since_ms` at the latest.
async fn missed(parts: &Parts, trouble: &str, since_ms: u64) {
    if parts.silence.lasts(since_ms, parts.clock.mono_ms()) && !record(parts, silent(parts, trouble)).await {
        parts.silence.unsaid();
    }
}

/// Everybody is told of everything, so that nothing fails any more.
async fn well(parts: &Parts) {
    let stands = || parts.roll.holds(FAILING, Some(("notifier", parts.name.as_str())));
    if parts.silence.is_over(stands) && !record(parts, works(parts)).await {
        parts.silence.unsaid();
    }
}

/// Whether it stands in the journal, or at least in the memory that stands in for it.
async fn record(parts: &Parts, draft: Draft) -> bool {
    match parts.store.append(vec![draft], Durability::Synced).await {
        Ok(_) | Err(JournalError::Volatile) => true,
        Err(error) => {
            tracing::warn!(notifier = %parts.name, %error, "what became of alarms could not be recorded");
            false
        }
    }
}

fn show(parts: &Parts, change: impl FnOnce(&mut NotifierStatus)) {
    parts.board.update(|board| change(board.notifiers.entry(parts.name.clone()).or_default()));
}

fn event(parts: &Parts, named: (&str, Option<Severity>), texts: &[(&str, &str)], text: Text) -> Draft {
    let mut params = BTreeMap::from([("notifier".to_owned(), Value::Text(parts.name.as_str().into()))]);
    params.extend(texts.iter().map(|(key, text)| ((*key).to_owned(), Value::Text((*text).into()))));
    Draft::of_gateway(&parts.clock.now(), None, named, params, text)
}

/// An alarm that nobody there wants, though others are taken.
fn refused(parts: &Parts, guilty: &Waiting, reason: &str) -> Draft {
    let texts = [("alarm", guilty.told.id.as_str()), ("reason", reason)];
    let name = &parts.name;
    let text = Text {
        zh: format!("通知 {name} 的一条报警被拒收"),
        en: format!("notifier {name}: the message about an alarm was refused"),
    };
    event(parts, ("notifier.refused", Some(Severity::Minor)), &texts, text)
}

fn silent(parts: &Parts, reason: &str) -> Draft {
    let name = &parts.name;
    let text = Text {
        zh: format!("报警通知 {name} 无法送达"),
        en: format!("notifier {name} cannot tell people of alarms"),
    };
    event(parts, (FAILING, Some(Severity::Major)), &[("reason", reason)], text)
}

fn works(parts: &Parts) -> Draft {
    let name = &parts.name;
    let text = Text {
        zh: format!("报警通知 {name} 恢复"),
        en: format!("notifier {name} tells people of alarms again"),
    };
    event(parts, ("notifier.restored", None), &[("clears", FAILING)], text)
}
