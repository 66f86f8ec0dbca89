//! How a target is asked for its actions: what a request looks like, and what its answer means.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    callback::{AsyncError, AsyncSettings},
    human_duration::HumanDuration,
    limits::{QUERY_PARAMETERS_MAX, TIMEOUT_MAX},
    statuses::Statuses,
    template::Template,
};

/// The method of an HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Asks for something; has no body.
    Get,
    /// Asks whether something is there; has no body.
    Head,
    /// Asks for an action.
    #[default]
    Post,
    /// Puts something in a place.
    Put,
    /// Changes something in part.
    Patch,
    /// Removes something.
    Delete,
}

impl Method {
    /// As it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    fn has_body(self) -> bool {
        !matches!(self, Self::Get | Self::Head)
    }
}

/// What a request's body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// The task, and which attempt of which run this is.
    Task,
    /// The task's parameters alone.
    Parameters,
    /// Nothing.
    None,
}

/// Whether a service that is reached by messages answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Its answer is waited for, and is the output.
    #[default]
    Wait,
    /// None is expected: the run has succeeded once the server has the message.
    None,
}

/// How an action is asked for. What is left out is as the target says, or else by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestSettings {
    /// The method; POST by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<Method>,
    /// Where the action is found below the base URL. Default `/actions/{action}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<Template>,
    /// The query: names and their values. What is put in is escaped.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    #[schemars(extend("maxProperties" = 32))]
    pub query: BTreeMap<String, Template>,
    /// What the body holds; by default the task, and nothing with GET and HEAD.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<BodyKind>,
    /// The statuses that mean success; all 2xx by default.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub success: Vec<Statuses>,
    /// The statuses after which no other attempt is made, beside those that are permanent by default (4xx but 408, 425 and 429).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub permanent: Vec<Statuses>,
    /// The statuses that another attempt may mend, beside those of which that is believed by default (5xx, 408, 425, 429).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub retryable: Vec<Statuses>,
    /// How long the target has to answer, if that is less than the task's own timeout.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<HumanDuration>,
    /// The target may answer 202 and say later how the run ended: how long that may take.
    #[serde(rename = "async", skip_serializing_if = "Option::is_none", default)]
    pub later: Option<AsyncSettings>,
    /// For targets that are reached by messages: whether an answer is waited for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply: Option<Reply>,
}

/// Settings that contradict themselves or their target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A path that is none.
    #[error(
        "{field} is {text:?}; it must begin with / and hold no blanks, ? or # (a query goes under `query`)"
    )]
    Path {
        /// Which field.
        field: &'static str,
        /// What was given.
        text: String,
    },
    /// A path that would lead above the base URL.
    #[error("{field} is {text:?}; it must have no segment . or ..")]
    Steps {
        /// Which field.
        field: &'static str,
        /// What was given.
        text: String,
    },
    /// A query that nobody needs.
    #[error("query has {0} parameters; at most {QUERY_PARAMETERS_MAX} are allowed")]
    Query(usize),
    /// A body where there is none.
    #[error("a {0} request has no body; leave `body` out, or write another method")]
    Body(&'static str),
    /// What means both.
    #[error("status {status} is both `{one}` and `{other}`; write it under one of them")]
    Both {
        /// The status, or range.
        status: String,
        /// Where it stands.
        one: &'static str,
        /// Where it stands, too.
        other: &'static str,
    },
    /// No time, or more than an attempt may take.
    #[error("timeout is {0}; it is more than 0s and at most {max}", max = HumanDuration(TIMEOUT_MAX))]
    Timeout(HumanDuration),
    /// Times that cannot be kept.
    #[error(transparent)]
    Async(#[from] AsyncError),
    /// A field that only makes sense for HTTP.
    #[error("{0} is for targets with `http`; this one is reached by messages: leave it out")]
    OnlyHttp(&'static str),
    /// A field that only makes sense for messages.
    #[error("reply is for targets with `message` or `service`; this one has `http`: leave it out")]
    OnlyMessage,
}

/// How one action of a target is asked for, in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape<'a> {
    action: Option<&'a RequestSettings>,
    target: &'a RequestSettings,
}

impl<'a> Shape<'a> {
    /// What is said of the action first, then of the target.
    pub(crate) fn of(action: Option<&'a RequestSettings>, target: &'a RequestSettings) -> Self {
        Self { action, target }
    }

    fn first<T>(&self, of: impl Fn(&'a RequestSettings) -> Option<T>) -> Option<T> {
        self.action.and_then(&of).or_else(|| of(self.target))
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.first(|settings| settings.method).unwrap_or_default()
    }

    /// The path, if it is not the usual one.
    pub fn path(&self) -> Option<&'a Template> {
        self.first(|settings| settings.path.as_ref())
    }

    /// The query. What the action has is added to what the target has, or replaces it.
    pub fn query(&self) -> BTreeMap<&'a str, &'a Template> {
        let of_action = self.action.into_iter().flat_map(|settings| &settings.query);
        self.target.query.iter().chain(of_action).map(|(name, value)| (name.as_str(), value)).collect()
    }

    /// What the body holds.
    pub fn body(&self) -> BodyKind {
        let usual = if self.method().has_body() { BodyKind::Task } else { BodyKind::None };
        self.first(|settings| settings.body).filter(|_| self.method().has_body()).unwrap_or(usual)
    }

    /// Whether a status means success.
    pub fn is_success(&self, status: u16) -> bool {
        match self.first(|settings| Some(&settings.success).filter(|all| !all.is_empty())) {
            Some(all) => all.iter().any(|one| one.contains(status)),
            None => (200..300).contains(&status),
        }
    }

    /// Whether a status that is no success is one that no other attempt would mend, by what is declared; nothing if nothing is.
    pub fn is_permanent(&self, status: u16) -> Option<bool> {
        let is_in = |all: &[Statuses]| all.iter().any(|one| one.contains(status));
        self.first(|settings| match () {
            () if is_in(&settings.permanent) => Some(true),
            () if is_in(&settings.retryable) => Some(false),
            () => None,
        })
    }

    /// How long the target has to answer, if it is declared.
    pub fn timeout(&self) -> Option<Duration> {
        self.first(|settings| settings.timeout).map(Duration::from)
    }

    /// How long the target may take that answers later, if it may.
    pub fn later(&self) -> Option<AsyncSettings> {
        self.first(|settings| settings.later)
    }

    /// Whether an answer is waited for.
    pub fn reply(&self) -> Reply {
        self.first(|settings| settings.reply).unwrap_or_default()
    }
}

impl RequestSettings {
    /// Checks what serde cannot, of a target that is reached over HTTP, or not.
    pub(crate) fn check(&self, is_http: bool) -> Result<(), RequestError> {
        if is_http {
            if self.reply.is_some() {
                return Err(RequestError::OnlyMessage);
            }
        } else if let Some(field) = self.only_for_http() {
            return Err(RequestError::OnlyHttp(field));
        }
        self.later.iter().try_for_each(AsyncSettings::check)?;
        if let Some(path) = &self.path {
            check_path("path", path.as_str())?;
        }
        if self.query.len() > QUERY_PARAMETERS_MAX {
            return Err(RequestError::Query(self.query.len()));
        }
        if let (Some(method), Some(BodyKind::Task | BodyKind::Parameters)) = (self.method, self.body)
            && !method.has_body()
        {
            return Err(RequestError::Body(method.as_str()));
        }
        let lists =
            [("success", &self.success), ("permanent", &self.permanent), ("retryable", &self.retryable)];
        for (at, (one, statuses)) in lists.iter().enumerate() {
            for (other, others) in &lists[at + 1..] {
                if let Some(status) =
                    statuses.iter().find(|status| others.iter().any(|more| more.meets(status)))
                {
                    return Err(RequestError::Both { status: status.to_string(), one, other });
                }
            }
        }
        match self.timeout {
            Some(timeout) if timeout.0.is_zero() || timeout.0 > TIMEOUT_MAX => {
                Err(RequestError::Timeout(timeout))
            }
            _ => Ok(()),
        }
    }

    fn only_for_http(&self) -> Option<&'static str> {
        let given = [
            ("method", self.method.is_some()),
            ("path", self.path.is_some()),
            ("query", !self.query.is_empty()),
            ("body", self.body.is_some()),
            ("success", !self.success.is_empty()),
        ];
        given.into_iter().find_map(|(field, is_given)| is_given.then_some(field))
    }
}

/// Refuses what is no path below a base URL.
pub(crate) fn check_path(field: &'static str, text: &str) -> Result<(), RequestError> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || "?#\\".contains(c);
    if !text.starts_with('/') || text.contains(is_bad) {
        return Err(RequestError::Path { field, text: text.to_owned() });
    }
    let is_step =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if text.split('/').any(is_step) {
        Err(RequestError::Steps { field, text: text.to_owned() })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(yaml: &str) -> RequestSettings {
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
    }

    #[test]
    fn what_is_said_of_an_action_comes_before_what_is_said_of_its_target() {
        let target = settings("{method: PUT, path: /t, query: {a: x, b: y}, permanent: [503], timeout: 5s}");
        let action = settings("{method: GET, query: {b: z}, success: [404], retryable: [409, 503]}");
        let shape = Shape::of(Some(&action), &target);
        assert_eq!((shape.method(), shape.body()), (Method::Get, BodyKind::None));
        assert_eq!(shape.path().map(Template::as_str), Some("/t"));
        let query: Vec<_> = shape.query().into_iter().map(|(name, value)| (name, value.as_str())).collect();
        assert_eq!(query, [("a", "x"), ("b", "z")]);
        assert!(shape.is_success(404) && !shape.is_success(200));
        let permanent = [409, 503, 500].map(|status| shape.is_permanent(status));
        assert_eq!(permanent, [Some(false), Some(false), None]);
        assert_eq!(shape.timeout(), Some(Duration::from_secs(5)));
        let usual = Shape::of(None, &target);
        assert_eq!(
            (usual.method(), usual.body(), usual.is_permanent(503)),
            (Method::Put, BodyKind::Task, Some(true))
        );
        assert!(usual.is_success(204) && !usual.is_success(302));
    }

    #[test]
    fn settings_that_contradict_themselves_or_their_target_are_refused_with_the_repair() {
        for (yaml, is_http, part) in [
            ("{path: no-slash}", true, "begin with /"),
            ("{path: '/a?b=c'}", true, "goes under `query`"),
            ("{path: '/a/../b'}", true, "no segment"),
            ("{path: '/a/%2E%2e/b'}", true, "no segment"),
            ("{method: GET, body: task}", true, "GET request has no body"),
            ("{permanent: [5xx], retryable: [503]}", true, "5xx is both"),
            ("{success: [404], permanent: [4xx]}", true, "both `success` and `permanent`"),
            ("{timeout: 0s}", true, "more than 0s"),
            ("{timeout: 25h}", true, "more than 0s"),
            ("{reply: none}", true, "leave it out"),
            ("{method: GET}", false, "method is for targets with `http`"),
            ("{success: [200]}", false, "success is for targets with `http`"),
        ] {
            let result = settings(yaml).check(is_http);
            let message = result.expect_err(yaml).to_string();
            assert!(message.contains(part), "{yaml}: {message}");
        }
        assert_eq!(settings("{permanent: [409], retryable: [404], reply: none}").check(false), Ok(()));
        assert!(serde_saphyr::from_str::<RequestSettings>("{path: '/{parametrs.a}'}").is_err());
    }
}
