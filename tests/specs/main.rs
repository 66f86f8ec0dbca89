//! The promises, as sentences that are checked. `docs/GUARANTEES.md` names for each promise the spec that proves it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "in tests; clippy only knows those that are inside #[test]"
)]

mod adhoc;
mod any_worker;
mod api_access;
mod api_document;
mod api_input;
mod api_nats;
mod api_runs;
mod api_schedules;
mod api_streams;
mod backfill;
mod bad_input;
mod bench;
mod callbacks;
mod cancel_table;
mod cancelling;
mod chaining;
mod chaining_cluster;
mod chaining_kills;
mod cluster;
mod conformance;
mod control;
mod crash_points;
mod dead_letters;
mod delayed;
mod delayed_cluster;
mod delayed_figures;
mod doctor;
mod drain;
mod draining;
mod elsewhere;
mod example;
mod fetching;
mod generated;
mod handlers;
mod holding;
mod importing;
mod layout;
mod limits;
mod limits_cluster;
mod local;
mod logs;
mod mending;
mod overlap;
mod overlap_cluster;
mod pause;
mod planners;
mod planning;
mod read_model;
mod readme;
mod recording;
mod replaying;
mod results;
mod retry_waits;
mod retrying_together;
mod server;
mod services;
mod shards;
mod shared_writes;
mod targets;
mod telling;
mod time;
mod time_limits;
mod topology;
mod unclaimed;
mod up;
mod waiting;
mod waiting_kills;
mod worker_crash_points;
