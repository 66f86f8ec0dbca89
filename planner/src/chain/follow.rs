//! What becomes of an end for a schedule that may follow it: a run, a skip with its reason, or nothing. Record first, then
//! task, as for a slot: whoever does it again finds what was done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use shared::{
    Timestamp,
    after::Upstream,
    calendar::Calendar,
    limits::NOTE_BYTES_MAX,
    names::{Name, QueueName},
    pause::{PauseEpoch, pause_at},
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::RunEvent,
    schedule::Schedule,
};
use streams::{ReadError, Streams, bucket::Stored, schedules::Version};

use super::work::Item;
use crate::{
    dispatch::{DispatchError, Dispatcher, describe, undeclared},
    machine::dispatching::{Dispatching, IfPending, Wanted, closed},
    perform::{drive, understood},
};

// What a pause says of itself goes into a note whole.
const _: () = assert!(shared::limits::PAUSE_REASON_CHARS_MAX < NOTE_BYTES_MAX);

/// What is done about an end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// The schedule does not follow it.
    Nothing,
    /// It runs.
    Run,
    /// Its run is recorded as skipped, with this note.
    Skip(Reason, Option<String>),
}

/// What is done about an end that was stored at this instant, by the definition in force then. Pure.
fn decide(
    schedule: &Schedule,
    upstream: &RunRecord,
    ended_at: Timestamp,
    pauses: &[PauseEpoch],
    calendar: Option<&Calendar>,
) -> Decision {
    let is_outside = schedule.bounds.as_ref().is_some_and(|bounds| {
        bounds.start.is_some_and(|start| ended_at < start) || bounds.end.is_some_and(|end| ended_at > end)
    });
    if is_outside || !schedule.after().is_some_and(|after| after.follows(upstream)) {
        return Decision::Nothing;
    }
    if let Some(pause) = pause_at(pauses, ended_at) {
        return Decision::Skip(Reason::Paused, Some(pause.pause.words()));
    }
    // A calendar that is named and not declared lets nothing run, as for slots.
    let date = ended_at.with_timezone(&schedule.timezone).date_naive();
    if schedule.calendar.is_some() && !calendar.is_some_and(|calendar| calendar.includes(date)) {
        return Decision::Skip(Reason::SkippedCalendar, None);
    }
    Decision::Run
}

/// The definition in force at an instant, half-open as for slots: a version counts for what comes *after* it.
fn in_force(versions: &[Version], at: Timestamp) -> Option<(&Schedule, u64)> {
    let version = versions.iter().rev().find(|version| version.since < at)?;
    Some((version.definition.as_ref().ok()?.as_ref()?, version.revision))
}

/// Follows ends. Cheap to clone.
#[derive(Clone)]
pub(super) struct Followers {
    streams: Streams,
    dispatcher: Dispatcher,
    /// The versions of definitions that are younger than an end was, by their newest revision: there may be many such ends
    /// after an outage, and each reading is a consumer.
    versions: Arc<Mutex<HashMap<Name, Remembered>>>,
}

/// The versions of a definition, and the newest revision among them.
type Remembered = (u64, Arc<Vec<Version>>);

/// Definitions whose versions are remembered.
const VERSIONS_KEPT_MAX: usize = 256;

impl Followers {
    pub(super) fn new(streams: Streams, dispatcher: Dispatcher) -> Self {
        Self { streams, dispatcher, versions: Arc::default() }
    }

    /// Deals with one end for one schedule; it may have been done before.
    pub(super) async fn follow(&self, item: &Item) -> Result<(), DispatchError> {
        let (name, end) = (&item.downstream, &*item.end);
        let Some((schedule, revision)) = self.definition_at(name, end.stored_at).await? else {
            return Ok(());
        };
        let calendar = match &schedule.calendar {
            Some(calendar) => understood(self.streams.catalog().calendar(calendar).await)?,
            None => None,
        };
        let pauses = self.pauses_at(name, end.stored_at).await?;
        let decision = decide(&schedule, &end.value, end.stored_at, &pauses, calendar.as_ref());
        if decision == Decision::Nothing {
            return Ok(());
        }
        let upstream = Upstream {
            run: end.value.id.clone(),
            status: end.value.status,
            ended_at: end.stored_at,
            retried: end.value.times_retried(),
        };
        let now = self.streams.clock().now();
        let record = RunRecord {
            definition_revision: Some(revision),
            shards: schedule.shards(),
            ..RunRecord::chained(name, upstream, schedule.queue.clone(), now)
        };
        let record = describe(record, &schedule.task);
        if let Decision::Skip(reason, note) = decision {
            return self.skip(record, &schedule, reason, note).await;
        }
        if !self.is_declared(&schedule.queue).await? {
            let why = undeclared(&schedule.queue);
            return self.dispatcher.refuse(&record, Reason::Unknown, &why).await.map(|_| ());
        }
        self.dispatcher.run(record, schedule.task, schedule.overlap).await.map(|_| ())
    }

    /// Records a run that is skipped. One that was to run when somebody saw its end first, and whose task may not be in
    /// the queue, runs: that decision stands.
    async fn skip(
        &self,
        record: RunRecord,
        schedule: &Schedule,
        reason: Reason,
        note: Option<String>,
    ) -> Result<(), DispatchError> {
        let record = RunRecord { note, ..record };
        let Some(skipped) = closed(&record, RunEvent::Skipped, reason, None) else { return Ok(()) };
        let if_pending = if self.is_declared(&schedule.queue).await? {
            let (task, overlap) = (Arc::clone(&schedule.task), schedule.overlap);
            IfPending::Publish(Box::new(Wanted { record: Arc::new(record), task, overlap, is_alone: false }))
        } else {
            let error = RunError::new(ErrorKind::Malformed, undeclared(&schedule.queue));
            IfPending::Reject(Reason::Malformed, error)
        };
        drive(&self.streams, Dispatching::close(skipped, if_pending)).await.map(|_| ())
    }

    async fn is_declared(&self, queue: &QueueName) -> Result<bool, ReadError> {
        Ok(understood(self.streams.catalog().queue(queue).await)?.is_some())
    }

    /// The definition of a schedule that was in force at an instant; none if there was none, or it is deleted now: then
    /// nobody wants what it would do.
    async fn definition_at(&self, name: &Name, at: Timestamp) -> Result<Option<(Schedule, u64)>, ReadError> {
        let newest = match self.streams.schedules().get(name).await {
            Ok(Some(newest)) => newest,
            Ok(None) | Err(ReadError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if newest.stored_at < at {
            return Ok(Some((newest.value, newest.revision)));
        }
        let versions = self.versions_of(name, &newest).await?;
        Ok(in_force(&versions, at).map(|(schedule, revision)| (schedule.clone(), revision)))
    }

    async fn versions_of(
        &self,
        name: &Name,
        newest: &Stored<Schedule>,
    ) -> Result<Arc<Vec<Version>>, ReadError> {
        let known = self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((_, versions)) = known.filter(|(revision, _)| *revision == newest.revision) {
            return Ok(versions);
        }
        let versions = Arc::new(self.streams.schedules().history(name).await?);
        let mut kept = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= VERSIONS_KEPT_MAX {
            kept.clear();
        }
        kept.insert(name.clone(), (newest.revision, Arc::clone(&versions)));
        Ok(versions)
    }

    /// What was said of a schedule's pause, as far as it matters at an instant.
    async fn pauses_at(&self, name: &Name, at: Timestamp) -> Result<Vec<PauseEpoch>, ReadError> {
        let newest = self.streams.schedules().pause(name).await?;
        if newest.since < at { Ok(vec![newest]) } else { self.streams.schedules().pause_history(name).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{names::QueueName, pause::Pause, slot::Slot};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-27T{text}Z").parse().expect("instant")
    }

    fn schedule(fields: &str) -> Schedule {
        let json = format!(r#"{{"after":{{"schedule":"up"}}{fields},"task":{{"command":["a"]}}}}"#);
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{fields}: {error}"))
    }

    fn ended(event: RunEvent) -> RunRecord {
        let up = "up".parse().expect("name");
        let planned =
            RunRecord::planned(&up, Slot::at(at("02:00:00")), QueueName::default_queue(), at("02:00:00"));
        let started = planned.apply(RunEvent::Started, at("02:00:01")).expect("starts");
        started.apply(event, at("02:00:02")).expect("ends")
    }

    #[test]
    fn an_end_is_followed_within_the_bounds_of_the_schedule_unless_it_is_paused_or_its_day_is_closed() {
        let weekdays: Calendar = serde_json::from_str(r#"{"weekdays":"mon-fri"}"#).expect("calendar");
        let pause = |until: Option<&str>| Pause { by: "ann".to_owned(), reason: None, until: until.map(at) };
        let said = |since: &str, pause| PauseEpoch { since: at(since), revision: 1, pause: Some(pause) };
        let paused = [said("01:00:00", pause(None))];
        let over = [said("01:00:00", pause(Some("02:30:00")))];
        let skip = |reason| Decision::Skip(reason, None);
        for (fields, ended_at, pauses, declared, expected) in [
            ("", "03:00:00", &[][..], false, Decision::Run),
            (r#","start":"2026-11-27T03:00:00Z""#, "03:00:00", &[], false, Decision::Run),
            (r#","start":"2026-11-27T03:00:00Z""#, "02:59:59", &[], false, Decision::Nothing),
            (r#","end":"2026-11-27T03:00:00Z""#, "03:00:01", &[], false, Decision::Nothing),
            ("", "03:00:00", &over, false, Decision::Run),
            ("", "00:30:00", &paused, false, Decision::Run),
            (r#","calendar":"c""#, "03:00:00", &[], true, Decision::Run),
            (r#","calendar":"c""#, "03:00:00", &[], false, skip(Reason::SkippedCalendar)),
            // 18:00 UTC on a Friday is Saturday in Shanghai.
            (
                r#","calendar":"c","timezone":"Asia/Shanghai""#,
                "18:00:00",
                &[],
                true,
                skip(Reason::SkippedCalendar),
            ),
            (
                "",
                "03:00:00",
                &paused,
                false,
                Decision::Skip(Reason::Paused, Some("paused by ann".to_owned())),
            ),
        ] {
            let calendar = declared.then_some(&weekdays);
            let found =
                decide(&schedule(fields), &ended(RunEvent::Succeeded), at(ended_at), pauses, calendar);
            assert_eq!(found, expected, "{fields} {ended_at}");
        }
        let failed = ended(RunEvent::FailedForGood);
        assert_eq!(decide(&schedule(""), &failed, at("03:00:00"), &[], None), Decision::Nothing);
    }

    #[test]
    fn an_end_is_followed_by_the_definition_in_force_when_it_came() {
        let version = |revision, since: &str, definition| Version {
            name: "down".parse().expect("name"),
            definition,
            revision,
            since: at(since),
        };
        let versions = [
            version(1, "01:00:00", Ok(Some(schedule("")))),
            version(2, "02:00:00", Ok(Some(schedule(r#","queue":"reports""#)))),
            version(3, "03:00:00", Ok(None)),
            version(4, "04:00:00", Err("nonsense".to_owned())),
            version(5, "05:00:00", Ok(Some(schedule("")))),
        ];
        for (ended_at, revision) in [
            ("01:00:00", None),
            ("01:00:01", Some(1)),
            ("02:00:00", Some(1)),
            ("02:30:00", Some(2)),
            ("03:30:00", None),
            ("04:30:00", None),
            ("05:30:00", Some(5)),
        ] {
            let found = in_force(&versions, at(ended_at)).map(|(_, revision)| revision);
            assert_eq!(found, revision, "{ended_at}");
        }
    }
}
