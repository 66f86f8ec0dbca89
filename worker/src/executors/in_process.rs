//! Handlers within the worker's own process: an action that has one here is executed by it, and no target is asked.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use serde_json::Value;
use shared::{
    names::ActionName,
    task::{Task, Work},
};
use tokio_util::sync::CancellationToken;

use super::{Attempt, Failure};

type Handler = dyn Fn(Attempt, CancellationToken) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync;

/// Handlers by the action they are for. Cheap to clone.
#[derive(Clone, Default)]
pub struct InProcess {
    handlers: Arc<HashMap<ActionName, Arc<Handler>>>,
}

impl InProcess {
    /// With a handler for an action, whatever target a task names for it. It is told to stop by its token, and has ten
    /// seconds then.
    #[must_use]
    pub fn with<H, F>(self, action: ActionName, handler: H) -> Self
    where
        H: Fn(Attempt, CancellationToken) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        let handler: Arc<Handler> = Arc::new(move |attempt, stop| Box::pin(handler(attempt, stop)));
        let mut handlers = Arc::unwrap_or_clone(self.handlers);
        handlers.insert(action, handler);
        Self { handlers: Arc::new(handlers) }
    }

    /// The handler of a task, if it has one here. A command has none: its name is no action.
    pub(crate) fn handler_of(&self, task: &Task) -> Option<&Arc<Handler>> {
        match &task.work {
            Work::Service { .. } => self.handlers.get(task.action()),
            Work::Command { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_the_handler_it_was_given_and_a_command_has_none() {
        let handlers = InProcess::default()
            .with("archive".parse().expect("an action"), async |_, _| Ok(Value::Null))
            .with("tree".parse().expect("an action"), async |_, _| Ok(Value::Null));
        let is_handled = |json: &str| {
            let task = Task::from_json(json.as_bytes()).expect("task");
            handlers.handler_of(&task).is_some()
        };
        assert!(is_handled(r#"{"target_service":"a","action":"archive"}"#));
        assert!(!is_handled(r#"{"target_service":"a","action":"other"}"#));
        assert!(!is_handled(r#"{"command":["tree"]}"#));
    }
}
