//! `backfill`: the slots of a range that have not run, now.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::json;
use shared::{
    Timestamp,
    backfill::{BackfillOverlap, RangeSlot},
    human_duration::HumanDuration,
    names::{BackfillId, Name},
    schedule::Schedule,
};
use streams::{
    Streams,
    backfills::{BackfillProgress, BackfillRequest, BackfillState},
    bucket::Stored,
    operate::backfill::{Plan, Prospect, plan, prospects},
};

use super::{
    apply::patiently,
    lists::alive_planners,
    machine::person,
    runs::word,
    trigger::check_known,
    wait::WaitArgs,
    when::{in_zone, parse_instant, utc},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Output, talk},
    table::{Cell, Colour, Table},
};

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
The slots are those of the definition that is in force now, and so is the task. A slot that has run, or is running, is \
left alone, so asking twice runs nothing twice. A slot that was skipped (missed, paused, overlap) is run under its own \
record. Runs are marked: `backfill`, `by`, `late`. While the schedule is paused its backfill waits.

Unless the schedule says `overlap: allow`, each run waits for the one before; regular slots that come due meanwhile \
find the schedule occupied. With --overlap allow several run at once, beside each other and beside regular runs. With \
--overlap skip a slot that finds another run is skipped.

Examples:
  cronfleet backfill daily_data_archive --from 2026-11-01T00:00:00Z --to 2026-11-24T00:00:00Z --dry-run
  cronfleet backfill daily_data_archive --from 2026-11-01T00:00:00Z --to 2026-11-24T00:00:00Z --wait --timeout 2h";

/// The arguments of `backfill`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BackfillArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    pub name: Name,

    /// The first instant that is meant (RFC 3339)
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub from: Timestamp,

    /// The last instant that is meant (RFC 3339); not in the future
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub to: Timestamp,

    /// Only show what would become of each slot
    #[arg(long, conflicts_with_all = ["wait", "timeout"])]
    pub dry_run: bool,

    /// What happens at a slot while a run of the schedule has not ended [default: allow, if the schedule says so,
    /// otherwise `buffer_all`]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub overlap: Option<Policy>,

    /// Whether its end is waited for.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What happens at a slot while a run of the schedule has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Policy {
    /// It waits for that run
    BufferAll,
    /// Several run at once
    Allow,
    /// The slot is skipped
    Skip,
}

impl From<Policy> for BackfillOverlap {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::BufferAll => BackfillOverlap::BufferAll,
            Policy::Allow => BackfillOverlap::Allow,
            Policy::Skip => BackfillOverlap::Skip,
        }
    }
}

/// Asks the planners for a backfill, or shows what it would do.
pub async fn run(args: BackfillArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let now = streams.clock().now();
    let (from, to) = (args.from, args.to);
    check_known(&streams, &args.name).await?;
    let Plan { schedule, revision, slots } = plan(&streams, &args.name, from, to).await?;
    if args.dry_run {
        return dry_run(&streams, global.output(), &args.name, &schedule, &slots).await;
    }
    let overlap = args.overlap.map_or_else(|| BackfillOverlap::of(&schedule), Into::into);
    let (id, by) = (BackfillId::new(now), person());
    let request = BackfillRequest { id, schedule: args.name, revision, from, to, overlap, by, at: now };
    ask(&streams, &request, slots.len()).await?;
    let output = global.output();
    if args.wait.wait {
        return wait_for_end(&streams, &request, args.wait.timeout(), output).await;
    }
    output.one(&json!({ "id": request.id }), || request.id.to_string(), || format!("{}\n", request.id))?;
    Ok(Exit::Done.into())
}

async fn ask(streams: &Streams, request: &BackfillRequest, slots: usize) -> anyhow::Result<()> {
    // Repeating it is harmless: it has its id already.
    patiently(streams.clock().as_ref(), || streams.backfill(request)).await?;
    talk(format!("{}: {slots} slots of schedule {}", request.id, request.schedule));
    if alive_planners(streams).await?.iter().all(|planner| planner.stopping) {
        talk("warning: no planner is alive; it is done as soon as one is: `cronfleet planner`");
    }
    let paused = streams.schedules().pause(&request.schedule).await?;
    if let Some(paused) = paused.standing(streams.clock().now()) {
        let words = paused.pause.words();
        talk(format!("warning: the schedule is {words}; it goes on when that is over: `cronfleet resume`"));
    }
    Ok(())
}

fn words(prospect: &Prospect) -> Cell {
    let status = prospect.status.map(|status| status.to_string()).unwrap_or_default();
    match (prospect.what, &prospect.reason) {
        ("runs", Some(reason)) => {
            Cell::coloured(format!("would run (it was {})", word(reason)), Some(Colour::Green))
        }
        ("runs", None) => Cell::coloured("would run", Some(Colour::Green)),
        ("has_run", _) => Cell::coloured(format!("has run: {status}"), Some(Colour::Dim)),
        ("under_way", _) => Cell::coloured(format!("is running: {status}"), Some(Colour::Cyan)),
        ("cancelled", _) => Cell::coloured("was cancelled", Some(Colour::Dim)),
        _ => Cell::coloured("left out by its calendar", Some(Colour::Dim)),
    }
}

async fn dry_run(
    streams: &Streams,
    output: Output,
    name: &Name,
    schedule: &Schedule,
    slots: &[RangeSlot],
) -> anyhow::Result<ExitCode> {
    let prospects = prospects(streams, name, slots).await?;
    let table = || {
        let mut table = Table::new(&["SLOT", "UTC", "WHAT"]);
        for prospect in &prospects {
            let slot = in_zone(prospect.slot, schedule.timezone);
            table.row(vec![slot.into(), utc(prospect.slot).into(), words(prospect)]);
        }
        table
    };
    output.list(&prospects, |prospect| prospect.run.to_string(), table, "no slots")?;
    let runs = prospects.iter().filter(|prospect| prospect.would_run).count();
    talk(format!("{runs} of {} slots would run; nothing was changed", prospects.len()));
    Ok(Exit::Done.into())
}

/// How far a backfill is, in one line.
pub fn progress_line(progress: &BackfillProgress) -> String {
    let BackfillProgress { slots, succeeded, unsuccessful, left, open, .. } = progress;
    let state = match (&progress.state, &progress.problem) {
        (BackfillState::Failed, Some(problem)) => format!("failed: {problem}"),
        (BackfillState::Paused, _) => "waits for the end of the schedule's pause".to_owned(),
        (BackfillState::Waiting, _) => "waits for an earlier one".to_owned(),
        (state, _) => word(state),
    };
    let not_well = if *unsuccessful > 0 { format!(", {unsuccessful} not successful") } else { String::new() };
    format!(
        "{} of {slots} ({succeeded} succeeded{not_well}, {left} left as they were, {} running): {state}",
        progress.done(),
        open.len()
    )
}

async fn wait_for_end(
    streams: &Streams,
    request: &BackfillRequest,
    timeout: Duration,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let clock = streams.clock().clone();
    let give_up_at = clock.elapsed() + timeout;
    let mut said = String::new();
    loop {
        // A read that failed is asked again.
        let found = streams.backfills().get(&request.schedule, &request.id).await.ok().flatten();
        if let Some(Stored { value: progress, .. }) = found {
            let now_says = progress_line(&progress);
            if now_says != said {
                talk(format!("{}: {now_says}", request.id));
                said = now_says;
            }
            if progress.is_ended() {
                return show_end(&progress, output);
            }
        }
        if clock.elapsed() >= give_up_at {
            talk(format!(
                "timed out after {}: {} is not done and goes on; look with `cronfleet describe schedule {}`",
                HumanDuration(timeout),
                request.id,
                request.schedule
            ));
            return Ok(Exit::TimedOut.into());
        }
        clock.sleep(LOOK).await;
    }
}

fn show_end(progress: &BackfillProgress, output: Output) -> anyhow::Result<ExitCode> {
    let id = &progress.request.id;
    output.one(progress, || id.to_string(), || format!("{id}: {}\n", progress_line(progress)))?;
    Ok(match progress.state {
        BackfillState::Failed => Exit::Error,
        _ if progress.unsuccessful > 0 => Exit::RunNotSuccessful,
        _ => Exit::Done,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use shared::{backfill::Fate, run::RunId, run_record::Reason, run_state::RunState, slot::Slot};

    use super::*;

    #[test]
    fn what_would_become_of_a_slot_is_said_in_words_and_in_a_field() {
        let name: Name = "hourly".parse().expect("name");
        let slot = Slot::at("2026-11-24T02:00:00Z".parse().expect("instant"));
        for (fate, what, words) in [
            (Fate::Runs, "runs", "would run"),
            (Fate::RunsAfterAll(Reason::Paused), "runs", "would run (it was paused)"),
            (Fate::Stays(RunState::Success), "has_run", "has run: SUCCESS"),
            (Fate::Stays(RunState::Cancelled), "cancelled", "was cancelled"),
            (Fate::UnderWay(RunState::Retry), "under_way", "is running: RETRY"),
            (Fate::LeftOut, "left_out", "left out by its calendar"),
        ] {
            let prospect = Prospect::of(RunId::planned(&name, slot), slot, fate);
            assert_eq!((prospect.what, prospect.would_run), (what, fate.runs()));
            let mut table = Table::new(&["WHAT"]);
            table.row(vec![super::words(&prospect)]);
            assert!(table.render(false).contains(words), "{words}");
        }
    }
}
