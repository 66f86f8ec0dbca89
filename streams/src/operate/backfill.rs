//! What a backfill would do, before it is asked for.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    Timestamp,
    backfill::{Fate, RangeSlot, slots_of},
    limits::BACKFILL_SLOTS_MAX,
    names::Name,
    run::RunId,
    run_record::Reason,
    run_state::RunState,
    schedule::Schedule,
    slot::Slot,
};

use crate::{ReadError, Streams, bucket::Stored};

/// A range that can be back-filled.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The definition that is in force now.
    pub schedule: Schedule,
    /// Its revision.
    pub revision: u64,
    /// Its slots in the range.
    pub slots: Vec<RangeSlot>,
}

/// A range that cannot be back-filled.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// What decides could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such schedule.
    #[error("there is no schedule {0}, or it was deleted just now")]
    Gone(Name),
    /// The range itself.
    #[error("{0}")]
    Range(String),
}

/// The slots of a range, or why there is nothing to back-fill in it.
pub async fn plan(streams: &Streams, name: &Name, from: Timestamp, to: Timestamp) -> Result<Plan, PlanError> {
    let now = streams.clock().now();
    let range = |words: String| Err(PlanError::Range(words));
    if to < from {
        return range(format!("--to {} is before --from {}: no slot is between them", utc(to), utc(from)));
    }
    if to > now {
        return range(format!(
            "--to {} is in the future: a run never starts before its slot; it is {} now",
            utc(to),
            utc(now)
        ));
    }
    let Some(Stored { value: schedule, revision, .. }) = streams.schedules().get(name).await? else {
        return Err(PlanError::Gone(name.clone()));
    };
    let calendar = match &schedule.calendar {
        Some(calendar) => streams.catalog().calendar(calendar).await?,
        None => None,
    };
    let slots = slots_of(&schedule, calendar.as_ref(), from, to, BACKFILL_SLOTS_MAX + 1);
    match (slots.len(), schedule.after()) {
        (0, Some(after)) => range(format!(
            "schedule {name} has no slots: it follows the runs of {}; back-fill that one, or run this one now with `cronfleet \
             trigger`",
            after.schedule
        )),
        (0, None) => range(format!("schedule {name} has no slot from {} to {}", utc(from), utc(to))),
        (count, _) if count > BACKFILL_SLOTS_MAX => range(format!(
            "schedule {name} has more than {BACKFILL_SLOTS_MAX} slots from {} to {}; ask for the range in parts",
            utc(from),
            utc(to)
        )),
        _ => Ok(Plan { schedule, revision, slots }),
    }
}

/// What would become of each of these slots.
pub async fn prospects(
    streams: &Streams,
    name: &Name,
    slots: &[RangeSlot],
) -> Result<Vec<Prospect>, ReadError> {
    let stored = streams.ledger().list(&format!("{name}.*")).await?;
    let records: BTreeMap<RunId, _> =
        stored.into_iter().map(|stored| (stored.value.id.clone(), stored.value)).collect();
    let prospect = |RangeSlot { slot, is_open }: &RangeSlot| {
        let run = RunId::planned(name, *slot);
        let fate = Fate::of(records.get(&run), *is_open);
        Prospect::of(run, *slot, fate)
    };
    Ok(slots.iter().map(prospect).collect())
}

fn utc(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// What would become of a slot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Prospect {
    /// The slot.
    pub slot: Timestamp,
    /// Its run.
    pub run: RunId,
    /// Whether it would run.
    pub would_run: bool,
    /// `runs`, `has_run`, `under_way`, `cancelled` or `left_out`.
    pub what: &'static str,
    /// The state of the run it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunState>,
    /// Why it was skipped, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl Prospect {
    /// What this fate means for a slot.
    pub fn of(run: RunId, slot: Slot, fate: Fate) -> Self {
        let (what, status, reason) = match fate {
            Fate::Runs => ("runs", None, None),
            Fate::RunsAfterAll(reason) => ("runs", Some(RunState::Cancelled), Some(reason)),
            Fate::Stays(RunState::Cancelled) => ("cancelled", Some(RunState::Cancelled), None),
            Fate::Stays(status) => ("has_run", Some(status), None),
            Fate::UnderWay(status) => ("under_way", Some(status), None),
            Fate::LeftOut => ("left_out", None, None),
        };
        Self { slot: slot.instant(), run, would_run: fate.runs(), what, status, reason }
    }
}
