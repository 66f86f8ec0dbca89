//! What is bounded where targets leave their answers later.

use std::time::Duration;

use super::{ASYNC_DEADLINE_MAX, MESSAGE_BYTES_MAX, OUTPUT_BYTES_MAX};

/// How long what targets leave is kept.
pub const CALLBACK_KEPT: Duration = Duration::from_hours(192);
/// Bytes of what a target leaves over HTTP, at most.
pub const CALLBACK_BYTES_MAX: usize = 512 * 1024;
/// Messages of one attempt that are looked through for its answer.
pub const CALLBACKS_READ_MAX: usize = 256;
/// Answers of one attempt that are kept: the first counts, and so many at most may come until it is heard.
pub const CALLBACKS_KEPT_EACH: i64 = 16;
/// Connections to the door for callbacks over HTTP, at once; others wait to be taken. Anybody may connect.
pub const CALLBACK_CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take there, and how long a connection may be idle.
pub const CALLBACK_HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a request may take there after its head: its body, and its answer.
pub const CALLBACK_REQUEST_WAIT: Duration = Duration::from_secs(20);
/// How long a connection there may be used.
pub const CALLBACK_CONNECTION_LIFE: Duration = Duration::from_mins(5);
/// Callbacks that one worker deals with at once.
pub const CALLBACKS_AT_ONCE_MAX: usize = 32;
/// Callbacks over HTTP that wait at one worker because no record awaits them: what comes before its target's 202 is recorded,
/// and whatever strangers guess. They take no place from those that are awaited.
pub const CALLBACKS_EARLY_MAX: usize = 64;
/// Of those, for one run.
pub const CALLBACKS_EARLY_PER_RUN_MAX: usize = 2;
/// How long they wait.
pub const CALLBACK_EARLY_WAIT: Duration = Duration::from_secs(5);

const _: () = assert!(CALLBACK_HEAD_WAIT.as_millis() < CALLBACK_CONNECTION_LIFE.as_millis());
const _: () = assert!(CALLBACK_REQUEST_WAIT.as_millis() < CALLBACK_CONNECTION_LIFE.as_millis());
const _: () = assert!(CALLBACKS_AT_ONCE_MAX < CALLBACK_CONNECTIONS_MAX);
// What a target leaves is there for as long as its run may wait.
const _: () = assert!(ASYNC_DEADLINE_MAX.as_millis() < CALLBACK_KEPT.as_millis());
const _: () = assert!(CALLBACK_BYTES_MAX < MESSAGE_BYTES_MAX && OUTPUT_BYTES_MAX < CALLBACK_BYTES_MAX);
// Whoever guesses at one run keeps nobody from waiting for another, and what waits is little memory.
const _: () = assert!(4 * CALLBACKS_EARLY_PER_RUN_MAX <= CALLBACKS_EARLY_MAX);
const _: () = assert!(CALLBACKS_EARLY_MAX * CALLBACK_BYTES_MAX <= 32 * 1024 * 1024);
