//! The model and a real server are asked the same, and must answer the same.
//!
//! What is asked is chosen by a seed, on few schedules, runs and partitions, so that asks meet: over revisions that are
//! stale or never were, under locks that are taken, after deletions. Everything but instants and the words of an error
//! must be equal, revisions and sequences included.

use shared::{
    Timestamp,
    names::{Name, QueueName},
    pause::{Pause, PauseState},
    queue::QueueSettings,
    run::RunId,
    run_record::RunRecord,
    schedule::Schedule,
};
use streams::{
    Streams, WriteError,
    dead::DeadLetter,
    ledger::{Creation, Update},
};

use self::choice::{Chooser, Step};
use super::Store;
use crate::{
    machine::ask::{Answer, Publishing},
    perform::perform,
};

mod choice;

/// How far an instant of the server may be from ours.
const CLOCK_TOLERANCE_S: i64 = 120;

/// Asks a model and a server so many things, chosen by a seed. The server must hold nothing but what `init` makes.
///
/// `Err` says where they differ.
pub async fn compare(streams: &Streams, seed: u64, steps: usize) -> Result<(), String> {
    let mut model = Store::default();
    let mut chooser = Chooser::new(seed);
    for step in chooser.beginning() {
        both(streams, &mut model, &step)
            .await
            .map_err(|why| format!("seed {seed}, at the beginning: {why}"))?;
    }
    for number in 0..steps {
        let step = chooser.next(&model, streams.clock().now());
        both(streams, &mut model, &step)
            .await
            .map_err(|why| format!("seed {seed}, step {number} of {steps}: {why}"))?;
    }
    Ok(())
}

async fn both(streams: &Streams, model: &mut Store, step: &Step) -> Result<(), String> {
    let now = streams.clock().now();
    let theirs = on_server(streams, step).await?;
    let ours = on_model(model, step, now);
    if alike(&ours, &theirs) {
        return Ok(());
    }
    Err(format!("{step:?}\n  the model answers {ours:?}\n  the server answers {theirs:?}"))
}

fn on_model(model: &mut Store, step: &Step, now: Timestamp) -> Answer {
    match step {
        Step::Ask(ask) => model.perform(ask, now),
        Step::Declare(queue) => {
            model.tasks.declare(queue.clone());
            Answer::Done
        }
        Step::Calendar(name, calendar) => {
            model.definitions.calendars.insert(name.clone(), calendar.clone());
            Answer::Done
        }
        Step::Define(name, schedule) => {
            model.definitions.define(name, schedule.as_deref().cloned(), now);
            Answer::Done
        }
        Step::SayPause(name, pause, _) => {
            Answer::Revision(model.definitions.say_pause(name, pause.clone(), now))
        }
        Step::Seat(number, seat, over) => {
            Answer::Updated(model.planners.write_seat(*number, seat, *over, now))
        }
        Step::Lease(partition, lease, over) => {
            Answer::Updated(model.planners.write_lease(*partition, lease, *over, now))
        }
        Step::ReadSeat(number) => {
            Answer::Revision(model.planners.seat(*number).map_or(0, |(_, revision, _)| revision))
        }
        Step::ReadLease(partition) => {
            Answer::Revision(model.planners.lease(*partition).map_or(0, |(_, revision)| revision))
        }
        Step::Bury(record) => {
            model.dead.insert(record.id.clone());
            Answer::Done
        }
    }
}

async fn on_server(streams: &Streams, step: &Step) -> Result<Answer, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let updated = |written: Result<u64, WriteError>| match written {
        Ok(revision) => Ok(Answer::Updated(Update::Stored(revision))),
        Err(WriteError::Conflict { .. }) => Ok(Answer::Updated(Update::Stale)),
        Err(error) => Err(error.to_string()),
    };
    let (partitions, schedules) = (streams.partitions(), streams.schedules());
    match step {
        Step::Ask(ask) => return Ok(perform(streams, ask.clone()).await),
        Step::Declare(queue) => {
            streams.declare_queue(queue, &QueueSettings::default()).await.map_err(|error| words(&error))?;
        }
        Step::Calendar(name, calendar) => {
            streams.catalog().apply_calendar(name, calendar).await.map_err(|error| words(&error))?;
        }
        Step::Define(name, Some(schedule)) => {
            schedules.apply(name, schedule).await.map_err(|error| words(&error))?;
        }
        Step::Define(name, None) => {
            schedules.delete(name).await.map_err(|error| words(&error))?;
        }
        Step::SayPause(name, pause, over) => {
            let state = match pause {
                Some(pause) => PauseState::Paused(pause.clone()),
                None => PauseState::Resumed { by: "ann".to_owned() },
            };
            let said = schedules.say_pause(name, &state, *over).await;
            return said.map(Answer::Revision).map_err(|error| words(&error));
        }
        Step::Seat(number, seat, over) => return updated(partitions.write_seat(*number, seat, *over).await),
        Step::Lease(partition, lease, over) => {
            return updated(partitions.write_lease(*partition, lease, *over).await);
        }
        Step::ReadSeat(number) => {
            let found = partitions.seat(*number).await.map_err(|error| words(&error))?;
            return Ok(Answer::Revision(found.revision));
        }
        Step::ReadLease(partition) => {
            let found = partitions.lease(*partition).await.map_err(|error| words(&error))?;
            return Ok(Answer::Revision(found.revision));
        }
        Step::Bury(record) => {
            let run = (**record).clone();
            let letter = DeadLetter {
                run,
                task: None,
                raw: None,
                subject: "a.subject".to_owned(),
                attempts: Vec::new(),
            };
            streams.bury(letter).await.map_err(|error| words(&error))?;
        }
    }
    Ok(Answer::Done)
}

/// Whether two answers say the same, the words of errors and the time between two clocks aside.
fn alike(ours: &Answer, theirs: &Answer) -> bool {
    let near = |a: Timestamp, b: Timestamp| (a - b).num_seconds().abs() <= CLOCK_TOLERANCE_S;
    match (ours, theirs) {
        (Answer::Failed(_), Answer::Failed(_))
        | (Answer::Published(Publishing::Never(_)), Answer::Published(Publishing::Never(_))) => true,
        (Answer::Created(Creation::Exists(a)), Answer::Created(Creation::Exists(b)))
        | (Answer::Record(Some(a)), Answer::Record(Some(b))) => {
            // When a run was cancelled who cancels says by a clock of its own.
            let ends = (a.value.finished_at, b.value.finished_at);
            let is_end_near = ends.0.zip(ends.1).map_or(ends.0 == ends.1, |(a, b)| near(a, b));
            let timeless = |record: &RunRecord| RunRecord { finished_at: None, ..record.clone() };
            timeless(&a.value) == timeless(&b.value)
                && a.revision == b.revision
                && is_end_near
                && near(a.stored_at, b.stored_at)
        }
        (Answer::Holder(Some(a)), Answer::Holder(Some(b))) => {
            (&a.run, &a.queue, a.sequence) == (&b.run, &b.queue, b.sequence) && near(a.since, b.since)
        }
        (Answer::Pauses(a), Answer::Pauses(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| (&a.pause, a.revision) == (&b.pause, b.revision) && near(a.since, b.since))
        }
        (Answer::Versions(a), Answer::Versions(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    let say = |version: &streams::schedules::Version| {
                        (version.name.clone(), version.definition.clone(), version.revision)
                    };
                    say(a) == say(b) && near(a.since, b.since)
                })
        }
        (ours, theirs) => ours == theirs,
    }
}

/// What a step may be about.
pub(super) fn run_of(name: &Name, key: u64) -> Option<RunId> {
    format!("{name}.20261124T0200{key:02}Z").parse().ok()
}

/// A pause as somebody says it.
pub(super) fn pause(reason: u64) -> Pause {
    Pause { by: "ann".to_owned(), reason: Some(format!("reason {reason}")), until: None }
}

/// A definition, each under its number another one.
pub(super) fn schedule(number: u64) -> Option<Schedule> {
    let json = format!(
        r#"{{"every":"{}s","description":"number {number}","task":{{"target_service":"a","action":"b"}}}}"#,
        1 + number % 50
    );
    serde_json::from_str(&json).ok()
}

/// A record that differs from others of its run.
pub(super) fn record(run: RunId, queue: QueueName, number: u64) -> RunRecord {
    RunRecord::pending(run, queue, Timestamp::UNIX_EPOCH).noting(format!("number {number}"))
}
