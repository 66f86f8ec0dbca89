//! The way to write a worker in Rust: handlers with typed parameters, a context and errors that say what becomes of the run.
//!
//! A handler takes a [`RunContext`] and its parameters, any type that serde can read from the task's `parameters`, and
//! returns what the run's record keeps as its output, any type that serde can write, or a [`HandlerError`]. It is given to
//! [`crate::Worker::builder`].
//!
//! - It runs at least once: the worker may die after the handler has acted. [`RunContext::run`] is the same for every attempt of
//!   a run, and [`RunContext::fence`] grows with each, so that what it writes to can refuse a stale one.
//! - It is told to stop by [`RunContext::cancelled`]: when somebody cancels the run, when its time is over, when its hold on the run
//!   cannot be renewed, when the worker must end. Then it has five seconds, or a sixth of the queue's `ack_wait` if that is
//!   less, and is dropped at its next `await`. What blocks its thread for longer cannot be stopped: give that to
//!   `tokio::task::spawn_blocking`, and let it look at [`RunContext::is_cancelled`].
//! - It runs as a task of its own, on the runtime that runs the worker, which must have more than one thread. If it panics, its
//!   attempt has failed and may be retried (not with `panic = "abort"`, which ends the process).
//! - A task whose action has no handler here goes to its target, as at any other worker. Workers without the handler do that with
//!   its tasks too: let a queue of its own be served by those that have it.

mod context;
mod error;

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use shared::{run_record::ErrorKind, suggest::explain_unknown, task::Task};
use tokio_util::sync::CancellationToken;

pub use self::{context::RunContext, error::HandlerError};
use crate::executors::{Attempt, Failure};

/// A handler with types as the registry keeps it.
pub(crate) fn typed<H, P, F, O>(
    handler: H,
) -> impl Fn(Attempt, CancellationToken) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync + 'static
where
    H: Fn(RunContext, P) -> F + Send + Sync + 'static,
    P: DeserializeOwned + Send + 'static,
    F: Future<Output = Result<O, HandlerError>> + Send + 'static,
    O: Serialize + Send + 'static,
{
    let handler = Arc::new(handler);
    move |attempt, stop| {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            let parameters: P = parameters_of(&attempt.task)?;
            // However it ends: what holds on to the context says nothing any more.
            let over = CancellationToken::new();
            let _over = over.clone().drop_guard();
            let output = handler(RunContext::new(attempt, stop, over), parameters).await;
            output_of(&output.map_err(HandlerError::into_failure)?)
        })
    }
}

/// The parameters of a task as its handler takes them. What does not fit never will.
fn parameters_of<P: DeserializeOwned>(task: &Task) -> Result<P, Failure> {
    serde_path_to_error::deserialize(&task.parameters).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { format!("`{path}`: ") };
        let said = explain_unknown(&error.into_inner().to_string());
        let words = format!(
            "the parameters do not fit the handler of {}: {field}{said}; mend `parameters` of the task",
            task.action()
        );
        Failure::permanent(ErrorKind::Request, words)
    })
}

fn output_of(output: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(output).map_err(|error| {
        let words = format!(
            "the handler has done its work, but its output cannot be written as JSON: {error}; mend the type it returns"
        );
        Failure::permanent(ErrorKind::Target, words)
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Archive {
        table: String,
        #[serde(default)]
        options: Options,
    }

    #[derive(Debug, Default, Deserialize)]
    struct Options {
        batch_size: u32,
    }

    fn read(parameters: &str) -> Result<Archive, Failure> {
        let json = format!(r#"{{"target_service":"a","action":"archive","parameters":{parameters}}}"#);
        parameters_of(&Task::from_json(json.as_bytes()).expect("task"))
    }

    #[test]
    fn parameters_that_fit_are_read_and_others_are_refused_with_field_rule_and_repair() {
        let fits = read(r#"{"table":"trades","options":{"batch_size":7}}"#).expect("fits");
        assert_eq!((fits.table.as_str(), fits.options.batch_size), ("trades", 7));
        for (parameters, words) in [
            (
                r#"{"table":"trades","options":{"batch_size":"many"}}"#,
                "`options.batch_size`: invalid type: string \"many\", expected u32",
            ),
            (r#"{"table":"trades","options":{"batch_size":-1}}"#, "`-1`, expected u32"),
            ("{}", "missing field `table`"),
            (r#"{"tabel":"trades"}"#, "did you mean `table`?"),
        ] {
            let failure = read(parameters).expect_err(parameters);
            assert!(failure.permanent, "{failure:?}");
            assert_eq!(failure.error.kind, ErrorKind::Request);
            let said = &failure.error.message;
            assert!(said.contains(words) && said.contains("handler of archive"), "{said}");
            assert!(said.ends_with("mend `parameters` of the task"), "{said}");
        }
    }

    #[test]
    fn an_output_that_is_no_json_is_said_to_be_none() {
        let by_pair = std::collections::HashMap::from([((1, 2), 3)]);
        let failure = output_of(&by_pair).expect_err("no JSON");
        assert!(failure.permanent && failure.error.message.contains("key must be a string"), "{failure:?}");
    }
}
