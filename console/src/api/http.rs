//! The verbs over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::{Body as HttpBody, to_bytes},
    extract::{FromRequestParts, Query, RawPathParams, Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    routing::{MethodFilter, MethodRouter},
};
use futures::{FutureExt, Stream, StreamExt};
use serde_json::Value;
use shared::{
    clock::SharedClock,
    limits::{CONSOLE_REQUEST_WAIT, CONSOLE_RUN_WAIT_MAX, CONSOLE_STREAM_SIGN},
};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Body, Call},
    kinds,
    parameter::Place,
    problem::Problem,
    state::Api,
    table,
    verb::{Answer, Event, Events, Method, Run, Verb},
};
use crate::server::Peer;

/// All verbs, each at its path.
pub fn routes(api: Arc<Api>) -> Router {
    let mut paths: BTreeMap<&str, MethodRouter<Arc<Api>>> = BTreeMap::new();
    for verb in table::all() {
        let route = paths.remove(verb.path).unwrap_or_default();
        let handler = move |State(api): State<Arc<Api>>, request: Request| answer(api, verb, request);
        paths.insert(verb.path, route.on(filter(verb.method), handler));
    }
    let mut router = Router::new();
    for (path, route) in paths {
        router = router.route(path, route);
    }
    router.with_state(api)
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Put => MethodFilter::PUT,
        Method::Post => MethodFilter::POST,
        Method::Delete => MethodFilter::DELETE,
    }
}

async fn answer(api: Arc<Api>, verb: &'static Verb, request: Request) -> Response<HttpBody> {
    let clock = api.clock().clone();
    let wait = CONSOLE_REQUEST_WAIT + CONSOLE_RUN_WAIT_MAX;
    // What panics is a fault of ours, and says so instead of an empty connection.
    let answering = std::panic::AssertUnwindSafe(answer_in_time(api, verb, request)).catch_unwind();
    let answered = tokio::select! {
        answered = answering => answered,
        () = clock.sleep(wait) => Ok(Err(Problem::new(&kinds::TIMED_OUT, format!("no answer within {} s", wait.as_secs())))),
    };
    let internal = |_| {
        tracing::error!(verb = verb.id, "`{}` panicked", verb.id);
        Err(Problem::new(&kinds::INTERNAL, "the console's log says more"))
    };
    answered.unwrap_or_else(internal).unwrap_or_else(|problem| problem.response())
}

async fn answer_in_time(
    api: Arc<Api>,
    verb: &'static Verb,
    request: Request,
) -> Result<Response<HttpBody>, Problem> {
    let place = Arc::clone(&api.requests).try_acquire_owned().map_err(|_| {
        Problem::new(&kinds::BUSY, "the console works on as many requests as it may; try again in a moment")
    })?;
    let clock = api.clock().clone();
    let mut call = tokio::select! {
        call = read(verb, request) => call?,
        () = clock.sleep(CONSOLE_REQUEST_WAIT) => {
            let words = format!("the body did not come within {} s", CONSOLE_REQUEST_WAIT.as_secs());
            return Err(Problem::new(&kinds::TIMED_OUT, words));
        }
    };
    call.place = Some(place);
    if !verb.is_from_memory() {
        api.reached().await?;
    }
    match verb.run {
        Run::Once(run) => run(api, call).await.map(written),
        Run::Stream(run) => {
            let stream_place = Arc::clone(&api.event_streams).try_acquire_owned().map_err(|_| {
                Problem::new(
                    &kinds::BUSY,
                    "the console serves as many streams as it may; close one, or try again",
                )
            })?;
            drop(call.place.take());
            let (stop, clock) = (api.stop.clone(), api.clock().clone());
            let events = run(api, call).await?;
            let lines = lines_of(events, clock, stop).map(move |line| {
                // Held for as long as the stream is read.
                let _held = &stream_place;
                Ok::<_, std::convert::Infallible>(line)
            });
            let mut response = Response::new(HttpBody::from_stream(lines));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            Ok(response)
        }
    }
}

async fn read(verb: &'static Verb, request: Request) -> Result<Call, Problem> {
    let (mut parts, body) = request.into_parts();
    let by = parts
        .extensions
        .get::<Peer>()
        .map_or_else(|| "http".to_owned(), |peer| format!("http {}", peer.0.ip()));
    let mut given = Vec::new();
    let bad = |error: &dyn std::fmt::Display| Problem::new(&kinds::BAD_REQUEST, error.to_string());
    let path = <RawPathParams as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
    let path = path.map_err(|error| bad(&error))?;
    given.extend(path.iter().map(|(name, value)| (Place::Path, name.to_owned(), value.to_owned())));
    let Query(query): Query<Vec<(String, String)>> =
        Query::try_from_uri(&parts.uri).map_err(|error| bad(&error))?;
    given.extend(query.into_iter().map(|(name, value)| (Place::Query, name, value)));
    for parameter in verb.parameters.iter().filter(|parameter| parameter.place == Place::Header) {
        for value in parts.headers.get_all(parameter.name) {
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                Problem::new(&kinds::BAD_PARAMETER, format!("header {} is not UTF-8", parameter.name))
                    .at(parameter.name)
            })?;
            given.push((Place::Header, parameter.name.to_owned(), value.to_owned()));
        }
    }
    let body = read_body(verb, &parts.headers, body).await?;
    Call::read(verb, given, body, by)
}

async fn read_body(verb: &Verb, headers: &HeaderMap, body: HttpBody) -> Result<Body, Problem> {
    let bytes_max = verb.body.map_or(0, |body| body.bytes_max);
    let bytes = to_bytes(body, bytes_max).await.map_err(|_| {
        let words = match verb.body {
            Some(_) => {
                format!("the body has more than the {bytes_max} bytes that are read here, or broke off")
            }
            None => "this operation reads no body; send none".to_owned(),
        };
        Problem::new(&kinds::TOO_LARGE, words)
    })?;
    let Some(expected) = verb.body else { return Ok(Body::default()) };
    if bytes.is_empty() && expected.is_optional {
        return Ok(Body::default());
    }
    if bytes.is_empty() {
        return Err(Problem::new(
            &kinds::BAD_BODY,
            "the body is empty; `/openapi.json` has what it is to be",
        ));
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_yaml = ["application/yaml", "application/x-yaml", "text/yaml"].contains(&kind.as_str());
    if kind == "application/json" || (is_yaml && expected.is_yaml_read) {
        return Ok(Body { bytes, is_yaml });
    }
    let also = if expected.is_yaml_read { " or application/yaml" } else { "" };
    let shown: String = given.chars().take(64).collect();
    Err(Problem::new(
        &kinds::UNSUPPORTED_MEDIA,
        format!("Content-Type is {shown:?}; send application/json{also}"),
    ))
}

fn written(answer: Answer) -> Response<HttpBody> {
    let Answer { status, body, revision, location, has_waited } = answer;
    let bytes = body.map(|body: Value| serde_json::to_vec(&body).unwrap_or_default());
    let has_body = bytes.is_some();
    let mut response = Response::new(bytes.map_or_else(HttpBody::empty, HttpBody::from));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if has_body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(tag) = revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok()) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(place) = location.and_then(|path| HeaderValue::from_str(&path).ok()) {
        headers.insert(header::LOCATION, place);
    }
    if has_waited {
        headers.insert("preference-applied", HeaderValue::from_static("wait"));
    }
    response
}

/// Events as they are written, with a sign of life while there are none. Ends when the console stops.
fn lines_of(events: Events, clock: SharedClock, stop: CancellationToken) -> impl Stream<Item = String> {
    let opening = futures::stream::iter([": the stream begins\n\n".to_owned()]);
    let rest = futures::stream::unfold((events, clock, stop), |(mut events, clock, stop)| async move {
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            event = events.next() => line_of(&event?),
            () = clock.sleep(CONSOLE_STREAM_SIGN) => ": still here\n\n".to_owned(),
        };
        Some((line, (events, clock, stop)))
    });
    opening.chain(rest)
}

fn line_of(event: &Event) -> String {
    let id = event.id.as_ref().map(|id| format!("id: {id}\n")).unwrap_or_default();
    // JSON is one line: a line break in it is written as \n.
    format!("{id}event: {}\ndata: {}\n\n", event.kind, event.data)
}
