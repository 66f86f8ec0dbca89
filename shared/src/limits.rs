//! Every limit of the fleet, by name and unit, and the relations between them, which the compiler checks.

mod callbacks;
mod console;

use std::time::Duration;

pub use callbacks::*;
pub use console::*;

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
/// Bytes of the upstream run's output that a command finds in its environment; a longer one is in its input only.
pub const UPSTREAM_OUTPUT_VARIABLE_BYTES_MAX: usize = 32 * 1024;
/// Levels of lists and objects within each other, in a task's parameters and in an output. Far below what JSON readers stop
/// at (128), because both are stored within other JSON.
pub const JSON_DEPTH_MAX: usize = 64;
/// Characters of the reason somebody gives for a pause.
pub const PAUSE_REASON_CHARS_MAX: usize = 500;
/// Bytes of a note kept in a record.
pub const NOTE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an error message kept in a record.
pub const ERROR_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a target's response that are read at all, after decompression.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a request's body, at most.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a text with places, such as a path.
pub const TEMPLATE_BYTES_MAX: usize = 2 * 1024;
/// Bytes of a URL with all its places filled, at most: what common servers take.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// Parameters in a query, at most.
pub const QUERY_PARAMETERS_MAX: usize = 32;
/// Headers that a target may ask for, at most.
pub const HEADERS_MAX: usize = 32;
/// Bytes of a header's value, at most.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;
/// What the names of variables begin with that a worker puts into headers.
pub const SECRET_VARIABLE_PREFIX: &str = "CRONFLEET_SECRET_";
/// Bytes of a PEM file for TLS, at most.
pub const PEM_BYTES_MAX: usize = 1024 * 1024;
/// Redirects that a target may be allowed, at most.
pub const REDIRECTS_MAX: u8 = 10;
/// Actions of a target that are asked for in ways of their own, at most.
pub const ACTIONS_MAX: usize = 256;
/// Bytes of a NATS message, as `nats-server` allows by default.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Arguments of a local command, at most.
pub const COMMAND_ARGUMENTS_MAX: usize = 128;
/// Cron lines in one schedule, at most.
pub const CRON_LINES_MAX: usize = 16;
/// Queues in one fleet, at most: each is a subject pair and a consumer.
pub const QUEUES_MAX: usize = 256;

/// How long a connection to a target may take to come about, when the target does not say.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a connection to a target may take to come about, at most.
pub const CONNECT_TIMEOUT_MAX: Duration = Duration::from_mins(1);
/// HTTP clients a worker keeps: one for each way to connect (TLS, time-out) that targets ask for.
pub const HTTP_CLIENTS_MAX: usize = 64;
/// How long such a client is kept; then it reads its certificates anew.
pub const HTTP_CLIENT_KEPT: Duration = Duration::from_mins(10);

/// How long a target has to answer its health check.
pub const HEALTH_ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long a good answer to a health check counts.
pub const HEALTH_GOOD_FOR: Duration = Duration::from_secs(5);
/// How long a first bad answer counts: briefly, so that a target that came back is not kept waiting. It doubles with each
/// further one, up to the bound below.
pub const HEALTH_BAD_FOR: Duration = Duration::from_secs(1);
/// How long a bad answer counts, at most.
pub const HEALTH_BAD_FOR_MAX: Duration = Duration::from_secs(8);
/// Health checks that one worker makes at once.
pub const HEALTH_CHECKS_AT_ONCE_MAX: usize = 64;
/// Targets whose health a worker remembers. More make some be asked again sooner.
pub const HEALTH_REMEMBERED_MAX: usize = 1_000;

/// How long after the request a target's end may come that answers later, when the target does not say.
pub const ASYNC_DEADLINE_DEFAULT: Duration = Duration::from_hours(1);
/// How long after the request it may come, at most.
pub const ASYNC_DEADLINE_MAX: Duration = Duration::from_hours(168);
/// Shortest silence that a target may be allowed.
pub const ASYNC_HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// How often a run that waits for its target is looked at although nothing was heard.
pub const ASYNC_LOOK: Duration = Duration::from_secs(15);

/// How long the instances of a NATS micro service have to say which endpoints they have.
pub const DISCOVERY_WAIT: Duration = Duration::from_secs(2);
/// Instances of a NATS micro service that are listened to.
pub const DISCOVERY_ANSWERS_MAX: usize = 64;
/// How long an endpoint that was found is used before it is looked for again.
pub const DISCOVERY_KEPT: Duration = Duration::from_secs(30);
/// Endpoints a worker remembers.
pub const DISCOVERY_REMEMBERED_MAX: usize = 1_000;

/// Attempts of one run, at most.
pub const ATTEMPTS_MAX: u32 = 100;
/// Attempts of one run, when its task does not say.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// Time one attempt may take, at most.
pub const TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// Time one attempt may take, when its task does not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);
/// Time a run may take as a whole, at most, when its task limits it.
pub const RUN_TIME_MAX: Duration = Duration::from_hours(720);
/// Longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_hours(1);
/// A run that waits longer than this for its next attempt does so outside its queue, and holds no place of it. Long enough
/// that few waits, which cost two messages more, are so; short enough that a queue is not blocked by them.
pub const PARK_AFTER: Duration = Duration::from_secs(5);
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
/// Missed slots of one schedule that are run in a second: catching up is spread, so that an outage's end is no flood.
pub const CATCH_UP_RUNS_PER_SECOND: u32 = 10;
/// Slots of one backfill, at most; a longer range is asked for in parts.
pub const BACKFILL_SLOTS_MAX: usize = 10_000;
/// Runs of one backfill that are queued or running at once.
pub const BACKFILL_IN_FLIGHT_MAX: usize = 16;
/// Between two looks of a backfill at its runs: at each it fills its places once, which bounds its rate.
pub const BACKFILL_LOOK: Duration = Duration::from_millis(50);
/// A backfill whose planner is silent for this long goes on at another.
pub const BACKFILL_ACK_WAIT: Duration = Duration::from_secs(10);
/// How often a working planner says that it is at a backfill, and writes down how far it is.
pub const BACKFILL_REPORT: Duration = Duration::from_secs(1);
/// Backfills that are worked on at once over the whole fleet; others wait in the stream.
pub const BACKFILLS_AT_ONCE_MAX: usize = 64;
/// Runs of one schedule that wait for its lock with overlap `buffer_all`; what comes then is recorded as skipped.
pub const WAITING_RUNS_MAX: usize = 100;
/// Slots of one schedule that one round accounts for; the rest come in the next round.
pub const SLOTS_PER_ROUND_MAX: usize = 1_000;
/// A run dispatched at most this much after its slot is on time; later ones say `late`.
pub const LATE_AFTER: Duration = Duration::from_secs(5);
/// A slot older than this when it is first seen was missed, and the schedule's policy decides. Longer than a change of
/// holder takes, even between clocks that differ as much as they may, so that a planner's death is no outage.
pub const MISSED_AFTER: Duration = Duration::from_secs(15);

/// A planner that has not renewed its seat for this long, by a watcher's own clock, is taken for dead.
pub const LEASE: Duration = Duration::from_millis(1_600);
/// How much before that a planner stops trusting itself.
pub const LEASE_MARGIN: Duration = Duration::from_millis(400);
/// How often a planner renews its seat: one write, however many partitions it holds.
pub const LEASE_RENEW: Duration = Duration::from_millis(400);
/// Planners that hold partitions at once, at most: more would have none. Others wait for a seat.
pub const SEATS_MAX: u16 = PARTITIONS;
/// The partitions of a planner that dies are in other hands after this long, on a machine that is not starved.
pub const CHANGE_OF_HOLDER_MAX: Duration = Duration::from_millis(2_500);
/// The wall clock may move this much more than time has passed; from there on it was set, and the server is asked
/// before anything is dispatched.
pub const CLOCK_STEP_MAX: Duration = Duration::from_millis(500);
/// A planner's clock that differs from the server's by more than this is worth an operator's look.
pub const CLOCK_OFFSET_WARN: Duration = Duration::from_millis(500);
/// A planner whose clock differs from the server's by more than this dispatches nothing.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(5);
/// How often a planner compares its clock with the server's.
pub const CLOCK_CHECK: Duration = Duration::from_secs(2);
/// How often a planner or worker says that it is alive.
pub const MEMBER_HEARTBEAT: Duration = Duration::from_secs(2);
/// A run whose command another worker of its queue may run, and this one may not, goes back for this long at first, …
pub const ELSEWHERE_WAIT_MIN: Duration = Duration::from_millis(20);
/// … for this long at most while the other has a place for it: which of them the server gives it to is chance, …
pub const ELSEWHERE_WAIT_ROOM: Duration = Duration::from_millis(100);
/// … and for this long while it has none.
pub const ELSEWHERE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two such runs of one worker, however many there are: they may not keep it busy.
pub const ELSEWHERE_SPACING: Duration = Duration::from_millis(5);
/// A member not heard of for this long is gone.
pub const MEMBER_GONE: Duration = Duration::from_secs(7);
/// A partition's cursor is written at least this often, so that a successor has little to look through.
pub const CURSOR_WRITE: Duration = Duration::from_secs(10);
/// Longest sleep of a planner: the timer is a hint, the clock decides.
pub const ROUND_SLEEP_MAX: Duration = Duration::from_millis(500);
/// Dispatches a planner has in flight at once.
pub const DISPATCHES_IN_FLIGHT_MAX: usize = 256;

/// Runs of one slot, at most, when a schedule has several.
pub const SHARDS_MAX: u16 = 256;
/// Slots of one schedule whose shards are at work at once with overlap `allow`; what comes then is recorded as skipped.
pub const SHARDED_OPEN_MAX: usize = 100;
/// Shards of one slot that are made or looked at at once.
pub const SHARDS_IN_FLIGHT_MAX: usize = 32;
/// How often the shards of a run are looked at although nothing was heard, and how often its progress is written at most.
pub const SHARDS_LOOK: Duration = Duration::from_secs(2);

/// Ends of runs that a planner is dealing with at once because other schedules follow them; then it reads no further.
pub const CHAIN_ENDS_OPEN_MAX: usize = 1_024;
/// Schedules whose runs a planner has picked out of the ledger for it; of more it reads the whole ledger.
pub const CHAIN_FILTERS_MAX: usize = 200;
/// How often the place up to which ends were followed is written down, if it has moved.
pub const CHAIN_CURSOR_WRITE: Duration = Duration::from_secs(1);

/// How long a submission may wait for its instant, at most.
pub const DELAY_MAX: Duration = Duration::from_hours(8784);
/// Delayed submissions a planner has in hand at once: read, waiting for their last moments, or on their way.
pub const DELAYED_IN_FLIGHT_MAX: usize = 512;
/// Delayed submissions a planner deletes at once. More would be no faster, and keep others waiting at the server.
pub const DELAYED_DELETES_MAX: usize = 16;
/// This long before its instant a delayed submission is read, so that it is at hand when it is due.
pub const DELAYED_READ_AHEAD: Duration = Duration::from_millis(250);

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
/// For so long after it was last confirmed a worker may trust its hold on a run of a queue with this acknowledge wait.
pub fn hold_trusted_for(ack_wait: Duration) -> Duration {
    ack_wait.saturating_sub(ack_wait / HOLD_MARGIN_PART)
}
/// An attempt that was begun without a claim, and is not over after this, is claimed then.
pub const CLAIM_AFTER: Duration = Duration::from_millis(250);
/// Who cancels a run that waits in a queue asks the workers first, and looks again after this: one of them may have begun it
/// without a claim. By then it has ended, was stopped, or is claimed.
pub const CANCEL_LOOK_AGAIN: Duration = Duration::from_millis(500);
/// For this long after its connection was interrupted a worker claims every run before it begins it: a server that was killed may
/// hand out as new what another worker has.
pub const INTERRUPTION_DOUBTED: Duration = Duration::from_secs(10);
/// Runs of one queue in flight over the whole fleet, when the queue does not say.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 1_000;
/// Runs of one queue in flight over the whole fleet, at most.
pub const MAX_IN_FLIGHT_MAX: u32 = 100_000;
/// Runs one worker executes at once, of all its queues, when it is not told.
pub const PLACES_DEFAULT: u16 = 16;
/// Runs one worker executes at once, at most.
pub const PLACES_MAX: u16 = 1_000;
/// The weight of a queue at a worker, at most.
pub const QUEUE_WEIGHT_MAX: u32 = 1_000;
/// A pull whose server says nothing for this long is thought lost, with its consumer or its connection: the queue is opened
/// anew, and its places are asked for again.
pub const PULL_SILENCE_MAX: Duration = Duration::from_secs(8);
/// While a pull waits, its server says this often that it is alive.
pub const PULL_HEARTBEAT: Duration = Duration::from_secs(3);
/// How long a stopping worker lets its runs finish, when it is not told.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(20);
/// Between asking a command's process group to end and ending it, at most; see [`kill_grace`].
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// Between asking a command of a queue with this acknowledge wait to end and ending it: half of the margin within which
/// an attempt has to be over, so that a command that ignores the word is gone before another may begin.
pub fn kill_grace(ack_wait: Duration) -> Duration {
    KILL_GRACE.min(ack_wait / HOLD_MARGIN_PART / 2)
}

/// Bytes of one line in a run's log; of a longer one the beginning is kept, and how much is missing.
pub const LOG_LINE_BYTES_MAX: usize = 8 * 1024;
/// What a line in a run's log counts for beside its text: its number, its instant, its source.
pub const LOG_LINE_OVERHEAD_BYTES: usize = 100;
/// Bytes that one attempt may put into its run's log, lines counted with what is around them. What comes after is counted.
pub const LOG_ATTEMPT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an attempt's log that wait for the server; what comes while it is full is counted and left out.
pub const LOG_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one message of the log stream, before they are written as JSON.
pub const LOG_BATCH_BYTES_MAX: usize = 128 * 1024;
/// How often the log of an attempt is written, at most.
pub const LOG_WRITE: Duration = Duration::from_millis(200);
/// How long the end of an attempt waits for the last of its log to be stored.
pub const LOG_LAST_WAIT: Duration = Duration::from_secs(2);
/// How long logs are kept.
pub const LOG_RETENTION: Duration = Duration::from_hours(168);
/// Characters of the note beside a run's progress.
pub const PROGRESS_NOTE_CHARS_MAX: usize = 200;
/// How often the progress of a run goes into its log, at most; the latest always does.
pub const PROGRESS_LOG: Duration = Duration::from_secs(1);
/// Runs whose progress a worker tells at a heartbeat, at most.
pub const PROGRESS_TOLD_MAX: usize = 256;

/// A command's guard stops it when its worker has given no sign of life for this long: a worker that stands still (frozen, or
/// starved) cannot stop its attempt itself, and half of the acknowledge wait after its last renewal is left for it.
pub fn worker_silence(ack_wait: Duration) -> Duration {
    WORKER_SILENCE_MIN.max(ack_wait / WORKER_SILENCE_PART)
}

/// A worker that is silent for less is merely slow, however short the acknowledge wait: its run is taken over only when the fleet
/// has not heard it for [`MEMBER_GONE`].
const WORKER_SILENCE_MIN: Duration = Duration::from_secs(3);
/// The part of the acknowledge wait after which a silent worker's command is stopped.
const WORKER_SILENCE_PART: u32 = 2;
/// Characters of the path of a key that a limit is for.
pub const LIMIT_KEY_CHARS_MAX: usize = 128;
/// Characters of a key with its value, as people are shown them.
pub const LIMIT_LABEL_CHARS_MAX: usize = 96;
/// The longest time a rate may count over.
pub const RATE_PER_MAX: Duration = Duration::from_hours(24);
/// The shortest time between two attempts that a rate can keep: each of them is a write.
pub const RATE_SPACING_MIN: Duration = Duration::from_millis(1);
/// A run whose turn by a rate comes within this time waits for it at its worker; others wait outside, and hold no place.
pub const RATE_WAIT_MAX: Duration = Duration::from_millis(500);
/// An attempt that begins this much after its turn by a rate takes a new turn instead. So in any window a rate lets begin at
/// most one attempt more than it says, and as many as fit into this time.
pub const RATE_SLACK: Duration = Duration::from_millis(50);
/// A permit whose run is not being executed by the worker that took it is free after this long, by a watcher's own clock.
pub const PERMIT_GRACE: Duration = Duration::from_secs(10);
/// How often each worker looks whether a run that waits for a limit could begin although nobody said so.
pub const LIMIT_LOOK: Duration = Duration::from_secs(2);
/// Lanes that are looked at each time.
pub const LIMIT_LOOK_LANES_MAX: usize = 16;
/// A gate that nobody passes, and a lane where nobody waits, are forgotten after this long.
pub const LIMIT_FORGOTTEN: Duration = Duration::from_mins(1);

/// Versions kept of a run's record: the whole life of a run with a few retries.
pub const RUN_HISTORY: i64 = 16;
/// Versions kept of a definition: audit, diff and rollback.
pub const DEFINITION_HISTORY: i64 = 64;
/// How long finished runs are remembered, and with them their keys.
pub const RUN_RETENTION: Duration = Duration::from_hours(2160);

/// Rows of a list on one page, when it is not said.
pub const PAGE_DEFAULT: u16 = 50;
/// Rows of a list on one page, at most.
pub const PAGE_MAX: u16 = 500;
/// Characters of a text that is looked for.
pub const SEARCH_TEXT_CHARS_MAX: usize = 200;
/// Rows that are counted, at most: of more it is said that there are more.
pub const COUNT_MAX: u64 = 10_000;
/// Schedules whose last runs are asked for at once, at most.
pub const STRIPS_MAX: usize = 500;
/// Runs in a strip, at most.
pub const STRIP_RUNS_MAX: usize = 50;
/// Times, or days, that one answer about a schedule is divided into, at most: a year of days.
pub const BUCKETS_MAX: usize = 400;
/// How long one question to the read model may take; then it is given up.
pub const READ_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a question waits for others that are being answered.
pub const READ_WAIT_MAX: Duration = Duration::from_secs(5);
/// Questions the read model answers at once.
pub const READS_AT_ONCE_MAX: usize = 4;
/// Runs the read model keeps, at most; of more it forgets the oldest. More than the ledger holds.
pub const MODEL_RUNS_MAX: u64 = 10_000_000;
/// Changes that are held for a subscriber of the live feed; one that is slower is told so, and reads on from the tables.
pub const FEED_HELD_MAX: usize = 1_024;

// A planner that is cut off stops before another may begin, yet keeps most of its term.
const _: () = assert!(0 < LEASE_MARGIN.as_millis() && 2 * LEASE_MARGIN.as_millis() < LEASE.as_millis());
// Catching up ends: a schedule comes due less often than its missed slots are run.
const _: () = assert!(CATCH_UP_RUNS_PER_SECOND as u128 * INTERVAL_MIN.as_millis() > 1_000);
// A planner may fail to say twice that it is at a backfill before another takes it.
const _: () = assert!(3 * BACKFILL_REPORT.as_millis() < BACKFILL_ACK_WAIT.as_millis());
// The reason of a pause fits a note, whatever its characters, with who and until when.
const _: () = assert!(4 * PAUSE_REASON_CHARS_MAX + 1_024 < NOTE_BYTES_MAX);
// A planner's renewal may fail twice in a row before it stops trusting itself.
const _: () = assert!(2 * LEASE_RENEW.as_millis() < LEASE.as_millis() - LEASE_MARGIN.as_millis());
// A silent planner is replaced in time: its silence is noticed at most one renewal after its lease.
const _: () = assert!(LEASE.as_millis() + LEASE_RENEW.as_millis() < CHANGE_OF_HOLDER_MAX.as_millis());
// A run that takes as long as it may is remembered when it ends, and its key with it.
const _: () = assert!(RUN_TIME_MAX.as_secs() < RUN_RETENTION.as_secs());
// The death of a planner does not even make its slots late.
const _: () = assert!(CHANGE_OF_HOLDER_MAX.as_millis() < LATE_AFTER.as_millis());
// Nor does it turn them into missed ones, when the successor's clock and the dead planner's differ as much as they may.
const _: () =
    assert!(CHANGE_OF_HOLDER_MAX.as_millis() + 2 * CLOCK_OFFSET_MAX.as_millis() < MISSED_AFTER.as_millis());
// What is worth a warning is no reason to stop, and a step that goes unnoticed is not worth a warning.
const _: () = assert!(CLOCK_OFFSET_WARN.as_millis() < CLOCK_OFFSET_MAX.as_millis());
const _: () = assert!(CLOCK_STEP_MAX.as_millis() <= CLOCK_OFFSET_WARN.as_millis());
// A member is heard at least twice before it is thought gone.
const _: () = assert!(2 * MEMBER_HEARTBEAT.as_millis() < MEMBER_GONE.as_millis());
// A dead worker's heartbeat is gone when the server hands its run on, so the next owner may take it at once.
const _: () = assert!(MEMBER_GONE.as_millis() < ACK_WAIT_DEFAULT.as_millis());
// A heartbeat may be lost without a pull being thought so.
const _: () = assert!(2 * PULL_HEARTBEAT.as_millis() < PULL_SILENCE_MAX.as_millis());
// A worker may fail to renew once before it gives its attempt up: two heartbeats fit before the margin begins.
const _: () = assert!(2 * HOLD_MARGIN_PART < HEARTBEATS_PER_ACK_WAIT * (HOLD_MARGIN_PART - 1));
// A worker renewed at most one heartbeat before it stood still. Its silence is noticed, and its command killed after the
// grace (a sixth), before the acknowledge wait is over: 1/4 + 1/2 + 1/6 < 1, here times 12.
const _: () =
    assert!(12 / HEARTBEATS_PER_ACK_WAIT + 12 / WORKER_SILENCE_PART + 12 / (2 * HOLD_MARGIN_PART) < 12);
// With a short acknowledge wait the fleet's own patience counts: silence, noticing it, and the grace are over before.
const _: () =
    assert!(WORKER_SILENCE_MIN.as_millis() + 1_500 < MEMBER_GONE.as_millis() - MEMBER_HEARTBEAT.as_millis());
// What is left then is enough for a command to be asked to end and to be killed.
const _: () =
    assert!(KILL_GRACE.as_millis() + 2_000 < ACK_WAIT_DEFAULT.as_millis() / HOLD_MARGIN_PART as u128);
// Who cancels a run finds it claimed, if a worker that did not hear of it is at it.
const _: () = assert!(2 * CLAIM_AFTER.as_millis() <= CANCEL_LOOK_AGAIN.as_millis());
// A late claim comes long before the hold on the run is in question.
const _: () = assert!(4 * CLAIM_AFTER.as_millis() < ACK_WAIT_MIN.as_millis() / HOLD_MARGIN_PART as u128 * 2);
// A line fits the queue and a batch many times; a batch, written as JSON where a control character takes six bytes, a message.
const _: () = assert!(8 * (LOG_LINE_BYTES_MAX + LOG_LINE_OVERHEAD_BYTES) < LOG_BATCH_BYTES_MAX);
const _: () = assert!(6 * LOG_BATCH_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () =
    assert!(LOG_BATCH_BYTES_MAX <= LOG_QUEUE_BYTES_MAX && LOG_QUEUE_BYTES_MAX <= LOG_ATTEMPT_BYTES_MAX);
// Lost runs are looked into while their logs are there, and logs go before the records they belong to.
const _: () = assert!(LOG_RETENTION.as_secs() < RUN_RETENTION.as_secs());
// All progress that a heartbeat tells fits a message.
const _: () =
    assert!(PROGRESS_TOLD_MAX * (4 * PROGRESS_NOTE_CHARS_MAX + 4 * NAME_CHARS_MAX) < MESSAGE_BYTES_MAX);
// A worker whose ack of what it parked is delayed as a rule has sent it before the run comes back.
const _: () = assert!(10 * DELAYED_READ_AHEAD.as_millis() < PARK_AFTER.as_millis());
// What is read ahead of its instant leaves room for what is due already.
const _: () = assert!(DELAYED_IN_FLIGHT_MAX >= 2 * DISPATCHES_IN_FLIGHT_MAX);
// Waiting for a turn is no reason to think a permit forgotten, nor is a claim that is slow.
const _: () = assert!(4 * RATE_WAIT_MAX.as_millis() < PERMIT_GRACE.as_millis());
// A worker that died is silent to the fleet before its permits are judged, and they are found free soon after.
const _: () = assert!(MEMBER_GONE.as_millis() < PERMIT_GRACE.as_millis());
const _: () = assert!(2 * LIMIT_LOOK.as_millis() < PERMIT_GRACE.as_millis());
// A deletion is remembered for longer than a compare-and-set over it takes.
const _: () = assert!(LIMIT_FORGOTTEN.as_millis() > 1_000);
// A target that hangs is not asked by one run after another without a pause.
const _: () = assert!(HEALTH_BAD_FOR.as_millis() < HEALTH_BAD_FOR_MAX.as_millis());
const _: () = assert!(HEALTH_ANSWER_WAIT.as_millis() < HEALTH_BAD_FOR_MAX.as_millis());
// A task and its upstream's output, as a body, fit a request.
const _: () = assert!(2 * (TASK_BYTES_MAX + OUTPUT_BYTES_MAX) <= REQUEST_BYTES_MAX);
// A path with its places filled may be as long as it was written, with room for the query.
const _: () = assert!(2 * TEMPLATE_BYTES_MAX < URL_BYTES_MAX);
// A task and the record around it fit into one message; so do an output and an error.
const _: () = assert!(2 * TASK_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(4 * (OUTPUT_BYTES_MAX + ERROR_BYTES_MAX) < MESSAGE_BYTES_MAX);
// A variable of the environment holds 128 KiB on Linux, and the upstream's output is never longer than an output.
const _: () =
    assert!(UPSTREAM_OUTPUT_VARIABLE_BYTES_MAX <= OUTPUT_BYTES_MAX && OUTPUT_BYTES_MAX < 128 * 1024);
// A calendar as JSON fits into one message: a date is 13 bytes there.
const _: () = assert!(2 * 13 * CALENDAR_DATES_MAX < MESSAGE_BYTES_MAX);
// The whole life of a run with the default attempts fits its history: pending, and two writes an attempt.
const _: () = assert!(1 + 2 * (ATTEMPTS_DEFAULT as i64) < RUN_HISTORY);
// What catching up may run at once may also wait at once.
const _: () = assert!(MISSED_RUNS_MAX <= WAITING_RUNS_MAX);
// The keys of all sharded runs that are open are one value, too.
const _: () = assert!(SHARDED_OPEN_MAX <= WAITING_RUNS_MAX);
// The keys of all runs that wait are one value in a bucket.
const _: () = assert!(WAITING_RUNS_MAX * (NAME_CHARS_MAX + 4) < MESSAGE_BYTES_MAX / 4);
