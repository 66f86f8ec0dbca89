//! Every limit of the fleet, by name and unit, and the relations between them, which the compiler checks.

use std::time::Duration;

/// Shares into which schedules are divided among planners. Part of stored keys: it never changes.
pub const PARTITIONS: u16 = 64;

/// Characters in a name or key, at most. A name is a NATS token, a KV key part, a URL segment and a metric label.
pub const NAME_CHARS_MAX: usize = 64;
/// Bytes of a task as JSON, at most.
pub const TASK_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a definitions file, at most.
pub const DEFINITIONS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a run's output kept in its record; what is longer is cut and marked.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an error message kept in a record.
pub const ERROR_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a target's response that are read at all, after decompression.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a NATS message, as `nats-server` allows by default.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Arguments of a local command, at most.
pub const COMMAND_ARGUMENTS_MAX: usize = 128;
/// Cron lines in one schedule, at most.
pub const CRON_LINES_MAX: usize = 16;
/// Queues in one fleet, at most: each is a subject pair and a consumer.
pub const QUEUES_MAX: usize = 256;

/// Attempts of one run, at most.
pub const ATTEMPTS_MAX: u32 = 100;
/// Attempts of one run, when its task does not say.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// Time one attempt may take, at most.
pub const TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// Time one attempt may take, when its task does not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);
/// Longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_hours(1);
/// Shortest distance between two slots of one schedule.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest distance between two slots of one schedule.
pub const INTERVAL_MAX: Duration = Duration::from_hours(8784);
/// Dates and instants that one schedule may exclude, at most.
pub const EXCLUDED_MAX: usize = 1_000;
/// Slots `max_runs` may count, at most: they are counted when the definition is read.
pub const MAX_RUNS_MAX: u32 = 10_000;
/// By how much jitter may shift a slot, at most.
pub const JITTER_MAX: Duration = Duration::from_hours(24);
/// Days in a row that a slot of a closed day may be moved over.
pub const CLOSED_DAYS_MAX: u64 = 31;
/// Dates in one calendar, at most, those of its iCalendar files included.
pub const CALENDAR_DATES_MAX: usize = 10_000;
/// Bytes of an iCalendar file, at most.
pub const ICAL_BYTES_MAX: usize = 1024 * 1024;
/// How late a missed slot may still be caught up, when its schedule does not say.
pub const CATCH_UP_DEFAULT: Duration = Duration::from_hours(1);
/// How late a missed slot may still be caught up, at most.
pub const CATCH_UP_MAX: Duration = Duration::from_hours(8760);
/// Missed slots of one schedule that `missed: all` runs after an outage; older ones are recorded as skipped.
pub const MISSED_RUNS_MAX: usize = 100;
/// Slots of one schedule that one round accounts for; the rest come in the next round.
pub const SLOTS_PER_ROUND_MAX: usize = 1_000;
/// A run dispatched at most this much after its slot is on time; later ones say `late`.
pub const LATE_AFTER: Duration = Duration::from_secs(5);
/// A slot older than this when it is first seen was missed, and the schedule's policy decides. Longer than a change of
/// holder takes, so that a planner's death is no outage.
pub const MISSED_AFTER: Duration = Duration::from_secs(15);

/// A planner holds a partition for this long after each renewal.
pub const LEASE: Duration = Duration::from_secs(6);
/// How much before the lease's end its holder stops trusting itself.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// How often a planner renews its leases.
pub const LEASE_RENEW: Duration = Duration::from_secs(2);
/// How often a planner or worker says that it is alive.
pub const MEMBER_HEARTBEAT: Duration = Duration::from_secs(2);
/// A member not heard of for this long is gone.
pub const MEMBER_GONE: Duration = Duration::from_secs(7);
/// A partition's cursor is written at least this often, so that a successor has little to look through.
pub const CURSOR_WRITE: Duration = Duration::from_secs(10);
/// Longest sleep of a planner: the timer is a hint, the clock decides.
pub const ROUND_SLEEP_MAX: Duration = Duration::from_millis(500);
/// Dispatches a planner has in flight at once.
pub const DISPATCHES_IN_FLIGHT_MAX: usize = 256;

/// Without a sign of life for this long the server hands a run to another worker, when its queue does not say.
pub const ACK_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest acknowledge wait a queue may have.
pub const ACK_WAIT_MIN: Duration = Duration::from_secs(2);
/// Longest acknowledge wait a queue may have.
pub const ACK_WAIT_MAX: Duration = Duration::from_hours(1);
/// A worker renews its hold on a run this many times per acknowledge wait.
pub const HEARTBEATS_PER_ACK_WAIT: u32 = 4;
/// A worker that could not renew stops its attempt when only this part of the acknowledge wait is left: a third. With
/// the default wait that is ten seconds, in which a command gets its grace and is killed.
pub const HOLD_MARGIN_PART: u32 = 3;
/// Runs of one queue in flight over the whole fleet, when the queue does not say.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 1_000;
/// Runs of one queue in flight over the whole fleet, at most.
pub const MAX_IN_FLIGHT_MAX: u32 = 100_000;
/// Runs one worker executes at once, when it is not told.
pub const PLACES_DEFAULT: u16 = 16;
/// Runs one worker executes at once, at most.
pub const PLACES_MAX: u16 = 1_000;
/// How long a stopping worker lets its runs finish, when it is not told.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(20);
/// Between asking a command's process group to end and ending it.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// Versions kept of a run's record: the whole life of a run with a few retries.
pub const RUN_HISTORY: i64 = 16;
/// Versions kept of a definition: audit, diff and rollback.
pub const DEFINITION_HISTORY: i64 = 64;
/// How long finished runs are remembered, and with them their keys.
pub const RUN_RETENTION: Duration = Duration::from_hours(2160);

// A planner that is cut off stops before another may begin, yet keeps most of its term.
const _: () = assert!(0 < LEASE_MARGIN.as_millis() && 2 * LEASE_MARGIN.as_millis() < LEASE.as_millis());
// A holder renews, and may fail once, before it stops trusting itself.
const _: () = assert!(LEASE_RENEW.as_millis() < (LEASE.as_millis() - LEASE_MARGIN.as_millis()));
// The death of a planner does not turn its slots into missed ones: its member entry and its lease run out before.
const _: () = assert!(MEMBER_GONE.as_millis() + LEASE.as_millis() < MISSED_AFTER.as_millis());
// A member is heard at least twice before it is thought gone.
const _: () = assert!(2 * MEMBER_HEARTBEAT.as_millis() < MEMBER_GONE.as_millis());
// A dead worker's heartbeat is gone when the server hands its run on, so the next owner may take it at once.
const _: () = assert!(MEMBER_GONE.as_millis() < ACK_WAIT_DEFAULT.as_millis());
// A worker may fail to renew once before it gives its attempt up: two heartbeats fit before the margin begins.
const _: () = assert!(2 * HOLD_MARGIN_PART < HEARTBEATS_PER_ACK_WAIT * (HOLD_MARGIN_PART - 1));
// What is left then is enough for a command to be asked to end and to be killed.
const _: () =
    assert!(KILL_GRACE.as_millis() + 2_000 < ACK_WAIT_DEFAULT.as_millis() / HOLD_MARGIN_PART as u128);
// A task and the record around it fit into one message; so do an output and an error.
const _: () = assert!(2 * TASK_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(4 * (OUTPUT_BYTES_MAX + ERROR_BYTES_MAX) < MESSAGE_BYTES_MAX);
// A calendar as JSON fits into one message: a date is 13 bytes there.
const _: () = assert!(2 * 13 * CALENDAR_DATES_MAX < MESSAGE_BYTES_MAX);
// The whole life of a run with the default attempts fits its history: pending, and two writes an attempt.
const _: () = assert!(1 + 2 * (ATTEMPTS_DEFAULT as i64) < RUN_HISTORY);
