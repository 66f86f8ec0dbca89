//! Who is let in, and from where. Pure: of a request's headers and the settings.
//!
//! Three doors. `Host` must be this machine: a page of a foreign name that was made to lead to this address (DNS rebinding) sends its own
//! name. `Origin` must be this console wherever something is changed or followed: a page of another site may send, and must not be heard.
//! And where the settings have a token, it must be presented.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};

use crate::{
    api::{kinds, problem::Problem},
    settings::Token,
};

/// Checks that a request is meant for this console.
pub(super) fn check_host(headers: &HeaderMap, names: &[String], is_loopback: bool) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if host.is_empty() || hosts.next().is_some() {
        return Err(Problem::new(&kinds::BAD_REQUEST, "a request has one Host header"));
    }
    let name = without_port(host);
    let is_named = names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let is_address = |text: &str| {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        text.parse::<IpAddr>().is_ok_and(|address| !is_loopback || address.is_loopback())
    };
    // No name leads to an address that is written out, so there is nothing to rebind.
    if is_named || name.eq_ignore_ascii_case("localhost") || is_address(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    let words = format!(
        "Host is {shown:?}, which is not this console; use its address, or start it with --name {shown} \
         (CRONFLEET_CONSOLE_NAMES) if it is to be reached under that name"
    );
    Err(Problem::new(&kinds::FOREIGN_HOST, words))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Checks that what changes or follows something was not sent for another site's page.
pub(super) fn check_origin(method: &Method, headers: &HeaderMap, is_stream: bool) -> Result<(), Problem> {
    if (method == Method::GET || method == Method::HEAD) && !is_stream {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let refuse = |what: String| Err(Problem::new(&kinds::FOREIGN_ORIGIN, what));
    if let Some(origin) = text("origin") {
        let host = text("host").unwrap_or_default();
        let is_ours = origin.split_once("://").is_some_and(|(scheme, rest)| {
            (scheme == "http" || scheme == "https") && rest.eq_ignore_ascii_case(host)
        });
        let shown: String = origin.chars().take(64).collect();
        return if is_ours {
            Ok(())
        } else {
            refuse(format!("Origin is {shown:?}, and the request is for {host:?}"))
        };
    }
    // Browsers that send no Origin say where it comes from in this way.
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(site) => refuse(format!("Sec-Fetch-Site is {site:?}")),
    }
}

/// Checks the token, where there is one.
pub(super) fn check_token(headers: &HeaderMap, token: Option<&Token>) -> Result<(), Problem> {
    let Some(token) = token else { return Ok(()) };
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let presented = given.next().and_then(|value| value.to_str().ok()).and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match presented {
        Some(presented) if token.is(presented) && given.next().is_none() => Ok(()),
        Some(_) => {
            Err(Problem::new(&kinds::UNAUTHORIZED, "the token is not the one in the console's settings"))
        }
        None => Err(Problem::new(
            &kinds::UNAUTHORIZED,
            "no token was presented; send `Authorization: Bearer TOKEN` with the one in the console's settings",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("value"));
        }
        map
    }

    #[test]
    fn a_foreign_name_that_leads_here_is_told_from_this_machine() {
        let names = ["cronfleet.example".to_owned()];
        for (host, is_loopback, is_let_in) in [
            ("127.0.0.1:8640", true, true),
            ("localhost", true, true),
            ("LOCALHOST:1", true, true),
            ("[::1]:8640", true, true),
            ("cronfleet.example:443", true, true),
            ("evil.example", true, false),
            ("evil.example:8640", true, false),
            ("127.0.0.1.evil.example", true, false),
            ("localhost.evil.example", true, false),
            ("192.0.2.1:8640", true, false),
            ("192.0.2.1:8640", false, true),
            ("evil.example", false, false),
        ] {
            let checked = check_host(&headers(&[("host", host)]), &names, is_loopback);
            assert_eq!(checked.is_ok(), is_let_in, "{host}");
        }
        assert_eq!(check_host(&headers(&[]), &names, true).expect_err("none").kind.status, 400);
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(check_host(&twice, &names, true).expect_err("two").kind.status, 400);
    }

    #[test]
    fn a_page_of_another_site_may_neither_change_nor_follow() {
        let post = Method::POST;
        let host = ("host", "localhost:8640");
        for (pairs, is_let_in) in [
            (vec![host], true),
            (vec![host, ("origin", "http://localhost:8640")], true),
            (vec![host, ("origin", "https://localhost:8640")], true),
            (vec![host, ("origin", "http://localhost:9999")], false),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "same-site")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
        ] {
            assert_eq!(check_origin(&post, &headers(&pairs), false).is_ok(), is_let_in, "{pairs:?}");
            assert_eq!(check_origin(&Method::GET, &headers(&pairs), true).is_ok(), is_let_in, "{pairs:?}");
            assert!(
                check_origin(&Method::GET, &headers(&pairs), false).is_ok(),
                "reading is the browser's matter"
            );
        }
    }

    #[test]
    fn a_token_is_presented_as_bearer_and_once() {
        let token = Token::parse("0123456789abcdef").expect("token");
        let check = |pairs: &[(&'static str, &str)]| check_token(&headers(pairs), Some(&token)).is_ok();
        assert!(check(&[("authorization", "Bearer 0123456789abcdef")]));
        assert!(check(&[("authorization", "bearer  0123456789abcdef")]));
        for wrong in ["Bearer 0123456789abcdeX", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer "] {
            assert!(!check(&[("authorization", wrong)]), "{wrong}");
        }
        let good = ("authorization", "Bearer 0123456789abcdef");
        assert!(!check(&[good, good]) && !check(&[]));
        assert!(check_token(&headers(&[]), None).is_ok());
    }
}
