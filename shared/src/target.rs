//! A target: a service that tasks act on.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::address::Address;
use crate::{
    address::address_of,
    callback::AsyncSettings,
    connection::{ConnectionError, HeaderText, TlsSettings, check_headers},
    human_duration::HumanDuration,
    limit::{KeyLimit, Rate},
    limits::{
        ACTIONS_MAX, CONNECT_TIMEOUT_DEFAULT, CONNECT_TIMEOUT_MAX, PAUSE_REASON_CHARS_MAX, REDIRECTS_MAX,
        REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX,
    },
    names::ActionName,
    request::{BodyKind, Method, Reply, RequestError, RequestSettings, Shape, check_path},
    statuses::Statuses,
    template::{Template, TemplateError, TemplateValues},
};

/// What becomes of a run whose target is found wanting before an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precheck {
    /// The attempt is spent, and the run tried again as its retry policy says.
    #[default]
    Retry,
    /// The run ends CANCELLED with reason `precheck`.
    Skip,
}

/// A service that tasks act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TargetFields", into = "TargetFields")]
pub struct Target {
    /// How it is reached.
    pub address: Address,
    /// How its actions are asked for.
    pub request: RequestSettings,
    /// The actions that are asked for in another way.
    pub actions: BTreeMap<ActionName, RequestSettings>,
    /// What every request over HTTP carries.
    pub headers: BTreeMap<String, HeaderText>,
    /// How TLS is spoken with it.
    pub tls: TlsSettings,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// Redirects that are followed, at most.
    pub redirects: u8,
    /// Bytes of a request's body, at most.
    pub max_request_bytes: usize,
    /// Bytes of an answer that are read, at most.
    pub max_response_bytes: usize,
    /// Path of the health check below an HTTP address; asked before an attempt.
    pub health: Option<String>,
    /// Whether it may be asked at all.
    pub enabled: bool,
    /// Why it may not.
    pub reason: Option<String>,
    /// What becomes of a run when it is found wanting, if the task does not say.
    pub precheck: Option<Precheck>,
    /// Attempts at this target at once, over all workers.
    pub max_concurrent: Option<NonZeroU32>,
    /// Attempts at this target in a time, over all workers.
    pub rate: Option<Rate>,
    /// Attempts at once for one value of a key, over all workers.
    pub limit: Option<KeyLimit>,
}

/// A target as it is written in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Target")]
pub struct TargetFields {
    /// Base URL; the action is appended as `/actions/<action>` unless `path` says else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Subject prefix; a request goes to `<prefix>.<action>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Name of a NATS micro service. A request goes to its endpoint of the action's name, or to the one whose subject ends
    /// with the action or a `*`; where that is, its instances say themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The method of a request; POST by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Path of an action below the base URL. Default `/actions/{action}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Template>,
    /// The query: names and their values. What is put in is escaped.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub query: BTreeMap<String, Template>,
    /// What a request's body holds; by default the task, and nothing with GET and HEAD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyKind>,
    /// The statuses that mean success; all 2xx by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<Statuses>,
    /// The statuses after which no other attempt is made, beside those that are permanent by default (4xx but 408, 425 and 429).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permanent: Vec<Statuses>,
    /// The statuses that another attempt may mend, beside those of which that is believed by default (5xx, 408, 425, 429).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retryable: Vec<Statuses>,
    /// How long the target has to answer, if that is less than the task's own timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// The target may answer 202 and say later how the run ended, to the place that the request's headers name: how long
    /// that may take.
    #[serde(rename = "async", skip_serializing_if = "Option::is_none")]
    pub later: Option<AsyncSettings>,
    /// For `message` and `service`: whether an answer is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// The actions that are asked for in another way: by name, what is different.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub actions: BTreeMap<ActionName, RequestSettings>,
    /// Headers of every request: a text, or `{env: CRONFLEET_SECRET_NAME}` or `{file: NAME}`, which the worker reads.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub headers: BTreeMap<String, HeaderText>,
    /// How TLS is spoken with a target whose URL begins with https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// How long a connection may take to come about: up to 1m, default 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<HumanDuration>,
    /// Redirects that are followed, at most: 0 to 10, default 0. Never from https to http; the headers above go to no other
    /// place than the target's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10))]
    pub redirects: Option<u8>,
    /// Bytes of a request's body, at most: up to 1048576, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_request_bytes: Option<usize>,
    /// Bytes of an answer that are read, after decompression: up to 1048576, which is the default. A longer one is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_response_bytes: Option<usize>,
    /// Path of the health check below the base URL; it must answer 2xx before an attempt is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Whether it may be asked at all; true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Why it may not, for the records of the runs that find it disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// What becomes of a run whose target is unhealthy or disabled, if its task does not say. Default retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precheck: Option<Precheck>,
    /// Attempts at this target at once, over all workers. It counts requests, not what they started: a target that answers later has
    /// its place back at its 202. Default: no limit but the workers' places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<NonZeroU32>,
    /// Attempts at this target in a time, over all workers, evenly spread: `10/s`, or `{max: 10, per: 1s}`. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<Rate>,
    /// Attempts at once for one value of a key, over all workers: `{key: parameters.symbol, max: 1}`. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<KeyLimit>,
}

/// A target that cannot be reached as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// None of the three ways, or several.
    #[error(
        "a target has either `http` (a base URL), `message` (a subject prefix) or `service` (the name of a NATS micro service); this one has {0}"
    )]
    Ways(&'static str),
    /// Not a URL that requests can be sent to.
    #[error(
        "http is {0:?}; write a base URL with scheme and host and no query, such as http://127.0.0.1:9101"
    )]
    Url(String),
    /// Not a subject, or one that is not for targets.
    #[error("message is {text:?}; {reason}: write a subject prefix such as svc.market-data-collector")]
    Subject {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not the name of a service.
    #[error("service is {0:?}; write the name of a NATS micro service: 1 to 64 of A-Z a-z 0-9 _ -")]
    Service(String),
    /// A field that only makes sense for HTTP.
    #[error("{0} is for targets with `http`; this one is reached by messages: leave it out")]
    OnlyHttp(&'static str),
    /// How its actions are asked for.
    #[error("{place}{source}")]
    Request {
        /// Which action's settings, or nothing.
        place: String,
        /// What is wrong with them.
        source: RequestError,
    },
    /// What its connections and headers are like.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// More of something than there may be.
    #[error("{field} is {value}; it is {rule}")]
    Range {
        /// Which field.
        field: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        rule: String,
    },
    /// A reason for nothing.
    #[error(
        "reason says why a target is disabled, and this one is not: write `enabled: false`, or leave it out"
    )]
    Reason,
}

impl TryFrom<TargetFields> for Target {
    type Error = TargetError;
    fn try_from(fields: TargetFields) -> Result<Self, TargetError> {
        let address = address_of(&fields)?;
        let is_http = matches!(address, Address::Http(_));
        if let Some(field) = fields.only_for_http().filter(|_| !is_http) {
            return Err(TargetError::OnlyHttp(field));
        }
        fields.check_ranges()?;
        check_headers(&fields.headers)?;
        fields.tls.iter().try_for_each(TlsSettings::check)?;
        let in_request = |place: String| move |source| TargetError::Request { place, source };
        fields
            .health
            .iter()
            .try_for_each(|path| check_path("health", path))
            .map_err(in_request(String::new()))?;
        let request = RequestSettings {
            method: fields.method,
            path: fields.path,
            query: fields.query,
            body: fields.body,
            success: fields.success,
            permanent: fields.permanent,
            retryable: fields.retryable,
            timeout: fields.timeout,
            later: fields.later,
            reply: fields.reply,
        };
        request.check(is_http).map_err(in_request(String::new()))?;
        for (action, settings) in &fields.actions {
            settings.check(is_http).map_err(in_request(format!("actions.{action}: ")))?;
        }
        Ok(Self {
            address,
            request,
            actions: fields.actions,
            headers: fields.headers,
            tls: fields.tls.unwrap_or_default(),
            connect_timeout: fields.connect_timeout.map_or(CONNECT_TIMEOUT_DEFAULT, Duration::from),
            redirects: fields.redirects.unwrap_or(0),
            max_request_bytes: fields.max_request_bytes.unwrap_or(REQUEST_BYTES_MAX),
            max_response_bytes: fields.max_response_bytes.unwrap_or(RESPONSE_BYTES_MAX),
            health: fields.health,
            enabled: fields.enabled.unwrap_or(true),
            reason: fields.reason,
            precheck: fields.precheck,
            max_concurrent: fields.max_concurrent,
            rate: fields.rate,
            limit: fields.limit,
        })
    }
}

impl From<Target> for TargetFields {
    fn from(target: Target) -> Self {
        let (mut http, mut message, mut service) = (None, None, None);
        match target.address {
            Address::Http(url) => http = Some(url),
            Address::Message(prefix) => message = Some(prefix),
            Address::Service(name) => service = Some(name),
        }
        let request = target.request;
        Self {
            http,
            message,
            service,
            method: request.method,
            path: request.path,
            query: request.query,
            body: request.body,
            success: request.success,
            permanent: request.permanent,
            retryable: request.retryable,
            timeout: request.timeout,
            later: request.later,
            reply: request.reply,
            actions: target.actions,
            headers: target.headers,
            tls: unless_usual(target.tls, &TlsSettings::default()),
            connect_timeout: unless_usual(target.connect_timeout, &CONNECT_TIMEOUT_DEFAULT)
                .map(HumanDuration),
            redirects: unless_usual(target.redirects, &0),
            max_request_bytes: unless_usual(target.max_request_bytes, &REQUEST_BYTES_MAX),
            max_response_bytes: unless_usual(target.max_response_bytes, &RESPONSE_BYTES_MAX),
            health: target.health,
            enabled: unless_usual(target.enabled, &true),
            reason: target.reason,
            precheck: target.precheck,
            max_concurrent: target.max_concurrent,
            rate: target.rate,
            limit: target.limit,
        }
    }
}

/// A value that is worth writing.
fn unless_usual<T: PartialEq>(value: T, usual: &T) -> Option<T> {
    (value != *usual).then_some(value)
}

impl TargetFields {
    fn only_for_http(&self) -> Option<&'static str> {
        let given = [
            ("headers", !self.headers.is_empty()),
            ("tls", self.tls.is_some()),
            ("connect_timeout", self.connect_timeout.is_some()),
            ("redirects", self.redirects.is_some()),
            ("health", self.health.is_some()),
        ];
        given.into_iter().find_map(|(field, is_given)| is_given.then_some(field))
    }

    fn check_ranges(&self) -> Result<(), TargetError> {
        let range = |field, value: String, rule: String| Err(TargetError::Range { field, value, rule });
        for (field, value, max) in [
            ("max_request_bytes", self.max_request_bytes, REQUEST_BYTES_MAX),
            ("max_response_bytes", self.max_response_bytes, RESPONSE_BYTES_MAX),
        ] {
            if let Some(bytes) = value.filter(|bytes| !(1..=max).contains(bytes)) {
                return range(field, bytes.to_string(), format!("1 to {max}"));
            }
        }
        if let Some(redirects) = self.redirects.filter(|redirects| *redirects > REDIRECTS_MAX) {
            return range(
                "redirects",
                redirects.to_string(),
                format!("0 (none is followed) to {REDIRECTS_MAX}"),
            );
        }
        let is_bad = |wait: &HumanDuration| wait.0.is_zero() || wait.0 > CONNECT_TIMEOUT_MAX;
        if let Some(wait) = self.connect_timeout.filter(is_bad) {
            let rule = format!("more than 0s and at most {}", HumanDuration(CONNECT_TIMEOUT_MAX));
            return range("connect_timeout", wait.to_string(), rule);
        }
        if self.actions.len() > ACTIONS_MAX {
            return range(
                "actions",
                format!("{} of them", self.actions.len()),
                format!("at most {ACTIONS_MAX}"),
            );
        }
        match &self.reason {
            Some(_) if self.enabled != Some(false) => Err(TargetError::Reason),
            Some(reason) if reason.chars().count() > PAUSE_REASON_CHARS_MAX => {
                let rule = format!("at most {PAUSE_REASON_CHARS_MAX}");
                range("reason", format!("{} characters long", reason.chars().count()), rule)
            }
            _ => Ok(()),
        }
    }
}

impl Target {
    /// How an action is asked for.
    pub fn shape_of(&self, action: &ActionName) -> Shape<'_> {
        Shape::of(self.actions.get(action), &self.request)
    }

    /// Where this run's action is: a URL without its query, a subject, or the name of a service and its endpoint.
    pub fn place_of(&self, values: &TemplateValues<'_>) -> Result<String, TemplateError> {
        let action = values.action;
        Ok(match &self.address {
            Address::Http(base) => match self.shape_of(action).path() {
                Some(path) => format!("{base}{}", path.fill_path(values)?),
                None => format!("{base}/actions/{action}"),
            },
            Address::Message(prefix) => format!("{prefix}.{action}"),
            Address::Service(name) => format!("service {name}, {action}"),
        })
    }

    /// The URL of the health check, if one is declared.
    pub fn health_url(&self) -> Option<String> {
        match (&self.address, &self.health) {
            (Address::Http(base), Some(path)) => Some(format!("{base}{path}")),
            _ => None,
        }
    }
}

impl JsonSchema for Target {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        TargetFields::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TargetFields::json_schema(generator)
    }
}

#[cfg(test)]
mod tests;
