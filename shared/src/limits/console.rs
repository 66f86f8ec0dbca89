//! What bounds a console.

use std::time::Duration;

/// Connections a console has open at once; one more is answered 503 and closed.
pub const CONSOLE_CONNECTIONS_MAX: usize = 512;
/// Requests a console works on at once, without those that wait for the end of a run and without streams.
pub const CONSOLE_REQUESTS_MAX: usize = 128;
/// Requests of a console that wait for the end of a run, at once.
pub const CONSOLE_WAITS_MAX: usize = 256;
/// Streams of events a console serves at once.
pub const CONSOLE_STREAMS_MAX: usize = 256;
/// How long the head of a request may take to come.
pub const CONSOLE_HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a request may take, body included, without the time it waits for the end of a run.
pub const CONSOLE_REQUEST_WAIT: Duration = Duration::from_secs(30);
/// How long a request may wait for the end of a run (`Prefer: wait=60`), at most.
pub const CONSOLE_RUN_WAIT_MAX: Duration = Duration::from_mins(1);
/// How long requests may go on when the console stops.
pub const CONSOLE_STOP_WAIT: Duration = Duration::from_secs(5);
/// Bytes of all headers of a request, at most.
pub const CONSOLE_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a request's path and query, at most.
pub const CONSOLE_URI_BYTES_MAX: usize = 8 * 1024;
/// Between two signs of life of a stream of events that has nothing to say.
pub const CONSOLE_STREAM_SIGN: Duration = Duration::from_secs(15);
/// Characters of a bearer token, at least.
pub const CONSOLE_TOKEN_CHARS_MIN: usize = 16;
/// Runs that one request cancels, retries or replays, at most; the answer says how many are left.
pub const BULK_MAX: usize = 1_000;
/// Characters of an idempotency key, and of what says who asks.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;

// A run that is waited for as long as may be is waited for longer than any other request takes.
const _: () = assert!(CONSOLE_REQUEST_WAIT.as_millis() <= CONSOLE_RUN_WAIT_MAX.as_millis());
// All that may be open at once besides requests leaves places for these.
const _: () =
    assert!(CONSOLE_STREAMS_MAX < CONSOLE_CONNECTIONS_MAX && CONSOLE_REQUESTS_MAX < CONSOLE_CONNECTIONS_MAX);
// Who waits for the next sign of life of a stream is not cut off by the time a request may take.
const _: () = assert!(CONSOLE_STREAM_SIGN.as_millis() < CONSOLE_REQUEST_WAIT.as_millis());
