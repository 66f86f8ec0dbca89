//! Handlers within the worker's own process: an action that has one here is executed by it, and no target is asked.
//!
//! What users of the crate write runs as a task of its own, so that nothing it does reaches the worker: a panic is an error of
//! its attempt, one that computes for long holds up no heartbeat, and one that does not heed its token is given up.

use std::{any::Any, collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use serde_json::Value;
use shared::{
    clock::SharedClock,
    human_duration::HumanDuration,
    names::{ActionName, TargetName},
    run_record::ErrorKind,
    task::{Task, Work},
};
use tokio::task::JoinError;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Attempt, Failure};

type Act = dyn Fn(Attempt, CancellationToken) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync;

/// What executes an action here. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handler {
    act: Arc<Act>,
    has_own_task: bool,
}

/// The handlers of one action.
#[derive(Clone, Default)]
struct OfAction {
    whatever_target: Option<Handler>,
    of_target: HashMap<TargetName, Handler>,
}

/// Handlers by the action they are for. Cheap to clone.
#[derive(Clone, Default)]
pub struct InProcess {
    handlers: Arc<HashMap<ActionName, OfAction>>,
}

impl InProcess {
    /// With a handler for an action, whatever target a task names for it. It runs within the worker's own task, so it must be
    /// over at once and must not panic; for all others there is [`crate::Worker::builder`].
    #[must_use]
    pub fn with<H, F>(mut self, action: ActionName, handler: H) -> Self
    where
        H: Fn(Attempt, CancellationToken) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        let act: Arc<Act> = Arc::new(move |attempt, stop| Box::pin(handler(attempt, stop)));
        self.set(None, action, Handler { act, has_own_task: false });
        self
    }

    /// Adds a handler that runs as a task of its own, for one target or whatever target; says whether there was none.
    pub(crate) fn add<H>(&mut self, target: Option<TargetName>, action: ActionName, handler: H) -> bool
    where
        H: Fn(Attempt, CancellationToken) -> BoxFuture<'static, Result<Value, Failure>>
            + Send
            + Sync
            + 'static,
    {
        self.set(target, action, Handler { act: Arc::new(handler), has_own_task: true })
    }

    fn set(&mut self, target: Option<TargetName>, action: ActionName, handler: Handler) -> bool {
        let of_action = Arc::make_mut(&mut self.handlers).entry(action).or_default();
        match target {
            None => of_action.whatever_target.replace(handler).is_none(),
            Some(target) => of_action.of_target.insert(target, handler).is_none(),
        }
    }

    /// The handler of a task, if it has one here; the one for its target goes before the one for whatever target. A command
    /// has none: its name is no action.
    pub(crate) fn handler_of(&self, task: &Task) -> Option<&Handler> {
        let Work::Service { target, .. } = &task.work else { return None };
        let of_action = self.handlers.get(task.action())?;
        of_action.of_target.get(target).or(of_action.whatever_target.as_ref())
    }
}

impl Handler {
    /// Executes an attempt. Returns at the latest when its grace is over after it was told to stop: another may begin then.
    pub(super) async fn execute(
        &self,
        attempt: &Attempt,
        stop: &CancellationToken,
        clock: &SharedClock,
    ) -> Result<Value, Failure> {
        let (act, given, token) = (Arc::clone(&self.act), attempt.clone(), stop.clone());
        if !self.has_own_task {
            return act(given, token).await;
        }
        // Called within the task: it may panic, or take long, before it waits for the first time.
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move { act(given, token).await }));
        let ignores_stop = async {
            stop.cancelled().await;
            clock.sleep(attempt.grace).await;
        };
        tokio::select! {
            biased;
            ended = &mut task => ended.unwrap_or_else(|error| Err(broken_off(error))),
            () = ignores_stop => Err(given_up(attempt)),
        }
    }
}

/// Its task is aborted: it is gone when it next waits for something.
fn given_up(attempt: &Attempt) -> Failure {
    let grace = HumanDuration(attempt.grace);
    let words = format!(
        "the handler had not ended {grace} after it was told to stop, and was given up; let it heed `ctx.cancelled()`"
    );
    tracing::warn!(run.id = %attempt.run, "`{}`: {words}", attempt.run);
    attempt.log.line(words.as_str());
    Failure::retryable(ErrorKind::Internal, words)
}

fn broken_off(error: JoinError) -> Failure {
    match error.try_into_panic() {
        Ok(panic) => Failure::retryable(
            ErrorKind::Target,
            format!("the handler panicked: {}", words_of(panic.as_ref())),
        ),
        Err(error) => Failure::retryable(ErrorKind::Internal, format!("the handler was broken off: {error}")),
    }
}

/// What `panic!` was given: a text, unless somebody panics with a value of their own.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it left no words")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(json: &str) -> Task {
        Task::from_json(json.as_bytes()).expect("task")
    }

    #[test]
    fn an_action_has_the_handler_it_was_given_and_a_command_has_none() {
        let handlers = InProcess::default()
            .with("archive".parse().expect("an action"), async |_, _| Ok(Value::Null))
            .with("tree".parse().expect("an action"), async |_, _| Ok(Value::Null));
        let is_handled = |json: &str| handlers.handler_of(&task(json)).is_some();
        assert!(is_handled(r#"{"target_service":"a","action":"archive"}"#));
        assert!(!is_handled(r#"{"target_service":"a","action":"other"}"#));
        assert!(!is_handled(r#"{"command":["tree"]}"#));
    }

    #[test]
    fn the_handler_for_a_target_goes_before_the_one_for_whatever_target() {
        let mut handlers = InProcess::default();
        let archive: ActionName = "archive".parse().expect("an action");
        let storage: TargetName = "storage".parse().expect("a target");
        let nothing = |_, _| -> BoxFuture<'static, _> { Box::pin(std::future::ready(Ok(Value::Null))) };
        assert!(handlers.add(Some(storage.clone()), archive.clone(), nothing));
        assert!(!handlers.add(Some(storage), archive.clone(), nothing), "a second one is seen");
        let of = |handlers: &InProcess, target: &str| {
            let json = format!(r#"{{"target_service":"{target}","action":"archive"}}"#);
            handlers.handler_of(&task(&json)).map(|handler| Arc::as_ptr(&handler.act).cast::<()>())
        };
        assert_eq!(of(&handlers, "elsewhere"), None);
        let own = of(&handlers, "storage");
        assert!(handlers.add(None, archive, nothing));
        assert_eq!(of(&handlers, "storage"), own);
        assert!(of(&handlers, "elsewhere").is_some_and(|other| Some(other) != own));
    }

    #[test]
    fn the_words_of_a_panic_are_found() {
        assert_eq!(words_of(&"plain"), "plain");
        assert_eq!(words_of(&String::from("made")), "made");
        assert_eq!(words_of(&7_u8), "it left no words");
    }
}
