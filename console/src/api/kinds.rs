//! The kinds of problems: each has a name that never changes, and a page that says what it means and what to do.

use std::fmt::Write as _;

/// A kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The end of its `type`.
    pub name: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// In a few words.
    pub title: &'static str,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub repair: &'static str,
}

impl Kind {
    /// Its `type`: a path that the console serves.
    pub fn path(&self) -> String {
        format!("/problems/{}", self.name)
    }
}

macro_rules! kinds {
    ($($constant:ident: $status:literal $name:literal $title:literal $means:literal $repair:literal)*) => {
        $(
            #[doc = $title]
            pub static $constant: Kind =
                Kind { name: $name, status: $status, title: $title, means: $means, repair: $repair };
        )*
        /// All of them, by their status.
        pub static ALL: &[&Kind] = &[$(&$constant),*];
    };
}

kinds! {
    BAD_PARAMETER: 400 "bad-parameter" "A parameter cannot be understood"
        "A parameter of the path, the query or a header is none of this operation, or its value is not of its kind. `field` names it."
        "Write the parameter as `detail` says; `/openapi.json` lists those of each operation."
    BAD_REQUEST: 400 "bad-request" "The request cannot be understood"
        "The request itself is not well formed: its path is not UTF-8, or it has no Host."
        "Use an HTTP/1.1 client, and percent-encode what is not a letter, a digit or one of - . _ ~ in a path."
    UNAUTHORIZED: 401 "unauthorized" "No token, or a wrong one"
        "This console asks for a bearer token, because it has one in its settings."
        "Send `Authorization: Bearer TOKEN` with the token of the console's settings (CRONFLEET_CONSOLE_TOKEN or --token-file)."
    FOREIGN_ORIGIN: 403 "foreign-origin" "The request comes from another site's page"
        "A browser sent it for a page that this console did not serve. Such a page may neither change nor follow anything."
        "Use the console's own page, or a client that is no browser. A proxy must pass `Host` on as the browser sent it."
    NOT_FOUND: 404 "not-found" "There is no such path"
        "Nothing is served at this path."
        "`/openapi.json` lists all paths; they begin with /api/v1/."
    UNKNOWN: 404 "unknown" "There is no such thing"
        "The path is right, and what it names is not in the fleet: a schedule, run, queue, worker, target or calendar. `detail` says which \
         one may be meant."
        "Correct the name, or list what there is."
    METHOD_NOT_ALLOWED: 405 "method-not-allowed" "This path has no such method"
        "The path is served, but not with this method. `Allow` lists those it has."
        "Use one of the methods in `Allow`."
    CONFLICT: 409 "conflict" "It is not in a state for this"
        "What was asked does not go with how things are: a run has ended already, or another one of its schedule is queued or running."
        "Look at it anew and decide; `detail` says what is in the way and what to do instead."
    CHANGED_MEANWHILE: 409 "changed-meanwhile" "Somebody else wrote it in this very moment"
        "Two wrote at once, and this request came second. Nothing was changed by it."
        "Ask again."
    LOST_UPDATE: 412 "lost-update" "It is not as you know it any more"
        "`If-Match` names a revision that is not the newest, or `If-None-Match: *` was sent and it exists. Nothing was changed."
        "Read it again, look at what others changed, and write over the new ETag."
    TOO_LARGE: 413 "too-large" "The body is too large"
        "The body has more bytes than this operation reads."
        "Send less: split a file of definitions, pass a reference instead of the data."
    URI_TOO_LONG: 414 "uri-too-long" "The path and query are too long"
        "The path with its query has more bytes than are read."
        "Leave out filters, or ask several times."
    UNSUPPORTED_MEDIA: 415 "unsupported-media-type" "The body is of a kind that is not read here"
        "`Content-Type` is missing, or is none of those this operation reads."
        "Send JSON as `application/json`; definitions also as `application/yaml`."
    FOREIGN_HOST: 421 "foreign-host" "The request is meant for another host"
        "`Host` is neither this machine nor a name in the console's settings. So it would be if a foreign name led to this address."
        "Use the address itself, or start the console with `--name NAME` (CRONFLEET_CONSOLE_NAMES)."
    BAD_BODY: 422 "bad-body" "The body cannot be understood"
        "The body is not JSON, has a field that is none of its fields, or a value that is not of its kind. `field` names it."
        "Correct it as `detail` says; `/openapi.json` has its schema."
    BAD_DEFINITION: 422 "bad-definition" "The definition cannot be followed"
        "A definition is not of the file format, or refers to what is neither in it nor in the fleet. Nothing was written."
        "Correct it as `detail` says, with its place; `dry_run=true` and `preview` show what it means before it is written."
    BAD_TASK: 422 "bad-task" "The task cannot be executed"
        "The task is not of the shape of tasks, its queue is not declared, or it does not go with its target. Nothing was submitted."
        "Correct it as `detail` says."
    KEY_REUSED: 422 "idempotency-key-reused" "This Idempotency-Key stands for another request"
        "The same key came before with another body. Which of the two is meant cannot be known, so nothing was done."
        "Use a new key for a new request, and the same key only to repeat the same request."
    BUSY: 429 "too-many-requests" "Too much at once"
        "The console works on as many requests, or serves as many streams, as it may."
        "Try again after the seconds in `Retry-After`; open fewer streams, with filters."
    HEADERS_TOO_LARGE: 431 "headers-too-large" "The headers are too large"
        "All headers together have more bytes than are read."
        "Leave out headers, such as cookies of other services on the same host."
    INTERNAL: 500 "internal" "A fault of the console's own"
        "Something in the console went wrong that should not. Whether the request was carried out is not known."
        "Look at the console's log and report it; repeat the request with the same Idempotency-Key."
    UNREADABLE: 500 "unreadable" "What is stored cannot be understood"
        "A value in the fleet was written by another version, or by hand, and cannot be understood."
        "`cronfleet doctor` says more; write it anew."
    UNAVAILABLE: 503 "unavailable" "NATS does not answer, or takes nothing"
        "The server did not answer in time, has no leader just now, or its stream is full. Whether a write went through is not known."
        "Ask again, with the same Idempotency-Key where there is one; `/readyz` and `cronfleet doctor` say more."
    NOT_SET_UP: 503 "not-set-up" "The fleet is not set up"
        "A stream or bucket of the fleet does not exist."
        "Run `cronfleet init`, which creates what is missing."
    NOT_READY: 503 "not-ready" "The console is not ready"
        "The console has not read yet what it answers from. `detail` says what it waits for."
        "Try again in a moment."
    TIMED_OUT: 503 "timed-out" "It took too long"
        "The request was not answered in the time a request may take, or its body did not come. Whether it was carried out is not known."
        "Ask again, with the same Idempotency-Key where there is one; ask for less."
}

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.name == name).copied()
}

/// The page of all kinds, as it is checked in.
pub fn page() -> String {
    let mut page = String::from(
        "# Problems\n\nGenerated from `console/src/api/kinds.rs`; a test compares them. What the console answers when something is wrong is \
         `application/problem+json` (RFC 9457): `type` is one of these paths and never changes, `status` the HTTP status, `detail` names the \
         value, the rule and the repair, and `field` the parameter or field. Over NATS the same is in the header `Cronfleet-Problem`.\n",
    );
    for kind in ALL {
        let Kind { name, status, title, means, repair } = kind;
        let _ = write!(
            page,
            "\n## {name}\n\n`{}`, status {status}: {title}.\n\n{means}\n\nRepair: {repair}\n",
            kind.path()
        );
    }
    page
}

/// The page of one kind, as the console serves it.
pub fn html(kind: &Kind) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title><h1>{status}: {title}</h1><p>{means}</p>\
         <p>{repair}</p></html>\n",
        name = kind.name,
        status = kind.status,
        title = escape(kind.title),
        means = escape(kind.means),
        repair = escape(kind.repair)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_says_what_to_do() {
        for kind in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
            assert!((400..600).contains(&kind.status), "{}", kind.name);
            assert!(kind.means.ends_with('.') && kind.repair.ends_with('.'), "{}", kind.name);
            assert!(page().contains(&kind.path()) && html(kind).contains("<h1>"));
        }
        assert_eq!(find("lost-update").map(|kind| kind.status), Some(412));
        assert_eq!(find("nothing"), None);
    }
}
