//! The names of what waits: a submission for its instant, a run for its next attempt.

use std::collections::BTreeSet;

use shared::{
    hash::partition_of,
    limits::PARTITIONS,
    names::{Name, QueueName},
    run::RunId,
};

use super::Names;

impl Names {
    pub(crate) fn delayed_stream(&self) -> String {
        format!("{}_DELAYED", self.ns)
    }

    /// The subject anybody submits a task to that shall wait.
    pub fn delayed(&self, queue: &QueueName, run: &RunId) -> String {
        format!("{}.delayed.{queue}.{run}", self.ns)
    }

    /// The subject a message was submitted to, from the tokens of the one it is stored under.
    pub(crate) fn delayed_as_submitted(&self, queue: &str, name: &str, key: &str) -> String {
        format!("{}.delayed.{queue}.{name}.{key}", self.ns)
    }

    pub(crate) fn delayed_all(&self) -> String {
        format!("{}.delayed.*.*.*", self.ns)
    }

    /// What the server makes of that subject: the partition comes first, so that it can be filtered by.
    pub(crate) fn delayed_stored(&self) -> String {
        let partition = format!("{{{{partition({PARTITIONS},2,3)}}}}");
        format!("{}.delayed.{partition}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}", self.ns)
    }

    /// The partition of a run that waits: of name and key, so that many runs of one name are shared among planners.
    pub(crate) fn delayed_partition(run: &RunId) -> u16 {
        partition_of(&format!("{}{}", run.name, run.key))
    }

    /// A run that waits, in whatever queue.
    pub(crate) fn delayed_run(&self, run: &RunId) -> String {
        format!("{}.delayed.{}.*.{run}", self.ns, Self::delayed_partition(run))
    }

    /// The filters for what waits in these partitions, for its instant or for its next attempt.
    pub(crate) fn delayed_in(&self, partitions: &BTreeSet<u16>) -> Vec<String> {
        if partitions.len() == usize::from(PARTITIONS) {
            return vec![self.delayed_matching(None, None), self.parked_all()];
        }
        let of = |kind: &'static str| {
            partitions.iter().map(move |partition| format!("{}.{kind}.{partition}.*.*.*", self.ns))
        };
        of("delayed").chain(of("parked")).collect()
    }

    /// The subject of a run that waits for its next attempt outside its queue. Its partition stands in it as it is written, so
    /// that it is stored under what it was sent to.
    pub(crate) fn parked(&self, queue: &QueueName, run: &RunId) -> String {
        format!("{}.parked.{}.{queue}.{run}", self.ns, Self::delayed_partition(run))
    }

    pub(crate) fn parked_all(&self) -> String {
        format!("{}.parked.*.*.*.*", self.ns)
    }

    /// A run that waits for its next attempt, in whatever queue.
    pub(crate) fn parked_run(&self, run: &RunId) -> String {
        format!("{}.parked.{}.*.{run}", self.ns, Self::delayed_partition(run))
    }

    /// All runs of a schedule that wait for their next attempt outside their queues.
    pub(crate) fn parked_of(&self, schedule: &Name) -> String {
        format!("{}.parked.*.*.{schedule}.*", self.ns)
    }

    /// Takes such a subject apart: its partition, and its queue, name and key as they were written.
    pub(crate) fn parse_parked<'a>(&self, stored: &'a str) -> Option<(u16, &'a str, &'a str, &'a str)> {
        self.parse_partitioned(".parked.", stored)
    }

    /// The filter for what waits in this queue, under this name.
    pub(crate) fn delayed_matching(&self, queue: Option<&QueueName>, name: Option<&Name>) -> String {
        let (queue, name) = (queue.map_or("*", QueueName::as_str), name.map_or("*", Name::as_str));
        format!("{}.delayed.*.{queue}.{name}.*", self.ns)
    }

    /// Takes a stored subject apart: its partition, and its queue, name and key as they were written.
    pub(crate) fn parse_delayed<'a>(&self, stored: &'a str) -> Option<(u16, &'a str, &'a str, &'a str)> {
        self.parse_partitioned(".delayed.", stored)
    }

    fn parse_partitioned<'a>(&self, kind: &str, stored: &'a str) -> Option<(u16, &'a str, &'a str, &'a str)> {
        let rest = stored.strip_prefix(self.ns.0.as_str())?.strip_prefix(kind)?;
        let mut tokens = rest.splitn(4, '.');
        let partition = tokens.next()?.parse().ok()?;
        Some((partition, tokens.next()?, tokens.next()?, tokens.next()?))
    }
}
