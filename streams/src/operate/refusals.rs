//! Why a run is not retried, and what to do instead.

use shared::{
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

use crate::dead::Retrying;

/// Why a run is not retried, and what to do instead.
pub fn refusal(run: &RunId, refused: &Retrying) -> String {
    match refused {
        Retrying::Queued(record) | Retrying::Lives(record) => {
            format!("{run} is {}: it has not failed, so there is nothing to retry", record.status)
        }
        Retrying::Unknown => {
            format!("there is no run {run}; `cronfleet get dead` lists those that can be retried")
        }
        Retrying::Ended(record) => format!("{run} is {}; {}", record.status, instead(record)),
        Retrying::NoLetter(record) => no_letter(record),
        Retrying::Unreadable(letter) => {
            let why = letter.run.error.as_ref().map_or("", |error| error.message.as_str());
            format!(
                "the task of {run} cannot be understood, so it cannot be run again ({why}); `cronfleet describe dead {run}` \
                 shows what came: mend it and submit it under another key, `cronfleet submit {} -d @FILE`",
                run.name
            )
        }
        Retrying::NoQueue(queue) => {
            format!("queue {queue} of {run} is not declared; add it under `queues:`, apply, and retry then")
        }
        Retrying::Occupied(Some(holder)) => format!(
            "{holder} is queued or running, and runs of {} may not overlap; retry {run} when that has ended, or cancel it: \
             `cronfleet cancel {holder}`",
            run.name
        ),
        Retrying::Occupied(None) => {
            format!(
                "another run of {} is queued or running, and they may not overlap; retry {run} when it has ended",
                run.name
            )
        }
        Retrying::WholeLives(whole) => format!(
            "{run} is a part of {}, which is {}; retry it when the whole has ended",
            whole.id, whole.status
        ),
    }
}

fn instead(record: &RunRecord) -> String {
    let again = match &record.schedule {
        Some(schedule) => format!("`cronfleet trigger {schedule}` makes another run of its schedule"),
        None => format!("`cronfleet submit {} -d JSON` submits it anew, under another key", record.id.name),
    };
    let skipped = record.skipped_because().and(record.schedule.as_ref());
    match (record.status, skipped) {
        (RunState::Cancelled, Some(schedule)) => {
            format!("it was skipped: `cronfleet backfill {schedule}` runs slots that were")
        }
        (RunState::Cancelled, None) => format!("what was cancelled is not kept to be retried: {again}"),
        _ => format!("it is retried only if it failed: {again}"),
    }
}

fn no_letter(record: &RunRecord) -> String {
    let run = &record.id;
    if record.reason == Some(Reason::Shards) {
        return format!(
            "{run} failed because parts of it did, and those have the dead letters: `cronfleet get dead --schedule {}`, then \
             retry them",
            run.name
        );
    }
    if record.attempt == 0 && record.schedule.is_some() {
        let why = record.error.as_ref().map_or("", |error| error.message.as_str());
        return format!(
            "{run} failed before it was dispatched ({why}), so no task was kept; {}",
            instead(record)
        );
    }
    format!(
        "{run} failed and its dead letter is not there: its worker is about to store it (try again in a moment), or it made \
         room for newer ones; {}",
        instead(record)
    )
}

/// Says in a few words why a run was left alone.
pub fn in_short(refused: &Retrying) -> Option<String> {
    Some(match refused {
        Retrying::Queued(_) => return None,
        Retrying::Unknown => "the ledger does not know it any more".to_owned(),
        Retrying::Lives(record) | Retrying::Ended(record) => format!("it is {}", record.status),
        Retrying::NoLetter(_) => "its dead letter is not there".to_owned(),
        Retrying::Unreadable(_) => "its task cannot be understood".to_owned(),
        Retrying::NoQueue(queue) => format!("queue {queue} is not declared"),
        Retrying::Occupied(Some(holder)) => format!("{holder} has not ended"),
        Retrying::Occupied(None) => "another run of its schedule has not ended".to_owned(),
        Retrying::WholeLives(whole) => format!("{} has not ended", whole.id),
    })
}
