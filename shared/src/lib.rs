//! The words of Cronfleet, and every decision that needs nothing but values: schedules, slots, tasks, runs,
//! the one transition table, retries, limits, and the clock that all processes ask.
//!
//! Nothing here waits or writes, except the clock. What is parsed here is valid everywhere else.

pub mod address;
pub mod after;
pub mod backfill;
mod bounded;
pub mod bounds;
pub mod calendar;
pub mod callback;
pub mod clock;
pub mod clock_check;
pub mod closed_day;
pub mod connection;
pub mod cron;
pub mod definition;
pub mod definitions;
pub mod distinct_keys;
pub mod hash;
pub mod human_duration;
pub mod ical;
pub mod known_timings;
pub mod limit;
pub mod limits;
pub mod mistake;
pub mod names;
mod object;
pub mod past_attempts;
pub mod pause;
pub mod queue;
pub mod request;
pub mod retried;
pub mod retry;
pub mod run;
pub mod run_log;
pub mod run_record;
pub mod run_state;
pub mod schedule;
pub mod shard;
pub mod slot;
pub mod statuses;
pub mod suggest;
pub mod target;
pub mod task;
pub mod template;
pub mod text_diff;
pub mod time_limits;
pub mod timing;
pub mod trace;
pub mod when;
pub mod words;

/// An instant in UTC; on the wire RFC 3339.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
