//! A speaker's lane: one thing is said at a time, the gravest first; a graver one cuts a lighter one short; what is not said
//! in its time is not said at all; what fails is tried again with growing pauses until then.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::lane::{Lane, Order, Outcome};
use super::{Job, LANE_JOBS_MAX};
use crate::model::action::{Deed, Progress, Until};
use crate::model::limits::SPEECH_MS_MAX;
use crate::model::record::Severity;
use crate::rt::backoff::Backoff;
use crate::south::profile::acts::{Filling, SpeakerProfile};

/// Pauses between attempts.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(8);
/// As long as [`Deed::lasts_ms`] says at most.
const BUSY_MAX: Duration = Duration::from_millis(SPEECH_MS_MAX);
/// A repeat that is an order of its own may be begun so long after its turn, also when the action's time is over.
const REPEAT_WITHIN: Duration = Duration::from_secs(10);

/// Jobs that wait, in the order in which they came.
#[derive(Debug, Default)]
struct Queue(Vec<Job>);

impl Queue {
    /// The gravest; of equals the first.
    fn next(&mut self) -> Option<Job> {
        let gravest = self.0.iter().map(|job| job.action.severity).max()?;
        let at = self.0.iter().position(|job| job.action.severity == gravest)?;
        Some(self.0.remove(at))
    }

    /// Puts one in; the least grave falls out when there are too many.
    fn put(&mut self, job: Job) -> Option<Job> {
        self.0.push(job);
        if self.0.len() <= LANE_JOBS_MAX {
            return None;
        }
        let least = self.0.iter().map(|job| job.action.severity).min()?;
        let at = self.0.iter().rposition(|job| job.action.severity == least)?;
        Some(self.0.remove(at))
    }
}

/// What became of a turn.
enum Turn {
    /// The speaker is busy with it for so long yet, as far as anybody knows, and so long in all.
    Said(Duration, Duration, Option<Severity>),
    Nothing,
}

/// What cut a turn short.
enum Cut {
    /// A graver job is in the queue.
    Graver,
    Hush(Box<Job>),
    /// Nobody asks any more.
    Closed,
}

struct Speaking {
    lane: Lane,
    jobs_rx: mpsc::Receiver<Job>,
    queue: Queue,
}

/// Runs until nobody asks any more. `waiting`: what the lane's forerunner was at when it died; words are said again.
pub(super) async fn run(lane: Lane, jobs_rx: mpsc::Receiver<Job>, waiting: VecDeque<Job>) {
    let mut speaking = Speaking { lane, jobs_rx, queue: Queue::default() };
    for job in waiting {
        speaking.take(job).await;
    }
    while speaking.turn().await {}
}

impl Speaking {
    /// Takes one job up, or waits for one. No more come: no.
    async fn turn(&mut self) -> bool {
        let Some(job) = self.queue.next() else {
            return match self.jobs_rx.recv().await {
                Some(job) => self.take(job).await,
                None => false,
            };
        };
        let severity = job.action.severity;
        // Dropping the attempt is safe: what it has sent, it has sent.
        let cut = tokio::select! {
            turn = say(&self.lane, &job) => Ok(turn),
            cut = more(&mut self.jobs_rx, &mut self.queue, severity, &self.lane) => Err(cut),
        };
        match cut {
            Ok((end, detail, turn)) => {
                self.lane.finish(job, end, detail).await;
                match turn {
                    Turn::Said(busy, _, severity) => self.busy(busy, severity).await,
                    Turn::Nothing => true,
                }
            }
            Err(Cut::Graver) => {
                self.hush().await;
                self.lane.finish(job, (Progress::Preempted, 1), "a graver alarm took the speaker").await;
                true
            }
            Err(Cut::Hush(order)) => {
                self.lane.finish(job, (Progress::Preempted, 1), "it was told to stop").await;
                self.take(*order).await
            }
            Err(Cut::Closed) => false,
        }
    }

    /// A job that came while nothing was said: words wait in the queue, an order to be silent is carried out.
    async fn take(&mut self, job: Job) -> bool {
        if job.action.deed != Deed::Hush {
            if let Some(dropped) = self.queue.put(job) {
                self.lane.finish(dropped, (Progress::Failed, 1), TOO_MANY).await;
            }
            return true;
        }
        while let Some(waiting) = self.queue.next() {
            self.lane.finish(waiting, (Progress::Preempted, 1), "it was told to stop").await;
        }
        let (progress, detail) = self.hush().await.end();
        self.lane.finish(job, (progress, 1), detail).await;
        true
    }

    /// The speaker is talking; a graver one need not wait for its end.
    async fn busy(&mut self, busy: Duration, severity: Option<Severity>) -> bool {
        let until = Instant::now() + busy.min(BUSY_MAX);
        tokio::select! {
            () = sleep_until(until) => true,
            cut = more(&mut self.jobs_rx, &mut self.queue, severity, &self.lane) => match cut {
                Cut::Graver => {
                    self.hush().await;
                    true
                }
                Cut::Hush(order) => self.take(*order).await,
                Cut::Closed => false,
            },
        }
    }

    /// Ends what the speaker says, if it can be told to.
    async fn hush(&self) -> Outcome {
        let speaker = self.lane.actor.profile.speaker.as_ref();
        let Some((speaker, stop)) = speaker.and_then(|speaker| Some((speaker, speaker.stop.as_ref()?)))
        else {
            return Outcome::Failed("the speaker cannot be told to stop".to_owned());
        };
        let topic = stop.topic.as_deref().unwrap_or(&speaker.topic);
        let number = self.lane.shared.number();
        let filling = Filling {
            id: format!("stop-{number}"),
            number,
            now_s: self.lane.shared.clock.now().unix_s(),
            address: self.lane.actor.address.clone(),
            ..Filling::default()
        };
        self.lane
            .order(Order { topic, payload: &stop.payload, ack: None, filling, lasts: Duration::ZERO })
            .await
    }
}

const TOO_MANY: &str = "too much waits for the speaker already";

/// Takes up what comes meanwhile; returns when it cuts the present turn short.
async fn more(
    jobs_rx: &mut mpsc::Receiver<Job>,
    queue: &mut Queue,
    present: Option<Severity>,
    lane: &Lane,
) -> Cut {
    loop {
        let Some(job) = jobs_rx.recv().await else { return Cut::Closed };
        if job.action.deed == Deed::Hush {
            return Cut::Hush(Box::new(job));
        }
        let graver = job.action.severity > present;
        if let Some(dropped) = queue.put(job) {
            lane.finish(dropped, (Progress::Failed, 1), TOO_MANY).await;
        }
        if graver {
            return Cut::Graver;
        }
    }
}

/// How words ended: after which attempt, in words, and what the speaker does then.
type Said = ((Progress, u32), String, Turn);

/// Says one thing. Where an acknowledgement ends it, each repeat is an order of its own.
async fn say(lane: &Lane, job: &Job) -> Said {
    let mut deed = job.action.deed.clone();
    let Deed::Speak { repeat, until: Some(Until::Acknowledged), .. } = &mut deed else {
        return say_once(lane, job, &deed, (0, job.until)).await;
    };
    let times = std::mem::replace(repeat, 1);
    let enough = Instant::now() + BUSY_MAX;
    let mut said = say_once(lane, job, &deed, (0, job.until)).await;
    for _ in 1..times {
        let ((_, attempts), _, Turn::Said(busy, lasts, _)) = &mut said else { break };
        sleep(std::mem::take(busy)).await;
        if lane.shared.unseen(&job.action) != Some(true) || Instant::now() + *lasts >= enough {
            break;
        }
        let until = job.until.max(Instant::now() + REPEAT_WITHIN);
        said = say_once(lane, job, &deed, (*attempts, until)).await;
    }
    said
}

/// Says words by one order, with all attempts at it. So many were made before.
async fn say_once(lane: &Lane, job: &Job, deed: &Deed, (before, until): (u32, Instant)) -> Said {
    let nothing = |progress, attempt, detail: String| ((progress, attempt), detail, Turn::Nothing);
    let Some(speaker) = &lane.actor.profile.speaker else {
        return nothing(Progress::Failed, 1, "the device is no speaker".to_owned());
    };
    let (spoken, lasts) = match words(speaker, deed) {
        Ok(spoken) => spoken,
        Err(why) => return nothing(Progress::Failed, 1, why),
    };
    let stops = matches!(deed, Deed::Speak { until: Some(Until::Acknowledged), .. });
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new());
    let mut attempt = before;
    let mut last = String::new();
    loop {
        if Instant::now() >= until {
            return match attempt {
                0 => nothing(Progress::Expired, 1, "its time passed before it could be said".to_owned()),
                _ => nothing(Progress::Failed, attempt, format!("given up: {last}")),
            };
        }
        if stops && lane.shared.unseen(&job.action) == Some(false) {
            let why = "somebody has acknowledged the alarm".to_owned();
            return nothing(Progress::Preempted, attempt.max(1), why);
        }
        attempt = attempt.saturating_add(1);
        let filling = Filling {
            text: spoken.text.clone(),
            clip: spoken.clip.clone(),
            volume: spoken.volume,
            repeat: spoken.repeat,
            ..lane.shared.filling(&lane.actor, &job.action, attempt)
        };
        let ack = speaker.ack.as_ref();
        let played = ack.is_some_and(|ack| ack.means.happened());
        let order = Order {
            topic: &speaker.topic,
            payload: &speaker.payload,
            ack,
            filling,
            lasts: if played { lasts } else { Duration::ZERO },
        };
        let why = match lane.order(order).await {
            Outcome::Done { happened, detail } => {
                let progress = if happened { Progress::Confirmed } else { Progress::Accepted };
                let busy = if happened { Duration::ZERO } else { lasts };
                return ((progress, attempt), detail, Turn::Said(busy, lasts, job.action.severity));
            }
            Outcome::Failed(why) => why,
            Outcome::Unanswered => "no answer came".to_owned(),
        };
        let next = Instant::now() + backoff.next_delay();
        if next >= until {
            return nothing(Progress::Failed, attempt, format!("given up: {why}"));
        }
        lane.retrying(&job.action, attempt, &why).await;
        last = why;
        sleep_until(next).await;
    }
}

/// What is said, as the speaker can take it, and how long that takes, about.
fn words(speaker: &SpeakerProfile, deed: &Deed) -> Result<(Filling, Duration), String> {
    let Deed::Speak { text, clip, volume, repeat, until: _ } = deed else {
        return Err("a speaker only speaks".to_owned());
    };
    let most = usize::from(speaker.text_chars_max);
    let text = text.as_ref().filter(|_| most > 0).map(|text| -> String { text.chars().take(most).collect() });
    if text.is_none() && clip.is_none() {
        return Err("the speaker plays only clips, and none was named".to_owned());
    }
    // Where the text is said, the clip is for the speakers that cannot.
    let clip = clip.clone().filter(|_| text.is_none());
    let times = u32::from((*repeat).max(1));
    let chars = text.as_ref().map_or(0, |text| text.chars().count());
    let chars_ms = u32::try_from(chars).unwrap_or(u32::MAX).saturating_mul(speaker.ms_per_char.into());
    let clip_ms = if clip.is_some() { speaker.ms_per_clip.into() } else { 0 };
    let lasts = Duration::from_millis(chars_ms.saturating_add(clip_ms).saturating_mul(times).into());
    let text = text.map(|text| if speaker.repeats { text } else { repeated(&text, times, most) });
    let filling = Filling {
        text,
        clip,
        volume: Some(speaker.volume.of(*volume)),
        repeat: Some((*repeat).max(1)),
        ..Filling::default()
    };
    Ok((filling, lasts.min(BUSY_MAX)))
}

/// The text as often as it fits.
fn repeated(text: &str, times: u32, most: usize) -> String {
    let mut out = text.to_owned();
    for _ in 1..times {
        if out.chars().count().saturating_add(text.chars().count()).saturating_add(1) > most {
            break;
        }
        out.push('。');
        out.push_str(text);
    }
    out
}
