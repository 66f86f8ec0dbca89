//! `Retry-After`: how long a target asks to be left alone, in the forms HTTP knows (RFC 9110, 10.2.3 and 5.6.7).

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use shared::{Timestamp, limits};

/// The wait that is asked for, clamped to the longest backoff; none if it is neither seconds nor a date.
pub(super) fn parse(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds is longer than any bound.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        // A date that has passed asks for no wait.
        (http_date(text)? - now).to_std().unwrap_or_default()
    };
    Some(wait.min(limits::BACKOFF_MAX))
}

/// A date as HTTP writes it: today's form, and the two old ones that a recipient must still read.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(date) = DateTime::parse_from_rfc2822(text) {
        return Some(date.to_utc());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|civil| civil.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_garbage_is_not_and_nothing_is_waited_for_longer_than_the_longest_backoff() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().expect("instant");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, wait) in [
            ("0", seconds(0)),
            (" 120 ", seconds(120)),
            ("3600", seconds(3600)),
            ("86400", Some(limits::BACKOFF_MAX)),
            ("99999999999999999999999999", Some(limits::BACKOFF_MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(37)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", seconds(37)),
            ("Sun Nov  6 08:49:37 1994", seconds(37)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(limits::BACKOFF_MAX)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 36 Nov 1994 08:49:37 GMT", None),
            ("1e9", None),
        ] {
            assert_eq!(parse(text, now), wait, "{text:?}");
        }
    }
}
