//! A task: what to do. Planned runs carry it from their schedule, ad-hoc ones in their message.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    distinct_keys::DistinctKeys,
    human_duration::HumanDuration,
    limit::KeyLimit,
    limits,
    mistake::json_words,
    names::{ActionName, Name, TargetName},
    object::{object, object_if_any},
    retry::{RetryError, RetryPolicy},
    run_record::is_deeper_than,
    suggest::explain_unknown,
    target::{Address, Precheck, Target},
    time_limits::{TimeLimitError, TimeLimits},
};

/// How a task is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// A request to the target's URL.
    Http,
    /// A request to the target's subject.
    Message,
    /// A command that the worker's own settings allow.
    Local,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A target is asked for an action.
    Service {
        /// Who is asked.
        target: TargetName,
        /// For what.
        action: ActionName,
        /// How, if the task insists; otherwise the target's address says.
        execution: Option<Execution>,
    },
    /// A command from the worker's allow-list is run.
    Command {
        /// Its name on the allow-list.
        name: ActionName,
        /// Its arguments, handed over as they are: no shell reads them.
        arguments: Vec<String>,
    },
}

/// Whether an attempt that may have acted may be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Yes: the target may see the run twice, with the same idempotency key.
    #[default]
    AtLeastOnce,
    /// No: for targets that cannot bear a repeat. A lost worker, a drain, a timeout or an error of the target ends the
    /// run FAILED; only what was found wanting before anything was sent is tried again.
    AtMostOnce,
}

impl Delivery {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference to skip_serializing_if")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A task that can be executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TaskFields", into = "TaskFields")]
pub struct Task {
    /// What is done.
    pub work: Work,
    /// The name the target is told; the run's own name if absent.
    pub task_name: Option<Name>,
    /// What the target is handed.
    pub parameters: Map<String, Value>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long its run may take as a whole.
    pub time_limits: TimeLimits,
    /// How often, and how far apart, it is tried.
    pub retry: RetryPolicy,
    /// Whether an attempt that may have acted may be followed by another.
    pub delivery: Delivery,
    /// Attempts at once for one value of a key, over all workers.
    pub limit: Option<KeyLimit>,
    /// What becomes of its run when the target is found wanting, if it is not as the target says.
    pub precheck: Option<Precheck>,
}

/// A task as it is written, in a file or in an ad-hoc message.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Task")]
pub struct TaskFields {
    /// The name the target is told. Default: the schedule's or the run's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task_name: Option<Name>,
    /// The target that is asked; with `action`. Not with `command`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_service: Option<TargetName>,
    /// What the target is asked to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<ActionName>,
    /// What the target is handed.
    #[serde(skip_serializing_if = "Map::is_empty", default)]
    pub parameters: Map<String, Value>,
    /// `http` or `message` must agree with the target's address and may be left out; `local` goes with `command`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub execution: Option<Execution>,
    /// The name of a command on the worker's allow-list, and its arguments. No shell reads them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 128))]
    pub command: Vec<String>,
    /// How long one attempt may take: up to 24h, default 5m.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<HumanDuration>,
    /// A run that no worker has begun so long after it was made or submitted is not begun any more: it ends CANCELLED, reason
    /// `expired`. At most 30 days. Left out: it waits as long as it must.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_deadline: Option<HumanDuration>,
    /// A run, all attempts and waits together, that has not ended so long after it was made or submitted is stopped: it ends
    /// FAILED, reason `deadline`, or CANCELLED, reason `expired`, if no worker is at it then. At most 30 days.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline: Option<HumanDuration>,
    /// How often, and how far apart, it is tried.
    #[serde(default, deserialize_with = "object")]
    pub retry: RetryPolicy,
    /// Whether an attempt that may have acted may be followed by another.
    #[serde(skip_serializing_if = "Delivery::is_default", default)]
    pub delivery: Delivery,
    /// Attempts at once for one value of a key, over all workers: `{key: parameters.symbol, max: 1}`. It counts with all runs
    /// of the same target (or command) that are limited by the same key; beside the target's own, the stricter counts.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "object_if_any")]
    pub limit: Option<KeyLimit>,
    /// What becomes of its run when the target is unhealthy, disabled or unknown. Default: as the target says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub precheck: Option<Precheck>,
}

/// A task that cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// Not JSON, cut off, of the wrong shape, or with fields nobody knows.
    #[error("the task is not valid JSON of a task: {0}")]
    Json(String),
    /// JSON, and no object.
    #[error(
        "a task is an object; write {{\"target_service\": …, \"action\": …}} or {{\"command\": [\"NAME\", …]}}"
    )]
    NoObject,
    /// Larger than a message should carry.
    #[error("the task has {bytes} bytes; at most {max} are allowed: pass a reference instead of the data", max = limits::TASK_BYTES_MAX)]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// Nested more deeply than it could be stored.
    #[error("parameters are nested more than {max} levels deep; flatten them, or pass them as a text", max = limits::JSON_DEPTH_MAX)]
    TooDeep,
    /// Neither a service nor a command, or both.
    #[error("a task has either `target_service` and `action`, or `command`; this one has {0}")]
    Work(&'static str),
    /// The execution does not fit what is to be done.
    #[error("execution {execution:?} does not go with {with}; {repair}")]
    Execution {
        /// What was asked for.
        execution: Execution,
        /// What it does not go with.
        with: &'static str,
        /// What to write instead.
        repair: &'static str,
    },
    /// A command that cannot be handed to the operating system.
    #[error("command {0}")]
    Command(String),
    /// No time at all, or more than a day.
    #[error("timeout is {0}; it is more than 0s and at most {max}", max = HumanDuration(limits::TIMEOUT_MAX))]
    Timeout(HumanDuration),
    /// Time limits that cannot be kept.
    #[error(transparent)]
    TimeLimits(#[from] TimeLimitError),
    /// A retry policy that cannot be kept.
    #[error(transparent)]
    Retry(#[from] RetryError),
}

impl TryFrom<TaskFields> for Task {
    type Error = TaskError;
    fn try_from(fields: TaskFields) -> Result<Self, TaskError> {
        let work = work_of(&fields)?;
        let timeout = fields.timeout.unwrap_or(HumanDuration(limits::TIMEOUT_DEFAULT));
        if timeout.0.is_zero() || timeout.0 > limits::TIMEOUT_MAX {
            return Err(TaskError::Timeout(timeout));
        }
        let time_limits = TimeLimits::read(fields.start_deadline, fields.deadline)?;
        fields.retry.check()?;
        if fields.parameters.values().any(|value| is_deeper_than(value, limits::JSON_DEPTH_MAX - 1)) {
            return Err(TaskError::TooDeep);
        }
        let task = Self {
            work,
            task_name: fields.task_name,
            parameters: fields.parameters,
            timeout: timeout.0,
            time_limits,
            retry: fields.retry,
            delivery: fields.delivery,
            limit: fields.limit,
            precheck: fields.precheck,
        };
        task.check_size()?;
        Ok(task)
    }
}

fn work_of(fields: &TaskFields) -> Result<Work, TaskError> {
    match (&fields.target_service, &fields.action, fields.command.split_first()) {
        (Some(target), Some(action), None) => {
            if fields.execution == Some(Execution::Local) {
                return Err(TaskError::Execution {
                    execution: Execution::Local,
                    with: "`target_service`",
                    repair: "leave it out, or write `command`",
                });
            }
            Ok(Work::Service { target: target.clone(), action: action.clone(), execution: fields.execution })
        }
        (None, None, Some((name, arguments))) => {
            if let Some(execution @ (Execution::Http | Execution::Message)) = fields.execution {
                return Err(TaskError::Execution {
                    execution,
                    with: "`command`",
                    repair: "write local, or leave it out",
                });
            }
            if arguments.len() > limits::COMMAND_ARGUMENTS_MAX {
                return Err(TaskError::Command(format!(
                    "has {} arguments; at most {} are allowed: pass parameters, which the command reads from its input",
                    arguments.len(),
                    limits::COMMAND_ARGUMENTS_MAX
                )));
            }
            if let Some(argument) = arguments.iter().find(|argument| argument.contains('\0')) {
                return Err(TaskError::Command(format!("argument {argument:?} holds a NUL byte: remove it")));
            }
            let name = name.parse().map_err(|error| {
                TaskError::Command(format!(
                    "{error}; the first word names a command on the worker's allow-list, it is not a path"
                ))
            })?;
            Ok(Work::Command { name, arguments: arguments.to_vec() })
        }
        (None, None, None) => Err(TaskError::Work("neither")),
        (Some(_), None, None) => Err(TaskError::Work("no `action`")),
        (None, Some(_), None) => Err(TaskError::Work("no `target_service`")),
        _ => Err(TaskError::Work("both")),
    }
}

impl From<Task> for TaskFields {
    fn from(task: Task) -> Self {
        let fields = Self {
            task_name: task.task_name,
            parameters: task.parameters,
            timeout: Some(HumanDuration(task.timeout)),
            start_deadline: task.time_limits.start_deadline.map(HumanDuration),
            deadline: task.time_limits.deadline.map(HumanDuration),
            retry: task.retry,
            delivery: task.delivery,
            limit: task.limit,
            precheck: task.precheck,
            ..Self::default()
        };
        match task.work {
            Work::Service { target, action, execution } => {
                Self { target_service: Some(target), action: Some(action), execution, ..fields }
            }
            Work::Command { name, arguments } => {
                let command = std::iter::once(name.to_string()).chain(arguments).collect();
                Self { execution: Some(Execution::Local), command, ..fields }
            }
        }
    }
}

impl Task {
    /// Reads a task from a message or a command line.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TaskError> {
        if bytes.len() > limits::TASK_BYTES_MAX {
            return Err(TaskError::TooLarge { bytes: bytes.len() });
        }
        let unreadable =
            |error: serde_json::Error| TaskError::Json(explain_unknown(&json_words(&error.to_string())));
        // First, because it is not for us to choose which of two values was meant.
        serde_json::from_slice::<DistinctKeys>(bytes).map_err(unreadable)?;
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(TaskError::NoObject);
        }
        let fields: TaskFields = serde_json::from_slice(bytes).map_err(unreadable)?;
        fields.try_into()
    }

    /// Refuses a task that is too large as it travels: numbers may be longer there than they were written.
    pub fn check_size(&self) -> Result<(), TaskError> {
        // Nearly all tasks are far below the limit, and a million of them are checked when a planner starts: writing each to
        // count its bytes was a fifth of that.
        if self.bytes_at_most() <= limits::TASK_BYTES_MAX {
            return Ok(());
        }
        let bytes = serde_json::to_vec(self).map_or(0, |json| json.len());
        if bytes > limits::TASK_BYTES_MAX { Err(TaskError::TooLarge { bytes }) } else { Ok(()) }
    }

    /// More than it has as JSON, whatever its characters are.
    fn bytes_at_most(&self) -> usize {
        let arguments = match &self.work {
            Work::Service { .. } => 0,
            Work::Command { arguments, .. } => arguments.iter().map(|text| text_at_most(text)).sum(),
        };
        let parameters: usize =
            self.parameters.iter().map(|(name, value)| text_at_most(name) + value_at_most(value)).sum();
        FIELDS_BYTES_MAX + arguments + parameters
    }

    /// The service it acts on; none for a command.
    pub fn target(&self) -> Option<&TargetName> {
        match &self.work {
            Work::Service { target, .. } => Some(target),
            Work::Command { .. } => None,
        }
    }

    /// What is asked for: the action, or the command's name.
    pub fn action(&self) -> &ActionName {
        match &self.work {
            Work::Service { action, .. } | Work::Command { name: action, .. } => action,
        }
    }

    /// Refuses a task that insists on another way than the target's.
    pub fn check_target(&self, target: &Target) -> Result<(), TaskError> {
        let Work::Service { execution: Some(execution), .. } = &self.work else { return Ok(()) };
        match (execution, &target.address) {
            (Execution::Http, Address::Message(_) | Address::Service(_)) => Err(TaskError::Execution {
                execution: *execution,
                with: "a target that is reached by messages",
                repair: "write message, or leave it out",
            }),
            (Execution::Message, Address::Http(_)) => Err(TaskError::Execution {
                execution: *execution,
                with: "a target with `http`",
                repair: "write http, or leave it out",
            }),
            _ => Ok(()),
        }
    }
}

impl JsonSchema for Task {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        TaskFields::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TaskFields::json_schema(generator)
    }
}

/// All of a task as JSON but arguments and parameters: the names of its fields, four names of people's, the key of its limit,
/// numbers and durations.
const FIELDS_BYTES_MAX: usize = 4 * limits::NAME_CHARS_MAX + 1_024 + 6 * limits::LIMIT_KEY_CHARS_MAX;

/// A text in quotes, with a comma or colon, if each of its bytes had to be written as `\\u0000`.
fn text_at_most(text: &str) -> usize {
    6 * text.len() + 3
}

/// A value as JSON, with a comma.
fn value_at_most(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 6,
        // 25 digits, sign, point and exponent of what a double or 64 bits can be.
        Value::Number(_) => 32,
        Value::String(text) => text_at_most(text),
        Value::Array(items) => 3 + items.iter().map(value_at_most).sum::<usize>(),
        Value::Object(fields) => {
            3 + fields.iter().map(|(name, value)| text_at_most(name) + value_at_most(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests;
