//! What a target answers: read up to a bound, and no further.

use std::time::Duration;

use reqwest::{
    Response, Url,
    header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
};
use shared::{clock::SharedClock, run_record::ErrorKind};

use crate::executors::{
    Failure,
    answer::{quoted, too_large, with_causes},
    retry_after,
};

/// Bytes that are read of an answer that is an error: enough for what a message quotes.
const ERROR_BODY_BYTES_MAX: usize = 4 * 1024;
/// How long the body of an error is waited for; its status has said what matters.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(2);

pub(super) fn unreachable(place: &str, error: reqwest::Error) -> Failure {
    let repair = if error.is_connect() {
        "is the service running, and is its address right?"
    } else {
        "the service may have acted on the request; it is told so by the Idempotency-Key"
    };
    // The place is named once, by us.
    let causes = with_causes(&error.without_url());
    Failure::retryable(ErrorKind::Unreachable, format!("{place} did not answer: {causes}; {repair}"))
}

/// Reads an answer to its end, or up to the bound. The bound counts what it is unpacked to, so that a small answer that grows
/// without end is left where a large one is.
pub(super) async fn whole_body(
    mut response: Response,
    place: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, Failure> {
    // What it announces decides early; what it sends decides in any case.
    let announced =
        response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large(place, bytes_max));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(place, error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(place, bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads as much of an error's body as a message quotes, and waits for it only briefly.
pub(super) async fn beginning_of_body(mut response: Response, clock: &SharedClock) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BODY_BYTES_MAX - body.len())]);
            if body.len() == ERROR_BODY_BYTES_MAX {
                break;
            }
        }
    };
    // Late or broken: then the status alone is the message.
    tokio::select! {
        () = reading => {}
        () = clock.sleep(ERROR_BODY_WAIT) => {}
    }
    body
}

/// Where a redirect leads, if it may be followed there.
pub(super) fn next_place(from: &Url, status: u16, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) else {
        return Ok(None);
    };
    let Ok(mut to) = from.join(location) else { return Ok(None) };
    // Whoever answers does not choose with which name and password we go on.
    let _ = to.set_username("").and_then(|()| to.set_password(None));
    to.set_fragment(None);
    let refused = |why| {
        let words = format!(
            "{} answered {status} and points to {}, {why}; write the final address into the target's `http:` and apply",
            spoken(from),
            spoken(&to)
        );
        Err(Failure::permanent(ErrorKind::Target, words))
    };
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(to)),
        ("https", "http") => refused("which is not encrypted: it is not followed there"),
        _ => refused("which is not HTTP: it is not followed there"),
    }
}

/// A URL as it may stand in a record: a query may hold what should not.
fn spoken(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// A redirect is not followed: the target was declared, its new place was not, and it could be any address at all.
pub(super) fn redirected(place: &str, status: u16, headers: &HeaderMap, allowed: u8) -> Failure {
    let location = headers.get(LOCATION).map(|value| quoted(value.as_bytes())).unwrap_or_default();
    // A query may hold what should not be in a record.
    let location =
        location.split(['?', '#']).next().filter(|text| !text.is_empty()).unwrap_or("an unnamed place");
    let rule = match allowed {
        0 => "redirects are not followed".to_owned(),
        allowed => format!("no more than {allowed} redirects are followed"),
    };
    Failure::permanent(
        ErrorKind::Target,
        format!(
            "{place} answered {status} and points to {location}; {rule}: write the final address into the target's `http:` and apply"
        ),
    )
}

/// How long the target asks to be left alone. A date is compared with the target's own, if it sends one.
pub(super) fn retry_after_of(headers: &HeaderMap, clock: &SharedClock) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let now = text(DATE).and_then(retry_after::http_date).unwrap_or_else(|| clock.now());
    retry_after::parse(text(RETRY_AFTER)?, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointing_to(place: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(place))])
    }

    #[test]
    fn the_place_a_redirect_points_to_is_named_without_its_query() {
        let failure =
            redirected("http://here", 302, &pointing_to("http://169.254.169.254/meta?token=secret"), 0);
        assert!(failure.permanent);
        assert!(failure.error.message.contains("http://169.254.169.254/meta;"), "{}", failure.error.message);
        assert!(!failure.error.message.contains("secret"));
        let nowhere = redirected("http://here", 302, &HeaderMap::new(), 3);
        assert!(nowhere.error.message.contains("unnamed"), "{}", nowhere.error.message);
        assert!(nowhere.error.message.contains("no more than 3"), "{}", nowhere.error.message);
    }

    #[test]
    fn a_redirect_leads_neither_out_of_tls_nor_out_of_http_and_brings_no_password() {
        for (from, location, next) in [
            ("http://a/x/y", "../z", Some("http://a/z")),
            ("http://a/x", "//b/z#part", Some("http://b/z")),
            ("http://a/x", "https://b/", Some("https://b/")),
            ("https://a/x", "http://u:p@b/?token=secret", None),
            ("http://a/x", "file:///etc/passwd", None),
            ("http://a/x", "ftp://a/x", None),
            ("http://a/x", "http://u:p@b/z", Some("http://b/z")),
        ] {
            let from: Url = from.parse().expect("a URL");
            let found = next_place(&from, 302, &pointing_to(location));
            if let Some(next) = next {
                assert_eq!(found.map(|url| url.map(String::from)), Ok(Some(next.to_owned())), "{location}");
            } else {
                let failure = found.expect_err(location);
                assert!(failure.permanent && !failure.error.message.contains("secret"), "{failure:?}");
            }
        }
        let from: Url = "http://a/x".parse().expect("a URL");
        for (status, headers) in
            [(304, pointing_to("/y")), (302, HeaderMap::new()), (302, pointing_to("http://["))]
        {
            assert_eq!(next_place(&from, status, &headers), Ok(None));
        }
    }
}
