//! The request of an attempt: made out of the task by what its target declares, and changed by where a redirect leads.

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use shared::{
    connection::HeaderText,
    limits::URL_BYTES_MAX,
    request::{BodyKind, Shape},
    run_record::ErrorKind,
    target::Target,
    template::{TemplateError, escaped},
};

use crate::executors::{
    Attempt, Failure,
    secrets::{Secrets, SecretsFolder},
};

/// A request that can be sent, again and elsewhere.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Which attempt of which run it is.
    identity: HeaderMap,
    /// What the target's declaration adds, for the target alone.
    declared: HeaderMap,
    body: Bytes,
}

/// What is wrong with a task, of whatever its target would make a request of it.
pub(super) fn unfit(error: &TemplateError) -> Failure {
    Failure::permanent(ErrorKind::Request, format!("the request cannot be made: {error}"))
}

/// The URL of a place and a query.
pub(super) fn url_of(place: &str, query: &[(String, String)]) -> Result<Url, Failure> {
    let mut url: Url = place.parse().map_err(|error| {
        Failure::permanent(
            ErrorKind::UnknownTarget,
            format!("{place} is not a URL ({error}); mend the target's `http:` or `path:` and apply"),
        )
    })?;
    if !query.is_empty() {
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        url.set_query(Some(&pairs.join("&")));
    }
    if url.as_str().len() > URL_BYTES_MAX {
        let words = format!(
            "the URL of the request has {} bytes; at most {URL_BYTES_MAX} are sent: hand the data over in the body",
            url.as_str().len()
        );
        return Err(Failure::permanent(ErrorKind::Request, words));
    }
    Ok(url)
}

impl Outgoing {
    /// The request of an attempt to this place.
    pub(super) fn of(
        attempt: &Attempt,
        target: &Target,
        shape: &Shape<'_>,
        place: &str,
        declared: HeaderMap,
    ) -> Result<Self, Failure> {
        let values = attempt.template_values();
        let query =
            shape.query().into_iter().map(|(name, value)| Ok((name.to_owned(), value.fill(&values)?)));
        let query = query.collect::<Result<Vec<_>, _>>().map_err(|error| unfit(&error))?;
        let (url, mut identity) = (url_of(place, &query)?, header_map(attempt.headers()));
        let body = match shape.body() {
            BodyKind::Task => attempt.body().into(),
            BodyKind::Parameters => serde_json::to_vec(&attempt.task.parameters).unwrap_or_default().into(),
            BodyKind::None => Bytes::new(),
        };
        if shape.body() != BodyKind::None {
            identity.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if body.len() > target.max_request_bytes {
            let words = format!(
                "the body of the request has {} bytes; the target takes at most {}: pass a reference instead of the data",
                body.len(),
                target.max_request_bytes
            );
            return Err(Failure::permanent(ErrorKind::Request, words));
        }
        let method = Method::from_bytes(shape.method().as_str().as_bytes()).unwrap_or(Method::POST);
        Ok(Self { method, url, identity, declared, body })
    }

    /// The request, for a client.
    pub(super) fn on(&self, client: &Client) -> RequestBuilder {
        let request = client.request(self.method.clone(), self.url.clone()).headers(self.identity.clone());
        // After the others, so that a target may be told another content type.
        let request = request.headers(self.declared.clone());
        if self.body.is_empty() { request } else { request.body(self.body.clone()) }
    }

    /// The request as it goes on to another place. Whether that is still the target's own.
    pub(super) fn redirected(self, status: u16, to: Url) -> (Self, bool) {
        let is_own = to.origin() == self.url.origin();
        let declared = if is_own { self.declared } else { HeaderMap::new() };
        let keeps_method = matches!(status, 307 | 308) || matches!(self.method, Method::GET | Method::HEAD);
        let next = Self { url: to, declared, ..self };
        if keeps_method {
            return (next, is_own);
        }
        let mut identity = next.identity;
        identity.remove(CONTENT_TYPE);
        (Self { method: Method::GET, body: Bytes::new(), identity, ..next }, is_own)
    }
}

/// Headers of our own, as a request has them.
pub(super) fn header_map(headers: Vec<(&'static str, String)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // Only a broken trace context can fail here, and tracing never stands in the way of a run.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
        {
            map.insert(name, value);
        }
    }
    map
}

/// The headers that a target's declaration asks for, and what must not be written down of them.
pub(super) async fn declared_headers(
    target: &Target,
    folder: &SecretsFolder,
) -> Result<(HeaderMap, Secrets), Failure> {
    let (mut map, mut secrets) = (HeaderMap::new(), Secrets::default());
    for (name, value) in &target.headers {
        let value = match value {
            HeaderText::Text(text) => HeaderValue::from_str(text).ok(),
            HeaderText::Secret(secret) => Some(secrets.read(name, secret, folder).await?),
        };
        // Both were checked when the target was declared.
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            map.insert(name, value);
        }
    }
    Ok((map, secrets))
}
