//! Every name on the wire, in one place. `<ns>` is the namespace, by default `cronfleet`.
//!
//! | name | kind | subject or key | written by | read by |
//! |---|---|---|---|---|
//! | `<ns>_TASKS` | stream, work queue | `<ns>.due.<queue>.<name>.<key>` | planners | workers |
//! | | | `<ns>.tasks.<queue>.<name>.<key>` | anybody allowed to submit | workers |
//! | `<ns>_TASKS/<queue>` | durable pull consumer | both subjects of the queue | `init`, `apply` | workers |
//! | `<ns>_DELAYED` | stream | `<ns>.delayed.<queue>.<name>.<key>` | anybody allowed to submit | planners |
//! | | as it is stored | `<ns>.delayed.<partition>.<queue>.<name>.<key>` | the server | planners |
//! | | | `<ns>.parked.<partition>.<queue>.<name>.<key>` | workers | planners |
//! | `<ns>_LIMITED` | stream | `<ns>.limited.<scope>.<lane>.<due or tasks>.<queue>.<name>.<key>` | workers | workers |
//! | `<ns>_limits` | bucket | `gate.<scope>` `gate.<scope>.<lane>` `waiting.<scope>.<lane>` | workers | workers |
//! | `<ns>_DEAD` | stream | `<ns>.dead.<queue>.<name>.<key>` | workers, planners | operators |
//! | `<ns>_LOG` | stream, aged out | `<ns>.log.<name>.<key>` | workers | everybody |
//! | `<ns>_CONTROL` | stream | `<ns>.control.trigger.<name>.<key>` | operators | planners |
//! | | | `<ns>.control.backfill.<name>.<id>` | operators | planners |
//! | | | `<ns>.control.cancel.<name>.<key>` | operators, planners | workers |
//! | | | `<ns>.control.drain.<worker>` | operators | that worker |
//! | | | `<ns>.control.promise.<hash>` | consoles | consoles |
//! | `<ns>-api` | service | `<ns>.api.<resource>.<verb>` | everybody | consoles |
//! | `<ns>_CALLBACKS` | stream | `<ns>.callback.<name>.<key>.<token>` | targets that answer later | workers |
//! | | | `<ns>.callback.<name>.<key>.<token>.progress` | the same | workers |
//! | `<ns>_CONTROL/planner` | durable pull consumer | `<ns>.control.trigger.>` | `init` | planners |
//! | `<ns>_CONTROL/backfill` | durable pull consumer | `<ns>.control.backfill.>` | `init` | planners |
//! | `<ns>_RAW` | stream, made and deleted by `bench` | `<ns>.raw.<n>` | `bench` | nobody |
//! | `<ns>_runs` | bucket: the ledger | `<name>.<key>` | planners, workers | everybody |
//! | | republished | `<ns>.results.<name>.<key>` | the server | dashboards |
//! | `<ns>_schedules` | bucket | `<partition>.<name>` | operators | planners |
//! | | | `<partition>.<name>.pause` | operators | planners |
//! | `<ns>_backfills` | bucket, aged out | `<name>.<id>` | planners | everybody |
//! | `<ns>_catalog` | bucket | `target.<name>` `queue.<name>` `calendar.<name>` | operators | everybody |
//! | `<ns>_planner` | bucket | `seat.<number>` `lease.<partition>` `cursor.<partition>` `line.<partition>.<name>` `chain.<partition>` `shards.<partition>.<name>` | planners | planners |
//! | `<ns>_members` | bucket, aged out | `planner.<id>` `worker.<id>` | each of itself | everybody |
//!
//! Of a target that is a NATS micro service `$SRV.INFO.<service>` is asked; its endpoints' subjects are its own.
//!
//! A bucket `b` is the stream `KV_b` on the subjects `$KV.b.>`. A key of `_` in a `due` subject is a schedule's lock:
//! the server refuses a second message there until the first is acknowledged.
//!
//! A queue has its own subjects in the stream, so a submission to a queue nobody declared is refused at once
//! ("no responders") instead of waiting for a worker that will never come.
//!
//! A scope of limits is `t-<target>` or `c-<command>`; a lane is the hash of a key's value, or `_`.
//!
//! A submission that waits is stored under its partition, which the server computes from name and key: a planner then
//! reads only its own share. `Names::delayed_partition` computes the same.

mod callbacks;
mod delayed;
pub(crate) mod limits;

use std::{fmt, str::FromStr};

use shared::{
    hash::partition_of,
    names::{BackfillId, CalendarName, MemberId, Name, NameError, QueueName, RunKey, TargetName},
    run::RunId,
};

/// The prefix of all names of one fleet, so that several can share a NATS account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(Name);

impl Default for Namespace {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the literal is a name; a test below would fail otherwise")]
        Self("cronfleet".parse().expect("a name"))
    }
}

impl FromStr for Namespace {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a task message comes from, which decides how far its words are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A planner: its headers name the run.
    Due,
    /// Anybody: only the subject names the run, and its headers are a stranger's words.
    AdHoc,
}

/// The key that stands for "the one live run of this schedule" in a `due` subject.
pub(crate) const LOCK_KEY: &str = "_";

/// The name of what is no run that callers may use, and has a record of its refusal all the same.
const REJECTED: &str = "rejected";

/// The names of one fleet. Functions take types, so a subject cannot be built from text that is no name.
#[derive(Debug, Clone)]
pub struct Names {
    ns: Namespace,
}

impl Names {
    /// The names under this namespace.
    pub fn new(ns: Namespace) -> Self {
        Self { ns }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

    pub(crate) fn tasks_stream(&self) -> String {
        format!("{}_TASKS", self.ns)
    }

    pub(crate) fn dead_stream(&self) -> String {
        format!("{}_DEAD", self.ns)
    }

    pub(crate) fn log_stream(&self) -> String {
        format!("{}_LOG", self.ns)
    }

    pub(crate) fn control_stream(&self) -> String {
        format!("{}_CONTROL", self.ns)
    }

    pub(crate) fn raw_stream(&self) -> String {
        format!("{}_RAW", self.ns)
    }

    pub(crate) fn raw(&self, n: usize) -> String {
        format!("{}.raw.{n}", self.ns)
    }

    pub(crate) fn raw_all(&self) -> String {
        format!("{}.raw.*", self.ns)
    }

    pub(crate) fn runs_bucket(&self) -> String {
        format!("{}_runs", self.ns)
    }

    pub(crate) fn schedules_bucket(&self) -> String {
        format!("{}_schedules", self.ns)
    }

    pub(crate) fn backfills_bucket(&self) -> String {
        format!("{}_backfills", self.ns)
    }

    pub(crate) fn catalog_bucket(&self) -> String {
        format!("{}_catalog", self.ns)
    }

    pub(crate) fn planner_bucket(&self) -> String {
        format!("{}_planner", self.ns)
    }

    pub(crate) fn members_bucket(&self) -> String {
        format!("{}_members", self.ns)
    }

    /// The subject of a run that may overlap with others of its schedule.
    pub(crate) fn due(&self, queue: &QueueName, run: &RunId) -> String {
        format!("{}.due.{queue}.{run}", self.ns)
    }

    /// The subject that only one live run of a schedule can hold.
    pub(crate) fn due_lock(&self, queue: &QueueName, schedule: &Name) -> String {
        format!("{}.due.{queue}.{schedule}.{LOCK_KEY}", self.ns)
    }

    /// All planned runs of a schedule, in all queues.
    pub(crate) fn due_of(&self, schedule: &Name) -> String {
        format!("{}.due.*.{schedule}.*", self.ns)
    }

    /// All planned runs.
    pub(crate) fn all_due(&self) -> String {
        format!("{}.due.>", self.ns)
    }

    /// A schedule's lock, in all queues.
    pub(crate) fn due_locks_of(&self, schedule: &Name) -> String {
        format!("{}.due.*.{schedule}.{LOCK_KEY}", self.ns)
    }

    /// A run under a subject of its own, planned or submitted, in all queues.
    pub(crate) fn own_subjects_of(&self, run: &RunId) -> [String; 2] {
        [format!("{}.due.*.{run}", self.ns), format!("{}.tasks.*.{run}", self.ns)]
    }

    /// The subject anybody submits a task to.
    pub fn task(&self, queue: &QueueName, run: &RunId) -> String {
        format!("{}.tasks.{queue}.{run}", self.ns)
    }

    /// All submissions, or those of this name, in all queues.
    pub(crate) fn submissions(&self, name: Option<&Name>) -> String {
        format!("{}.tasks.*.{}.*", self.ns, name.map_or("*", Name::as_str))
    }

    /// The two filters of a queue: what its consumer reads and what the stream accepts for it.
    pub(crate) fn queue_filters(&self, queue: &QueueName) -> [String; 2] {
        [format!("{}.due.{queue}.*.*", self.ns), format!("{}.tasks.{queue}.*.*", self.ns)]
    }

    /// Takes a task subject apart: its origin, and its queue, name and key as they were written.
    pub(crate) fn parse_task<'a>(&self, subject: &'a str) -> Option<(Origin, &'a str, &'a str, &'a str)> {
        let rest = subject.strip_prefix(self.ns.0.as_str())?.strip_prefix('.')?;
        let mut tokens = rest.splitn(4, '.');
        let origin = match tokens.next()? {
            "due" => Origin::Due,
            "tasks" => Origin::AdHoc,
            _ => return None,
        };
        Some((origin, tokens.next()?, tokens.next()?, tokens.next()?))
    }

    /// Whether a key is one of ours and not for callers.
    pub fn is_reserved_key(key: &RunKey) -> bool {
        key.as_str().starts_with('_')
            || shared::slot::Slot::is_slot_key(key)
            || shared::shard::is_shard_key(key)
    }

    /// Whether a run is one that nobody may submit: its key is ours, or it would have the record of what was refused.
    pub fn is_reserved(run: &RunId) -> bool {
        let (name, key) = (run.name.as_str(), run.key.as_str());
        Self::is_reserved_key(&run.key)
            || (name == REJECTED && (key.starts_with("seq-") || key.starts_with("delayed-")))
    }

    pub(crate) fn dead(&self, queue: &QueueName, run: &RunId) -> String {
        format!("{}.dead.{queue}.{run}", self.ns)
    }

    pub(crate) fn dead_all(&self) -> String {
        self.dead_matching(None, None)
    }

    /// The dead letter of a run, in whatever queue.
    pub(crate) fn dead_run(&self, run: &RunId) -> String {
        format!("{}.dead.*.{run}", self.ns)
    }

    /// The dead letters of this queue, under this name.
    pub(crate) fn dead_matching(&self, queue: Option<&QueueName>, name: Option<&Name>) -> String {
        let (queue, name) = (queue.map_or("*", QueueName::as_str), name.map_or("*", Name::as_str));
        format!("{}.dead.{queue}.{name}.*", self.ns)
    }

    /// Whether this is the subject of a schedule's lock.
    pub(crate) fn is_lock(&self, subject: &str) -> bool {
        matches!(self.parse_task(subject), Some((Origin::Due, _, _, LOCK_KEY)))
    }

    /// What a run says while it runs.
    pub(crate) fn log(&self, run: &RunId) -> String {
        format!("{}.log.{run}", self.ns)
    }

    pub(crate) fn log_all(&self) -> String {
        format!("{}.log.*.*", self.ns)
    }

    pub(crate) fn control_all(&self) -> String {
        format!("{}.control.>", self.ns)
    }

    pub(crate) fn trigger(&self, run: &RunId) -> String {
        format!("{}.control.trigger.{run}", self.ns)
    }

    pub(crate) fn triggers(&self) -> String {
        format!("{}.control.trigger.*.*", self.ns)
    }

    pub(crate) fn backfill(&self, schedule: &Name, id: &BackfillId) -> String {
        format!("{}.control.backfill.{schedule}.{id}", self.ns)
    }

    pub(crate) fn backfill_requests(&self) -> String {
        format!("{}.control.backfill.*.*", self.ns)
    }

    pub(crate) fn cancel(&self, run: &RunId) -> String {
        format!("{}.control.cancel.{run}", self.ns)
    }

    pub(crate) fn drain(&self, worker: &MemberId) -> String {
        format!("{}.control.drain.{worker}", self.ns)
    }

    /// What was promised under a caller's idempotency key.
    pub(crate) fn promise(&self, hash: &str) -> String {
        format!("{}.control.promise.{hash}", self.ns)
    }

    /// A verb of the consoles' service: `schedules.trigger`.
    pub(crate) fn api(&self, verb: &str) -> String {
        format!("{}.api.{verb}", self.ns)
    }

    pub(crate) fn cancels(&self) -> String {
        format!("{}.control.cancel.*.*", self.ns)
    }

    /// The subject on which every change of a run comes out.
    pub fn result(&self, run: &RunId) -> String {
        format!("{}.results.{run}", self.ns)
    }

    /// All results, or those of one name.
    pub fn results(&self, name: Option<&Name>) -> String {
        match name {
            Some(name) => format!("{}.results.{name}.*", self.ns),
            None => format!("{}.results.>", self.ns),
        }
    }
}

/// The durable consumer through which planners share control messages.
pub(crate) const CONTROL_CONSUMER: &str = "planner";

/// The durable consumer through which planners share backfills: beside the other, which a long one must not hold up.
pub(crate) const BACKFILL_CONSUMER: &str = "backfill";

/// Where all instances of a NATS micro service say what they are.
pub(crate) fn service_info(service: &TargetName) -> String {
    format!("$SRV.INFO.{service}")
}

/// The stream behind a bucket.
pub(crate) fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Where messages of a stream are read from whichever server answers first.
pub(crate) fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// The subject prefix of a bucket's keys, with its trailing dot.
pub(crate) fn bucket_prefix(bucket: &str) -> String {
    format!("$KV.{bucket}.")
}

/// Keys of the buckets.
pub(crate) mod keys {
    use super::{BackfillId, CalendarName, MemberId, Name, QueueName, TargetName, partition_of};

    pub(crate) fn schedule(name: &Name) -> String {
        format!("{}.{name}", partition_of(name.as_str()))
    }

    pub(crate) fn schedules_of(partition: u16) -> String {
        format!("{partition}.*")
    }

    /// All pauses.
    pub(crate) const PAUSES: &str = "*.*.pause";

    /// What was said of a schedule's pause: beside its definition, under the same partition.
    pub(crate) fn pause(name: &Name) -> String {
        format!("{}.pause", schedule(name))
    }

    /// The schedule that a key says a pause of, if it is such a key.
    pub(crate) fn paused_schedule(key: &str) -> Option<Name> {
        let name: Name = key.strip_suffix(".pause")?.split_once('.')?.1.parse().ok()?;
        (pause(&name) == key).then_some(name)
    }

    pub(crate) fn backfill(schedule: &Name, id: &BackfillId) -> String {
        format!("{schedule}.{id}")
    }

    pub(crate) fn backfills_of(schedule: &Name) -> String {
        format!("{schedule}.*")
    }

    pub(crate) fn target(name: &TargetName) -> String {
        format!("target.{name}")
    }

    pub(crate) fn queue(name: &QueueName) -> String {
        format!("queue.{name}")
    }

    pub(crate) fn calendar(name: &CalendarName) -> String {
        format!("calendar.{name}")
    }

    /// The keys of all seats.
    pub(crate) const SEATS: &str = "seat.*";
    /// The keys of all leases.
    pub(crate) const LEASES: &str = "lease.*";

    pub(crate) fn seat(number: u16) -> String {
        format!("seat.{number}")
    }

    pub(crate) fn lease(partition: u16) -> String {
        format!("lease.{partition}")
    }

    pub(crate) fn cursor(partition: u16) -> String {
        format!("cursor.{partition}")
    }

    /// The runs of a schedule that wait for its lock.
    pub(crate) const LINE: &str = "line";
    /// The runs of a schedule whose shards are at work.
    pub(crate) const SHARDS: &str = "shards";

    /// A list of runs of a schedule, of one of these kinds.
    pub(crate) fn list(kind: &str, name: &Name) -> String {
        format!("{kind}.{}.{name}", partition_of(name.as_str()))
    }

    /// Up to where the ends of runs were followed.
    pub(crate) fn chain(partition: u16) -> String {
        format!("chain.{partition}")
    }

    pub(crate) fn member(kind: &str, id: &MemberId) -> String {
        format!("{kind}.{id}")
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
