//! A verb: one thing that can be asked of a console, however it is asked. HTTP routes, NATS endpoints and the `OpenAPI` document all come
//! from the one table of verbs.

use std::sync::Arc;

use futures::{future::BoxFuture, stream::BoxStream};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{call::Call, parameter::Parameter, problem::Problem, state::Api};

/// How it is asked over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates or replaces.
    Put,
    /// Does something.
    Post,
    /// Removes.
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// What a body or an answer looks like.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type.
pub fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What an object with fields of its own looks like.
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "object" })
}

/// What a body may be.
#[derive(Clone, Copy)]
pub struct BodyOf {
    /// Its schema.
    pub schema: SchemaOf,
    /// Bytes that are read, at most.
    pub bytes_max: usize,
    /// Whether it may be YAML, too.
    pub is_yaml_read: bool,
    /// Whether it may be left out.
    pub is_optional: bool,
}

/// An answer that is no problem.
#[derive(Clone, Copy)]
pub struct AnswerOf {
    /// The status.
    pub status: u16,
    /// What it means.
    pub means: &'static str,
    /// Its body; none if it has none.
    pub schema: Option<SchemaOf>,
}

/// What a verb does.
#[derive(Clone, Copy)]
pub enum Run {
    /// Answers once.
    Once(fn(Arc<Api>, Call) -> BoxFuture<'static, Result<Answer, Problem>>),
    /// Goes on to tell, as server-sent events. Over NATS the subjects of results and logs tell the same.
    Stream(fn(Arc<Api>, Call) -> BoxFuture<'static, Result<Events, Problem>>),
}

/// A verb.
#[derive(Clone, Copy)]
pub struct Verb {
    /// Its name, for ever: the operation's id, and the end of its subject.
    pub id: &'static str,
    /// How it is asked over HTTP.
    pub method: Method,
    /// Where.
    pub path: &'static str,
    /// What it does, in a sentence without a full stop.
    pub summary: &'static str,
    /// More about it.
    pub about: &'static str,
    /// What it takes beside a body.
    pub parameters: &'static [Parameter],
    /// Its body, if it takes one.
    pub body: Option<BodyOf>,
    /// What it answers when all is well.
    pub answers: &'static [AnswerOf],
    /// What it does.
    pub run: Run,
}

impl Verb {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        self.method == Method::Get
    }

    /// Whether it is answered from what the console has, also while NATS is away.
    pub fn is_from_memory(&self) -> bool {
        ["schedules.list", "runs.list", "results.stream"].contains(&self.id)
    }

    /// Whether it goes on to tell.
    pub fn is_stream(&self) -> bool {
        matches!(self.run, Run::Stream(_))
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; none if there is none.
    pub body: Option<Value>,
    /// The revision of what was read or written: its `ETag`.
    pub revision: Option<u64>,
    /// Where what was made is found.
    pub location: Option<String>,
    /// Whether the end of the run was waited for as was preferred.
    pub has_waited: bool,
}

impl Answer {
    /// 200, with something.
    pub fn ok(body: impl serde::Serialize) -> Self {
        Self::with(200, body)
    }

    /// A status, with something.
    pub fn with(status: u16, body: impl serde::Serialize) -> Self {
        // What is answered has texts for keys, and is always written.
        Self { status, body: Some(serde_json::to_value(body).unwrap_or_default()), ..Self::default() }
    }

    /// 204.
    pub fn nothing() -> Self {
        Self { status: 204, ..Self::default() }
    }

    /// The same, with its revision.
    #[must_use]
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The same, with where it is found.
    #[must_use]
    pub fn located(mut self, path: String) -> Self {
        self.location = Some(path);
        self
    }
}

/// One event of a stream.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// Where to go on after it; none if it is no place.
    pub id: Option<String>,
    /// What kind of event.
    pub kind: &'static str,
    /// JSON, on one line.
    pub data: String,
}

/// Events, until there are no more.
pub type Events = BoxStream<'static, Event>;
