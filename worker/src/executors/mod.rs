//! Executors: how an attempt acts on the world. Each is handed an [`Attempt`] and answers with an output or a
//! [`Failure`]; when its `stop` is cancelled (timeout, lost hold, abort) it ends what it began and returns.

pub mod health;
pub mod http;
pub mod in_process;
pub mod local;
pub mod message;

mod answer;
mod endpoints;
mod retry_after;
mod secrets;

use std::{sync::Arc, time::Duration};

use chrono::{SecondsFormat, TimeDelta};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::{
    Timestamp,
    callback::{Awaited, CallbackError, CallbackToken},
    names::{ActionName, Name, TargetName},
    run::RunId,
    run_record::{ErrorKind, RunError},
    run_state::RunState,
    shard::Shard,
    target::{Address, Precheck, Target},
    task::{Task, Work},
    template::TemplateValues,
};
use streams::{Streams, headers, witness};
use tokio_util::sync::CancellationToken;

pub use self::secrets::SecretsFolder;
use crate::run_log::RunLog;

/// One try at a run: everything an executor needs to know.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The number of this attempt, from 1.
    pub number: u32,
    /// Its fencing number: grows with every claim, so that a target can refuse a stale attempt.
    pub fence: u64,
    /// The instant the run was due; none for ad-hoc runs.
    pub slot: Option<Timestamp>,
    /// What is to be done.
    pub task: Arc<Task>,
    /// Which part of a sharded run this is; none if it is none.
    pub shard: Option<Shard>,
    /// The end of another run that this one follows; none if it follows none.
    pub upstream: Option<UpstreamEnd>,
    /// The target, for a service task; looked up by the caller.
    pub target: Option<Arc<Target>>,
    /// W3C trace context to hand on.
    pub traceparent: Option<String>,
    /// A command that is told to end is ended after this, at most: the attempt must be over before another may begin.
    pub grace: Duration,
    /// A command whose worker stands still for this long is stopped.
    pub silence: Duration,
    /// Where it says what it is at.
    pub log: RunLog,
    /// Where the target may leave its answer later; none if it has to answer at once.
    pub offer: Option<Offer>,
}

/// Where one attempt's target, and nobody else, may leave its answer later.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The subject it may publish it to.
    pub subject: String,
    /// The URL it may post it to, if there is one.
    pub url: Option<String>,
    /// What the record will say, if it takes the run on.
    pub awaited: Awaited,
}

impl Offer {
    /// What the target is told. To be sent to it alone.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (headers::CALLBACK_SUBJECT, self.subject.clone()),
            (headers::CALLBACK_DEADLINE, written(self.awaited.deadline)),
        ];
        headers.extend(self.url.clone().map(|url| (headers::CALLBACK, url)));
        headers
    }

    /// What is awaited of a target that took the run on now.
    fn taken_on(&self, now: Timestamp) -> Done {
        Done::TakenOn(Awaited { accepted_at: now, ..self.awaited.clone() })
    }
}

/// What came of an attempt that did not go wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// It is done, and this is its output.
    Output(Value),
    /// The target has taken the run on, and will say later how it ended.
    TakenOn(Awaited),
}

impl Done {
    /// The output, if it is done.
    pub fn output(self) -> Option<Value> {
        match self {
            Done::Output(output) => Some(output),
            Done::TakenOn(_) => None,
        }
    }
}

/// The end of a run, as a run that follows it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamEnd {
    /// The run that ended.
    pub run: RunId,
    /// How it ended.
    pub status: RunState,
    /// When its end was recorded.
    pub ended_at: Timestamp,
    /// Its output as its record keeps it; none if it has none, or the ledger does not remember it.
    pub output: Option<Value>,
    /// What went wrong in it.
    pub error: Option<RunError>,
}

/// Why an attempt did not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, for the record.
    pub error: RunError,
    /// Another attempt would not mend it.
    pub permanent: bool,
    /// The target asked to be left alone for this long; the caller bounds it.
    pub retry_after: Option<Duration>,
    /// The run is not to be tried again but skipped: nothing was sent, and that is so declared.
    pub skips: bool,
}

impl Failure {
    /// A failure that another attempt may mend.
    pub fn retryable(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { error: RunError::new(kind, message), permanent: false, retry_after: None, skips: false }
    }

    /// A failure that another attempt would not mend.
    pub fn permanent(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::retryable(kind, message) }
    }
}

/// What a target is told in the body of a request.
#[derive(Serialize)]
struct Body<'a> {
    task_name: &'a Name,
    action: &'a ActionName,
    parameters: &'a Map<String, Value>,
    run: &'a RunId,
    attempt: u32,
    fence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_service: Option<&'a TargetName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<&'a Shard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Value>,
}

impl Attempt {
    /// What the target is told its task is called.
    pub fn task_name(&self) -> &Name {
        self.task.task_name.as_ref().unwrap_or(&self.run.name)
    }

    /// What fills the places in a target's templates.
    fn template_values(&self) -> TemplateValues<'_> {
        TemplateValues {
            action: self.task.action(),
            task_name: self.task_name(),
            run: &self.run,
            attempt: self.number,
            slot: self.slot,
            parameters: &self.task.parameters,
        }
    }

    /// The body of a request as JSON: the origin's dictionary, and which attempt of which run this is.
    pub fn body(&self) -> Vec<u8> {
        let body = Body {
            task_name: self.task_name(),
            action: self.task.action(),
            parameters: &self.task.parameters,
            run: &self.run,
            attempt: self.number,
            fence: self.fence,
            target_service: self.task.target(),
            slot: self.slot,
            shard: self.shard.as_ref(),
            upstream: self.upstream.as_ref().map(UpstreamEnd::body),
        };
        // Strings, numbers and JSON values only, which always encode.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// What a target is told about the attempt outside the body, whichever way it is reached.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (headers::IDEMPOTENCY_KEY, self.run.to_string()),
            (headers::RUN, self.run.to_string()),
            (headers::ATTEMPT, self.number.to_string()),
            (headers::FENCE, self.fence.to_string()),
        ];
        headers.extend(self.slot.map(|slot| (headers::SLOT, written(slot))));
        if let Some(shard) = &self.shard {
            headers.push((headers::SHARD_INDEX, shard.index.to_string()));
            headers.push((headers::SHARD_TOTAL, shard.total.to_string()));
            headers.push((headers::SHARD_PARENT, shard.parent.to_string()));
        }
        if let Some(upstream) = &self.upstream {
            headers.push((headers::UPSTREAM_RUN, upstream.run.to_string()));
            headers.push((headers::UPSTREAM_STATUS, upstream.status.to_string()));
        }
        headers.extend(self.traceparent.clone().map(|context| (headers::TRACEPARENT, context)));
        headers
    }
}

/// An instant as it is written in JSON too: RFC 3339, in UTC, with no more digits than it needs.
fn written(instant: Timestamp) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// All executors of a worker.
#[derive(Clone)]
pub struct Executors {
    http: http::HttpExecutor,
    message: message::MessageExecutor,
    local: local::LocalExecutor,
    health: health::HealthChecks,
    in_process: in_process::InProcess,
    streams: Streams,
    callback_url: Option<Arc<str>>,
}

impl Executors {
    /// Executors that share their HTTP connections and one NATS connection.
    pub fn new(
        streams: &Streams,
        local: local::LocalSettings,
        secrets: SecretsFolder,
        callback_url: Option<&str>,
    ) -> Result<Self, http::HttpSetupError> {
        let http = http::HttpExecutor::new(streams.clock().clone())?.with_secrets(secrets);
        Ok(Self {
            health: health::HealthChecks::new(http.clone(), streams.clock().clone()),
            http,
            message: message::MessageExecutor::new(streams.clone()),
            streams: streams.clone(),
            callback_url: callback_url.map(|url| url.trim_end_matches('/').into()),
            local: local::LocalExecutor::new(local, streams.clock().clone()),
            in_process: in_process::InProcess::default(),
        })
    }

    /// The same with handlers in this process.
    #[must_use]
    pub fn with_handlers(self, in_process: in_process::InProcess) -> Self {
        Self { in_process, ..self }
    }

    /// Whether a task is executed in this process, so that no target is needed for it.
    pub fn is_in_process(&self, task: &Task) -> bool {
        self.in_process.handler_of(task).is_some()
    }

    /// The command of a task, if this worker may not run it.
    pub(crate) fn lacks_command<'a>(&self, task: &'a Task) -> Option<&'a ActionName> {
        match &task.work {
            Work::Command { name, .. } => (!self.local.has(name)).then_some(name),
            Work::Service { .. } => None,
        }
    }

    /// The check before an attempt: nothing is sent to the target but the question how it is.
    pub async fn check(&self, attempt: &Attempt, stop: &CancellationToken) -> Result<(), Failure> {
        let Work::Service { target: name, .. } = &attempt.task.work else { return Ok(()) };
        if self.is_in_process(&attempt.task) {
            return Ok(());
        }
        let by_target = attempt.target.as_ref().and_then(|target| target.precheck);
        let policy = attempt.task.precheck.or(by_target).unwrap_or_default();
        let checked = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(answer::stopped("the check of the target")),
            checked = Box::pin(self.find_fit(attempt, name)) => checked,
        };
        checked
            .map_err(|failure| Failure { skips: policy == Precheck::Skip && !failure.permanent, ..failure })
    }

    /// Whether the target is known, enabled and well.
    async fn find_fit(&self, attempt: &Attempt, name: &TargetName) -> Result<(), Failure> {
        let target = declared(attempt, name)?;
        if let Err(error) = attempt.task.check_target(target) {
            return Err(Failure::permanent(ErrorKind::UnknownTarget, error.to_string()));
        }
        if !target.enabled {
            let reason = target.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            let words = format!(
                "target {name} is disabled{reason}; take `enabled: false` from it and apply when it may be asked again"
            );
            return Err(Failure::retryable(ErrorKind::Precheck, words));
        }
        self.health.check(name, target).await
    }

    /// Where the target may leave its answer later, if its declaration says that it may.
    fn offer(&self, attempt: &Attempt, target: &Target) -> Option<Offer> {
        let later = target.shape_of(attempt.task.action()).later()?;
        let (token, now) = (CallbackToken::new(), self.streams.clock().now());
        let deadline =
            TimeDelta::from_std(later.deadline.0).ok().and_then(|wait| now.checked_add_signed(wait))?;
        let awaited =
            Awaited { accepted_at: now, deadline, heartbeat: later.heartbeat, token_hash: token.hash() };
        let run = &attempt.run;
        let url = self
            .callback_url
            .as_ref()
            .map(|url| format!("{url}/callbacks/{}/{}/{}", run.name, run.key, token.text()));
        Some(Offer { subject: self.streams.names().callback(run, &token.text()), url, awaited })
    }

    /// Makes one attempt, after its check, and has stored what it said. The caller bounds its time and cancels `stop`.
    pub async fn execute(&self, attempt: &Attempt, stop: &CancellationToken) -> Result<Done, Failure> {
        let result = self.act(attempt, stop).await;
        witness::passed("attempt.acted");
        // Before the end is recorded: whoever sees that finds the log whole.
        attempt.log.end().await;
        result
    }

    async fn act(&self, attempt: &Attempt, stop: &CancellationToken) -> Result<Done, Failure> {
        if let Some(handler) = self.in_process.handler_of(&attempt.task) {
            return handler.execute(attempt, stop, self.streams.clock()).await.map(Done::Output);
        }
        // Apart, so that what is over at once has no need of their room: they take much, and each run is as large as its largest.
        Box::pin(self.act_elsewhere(attempt, stop)).await
    }

    async fn act_elsewhere(&self, attempt: &Attempt, stop: &CancellationToken) -> Result<Done, Failure> {
        match &attempt.task.work {
            Work::Command { .. } => self.local.execute(attempt, stop).await.map(Done::Output),
            Work::Service { target: name, .. } => {
                let target = declared(attempt, name)?;
                let offered = self
                    .offer(attempt, target)
                    .map(|offer| Attempt { offer: Some(offer), ..attempt.clone() });
                let attempt = offered.as_ref().unwrap_or(attempt);
                match &target.address {
                    Address::Http(_) => self.http.execute(attempt, target, stop).await,
                    Address::Message(_) | Address::Service(_) => {
                        self.message.execute(attempt, target, stop).await
                    }
                }
            }
        }
    }
}

/// The failure of a run whose target took it on and said later that it went wrong.
pub(crate) fn callback_failure(error: CallbackError, now: Timestamp) -> Failure {
    let words = answer::quoted(error.message.as_bytes());
    let words = if words.is_empty() {
        "the target said later that it failed, without words".to_owned()
    } else {
        words
    };
    let permanent = error.retryable == Some(false);
    let asked = error.retry_after.filter(|_| !permanent).and_then(|asked| match asked {
        Value::String(text) => retry_after::parse(&text, now),
        other => retry_after::parse(&other.to_string(), now),
    });
    Failure { permanent, retry_after: asked, ..Failure::retryable(ErrorKind::Target, words) }
}

fn declared<'a>(attempt: &'a Attempt, name: &TargetName) -> Result<&'a Target, Failure> {
    // It may be declared in a moment: a retry finds it.
    let words = || format!("target {name} is not declared; add it under `targets:` and apply");
    attempt.target.as_deref().ok_or_else(|| Failure::retryable(ErrorKind::UnknownTarget, words()))
}
