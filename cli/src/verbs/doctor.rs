//! `doctor`: what is wrong with the fleet, and what to do about it.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use serde::Serialize;
use shared::{
    cron::tzdb_version,
    definitions::Definitions,
    limits::{CLOCK_OFFSET_WARN, PARTITIONS},
    names::QueueName,
};
use streams::{ReadError, Streams, members::PlannerStatus};

use super::{
    changes::Fleet,
    lists::{alive_planners, alive_workers, serving},
    unreached::{LOOK_BACK, RECORDS_MAX, unreached},
    when::utc,
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Format, Output, printable, write},
    table::{Cell, Colour, Table},
};

const EXAMPLES: &str = "\
Exit code 0: all well. 1: something needs repair, or the server cannot be reached.

Examples:
  cronfleet doctor
  cronfleet doctor --quiet    only what needs repair; for health checks";

/// From here on a stream is worth an operator's look.
const FULL_PERCENT: u64 = 80;

/// The arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Say nothing of what is well
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    what: String,
    /// Whether it is well.
    ok: bool,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<String>,
}

/// What was looked at so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn well(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.0.push(Finding { what: what.into(), ok: true, found: found.into(), repair: None });
    }

    fn ill(&mut self, what: impl Into<String>, found: impl Into<String>, repair: impl Into<String>) {
        self.0.push(Finding {
            what: what.into(),
            ok: false,
            found: found.into(),
            repair: Some(repair.into()),
        });
    }
}

/// Looks at everything.
pub async fn run(args: DoctorArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let mut findings = Findings::default();
    findings.well("server", format!("nats-server {}, with JetStream", streams.server_version()));
    if topology(&streams, &mut findings).await? {
        fullness(&streams, &mut findings).await?;
        planners(&streams, &mut findings).await?;
        let fleet = Fleet::read(&streams).await?;
        queues(&streams, &fleet, &mut findings).await?;
        schedules(&fleet, &mut findings);
        targets(&streams, &fleet, &mut findings).await?;
        zones(&zone_data_of_cursors(&streams).await?, &mut findings);
    }
    let ill = findings.0.iter().any(|finding| !finding.ok);
    if args.quiet {
        findings.0.retain(|finding| !finding.ok);
    }
    show(&findings.0, global.output(), args.quiet)?;
    Ok(if ill { Exit::Error } else { Exit::Done }.into())
}

/// Whether enough is there to go on looking.
async fn topology(streams: &Streams, findings: &mut Findings) -> anyhow::Result<bool> {
    let differences = streams.examine(None).await?;
    if differences.is_empty() {
        findings.well("streams", "all there, and as they should be");
    }
    let missing = differences.iter().any(|difference| difference.setting == "missing");
    for difference in differences {
        let repair = if difference.setting == "missing" {
            "run `cronfleet init`".to_owned()
        } else {
            format!(
                "make it {} again (with `nats stream edit` or `nats consumer edit`), or ask who changed it",
                difference.wanted
            )
        };
        let found = if difference.setting == "missing" {
            "missing".to_owned()
        } else {
            format!("{} is {}, should be {}", difference.setting, difference.found, difference.wanted)
        };
        findings.ill(difference.what, found, repair);
    }
    Ok(!missing)
}

/// A full stream refuses what comes next: then nothing new is dispatched or recorded.
async fn fullness(streams: &Streams, findings: &mut Findings) -> anyhow::Result<()> {
    let streams = streams.fullness().await?;
    let mut fullest = 0;
    for (name, bytes, max) in streams {
        let percent = bytes.saturating_mul(100) / max.max(1);
        fullest = fullest.max(percent);
        if percent >= FULL_PERCENT {
            let repair = "raise its max_bytes (`nats stream edit --max-bytes`), or keep less";
            findings.ill(
                format!("stream {name}"),
                format!("{percent} % full: {bytes} of {max} bytes"),
                repair,
            );
        }
    }
    if fullest < FULL_PERCENT {
        findings.well("room", format!("the fullest stream is at {fullest} %"));
    }
    Ok(())
}

async fn planners(streams: &Streams, findings: &mut Findings) -> anyhow::Result<()> {
    let planners = alive_planners(streams).await?;
    let count = planners.iter().filter(|planner| !planner.stopping).count();
    if count == 0 {
        findings.ill("planners", "none is alive: nothing is dispatched", "start one: `cronfleet planner`");
        return Ok(());
    }
    let held: BTreeSet<u16> =
        planners.iter().flat_map(|planner| planner.partitions.iter().copied()).collect();
    if held.len() < usize::from(PARTITIONS) {
        findings.ill(
            "planners",
            format!("{count} alive, which hold {} of {PARTITIONS} partitions", held.len()),
            "look again in 5 s: a planner that starts, or takes over from one that died, needs a moment",
        );
    } else {
        findings.well("planners", format!("{count} alive, which hold all {PARTITIONS} partitions"));
    }
    for planner in &planners {
        clock_and_backlog(planner, findings);
    }
    Ok(())
}

/// Whether a planner's clock can be believed, and whether slots have to wait at it.
fn clock_and_backlog(planner: &PlannerStatus, findings: &mut Findings) {
    let what = format!("planner {}", planner.id);
    let warn_ms = i64::try_from(CLOCK_OFFSET_WARN.as_millis()).unwrap_or(i64::MAX);
    if let Some(why) = &planner.clock_suspect {
        let repair = "set the clock of its machine right, or the server's (NTP): until they agree it dispatches nothing";
        findings.ill(what.clone(), format!("its clock is suspect: {why}"), repair);
    } else if let Some(ms) = planner.clock_offset_ms.filter(|ms| ms.abs() > warn_ms) {
        let repair = "check NTP on its machine and on the server's";
        findings.ill(what.clone(), format!("its clock is {ms:+} ms ahead of the server's"), repair);
    }
    if let Some(waiting) = &planner.waiting {
        let found =
            format!("{} slots wait, the oldest since {}: {}", waiting.slots, utc(waiting.since), waiting.why);
        findings.ill(what, found, "make room, or mend what it says; the slots come late, none is lost");
    }
}

async fn queues(streams: &Streams, fleet: &Fleet, findings: &mut Findings) -> anyhow::Result<()> {
    let workers = alive_workers(streams).await?;
    match workers.iter().filter(|worker| !worker.draining).count() {
        0 => findings.ill("workers", "none is alive: nothing is executed", "start one: `cronfleet worker`"),
        count => findings.well("workers", format!("{count} alive")),
    }
    let used: BTreeSet<&QueueName> = fleet.definitions.schedules.values().map(|one| &one.queue).collect();
    for queue in fleet.definitions.queues.keys() {
        let what = format!("queue {queue}");
        let depth = match streams.queue_depth(queue).await {
            Ok(depth) => depth,
            Err(error) => {
                findings.ill(what, error.to_string(), "apply the file that declares it again");
                continue;
            }
        };
        let serving = serving(&workers, queue);
        let found =
            format!("{} waiting, {} in flight, {}", depth.waiting, depth.in_flight, workers_of(serving));
        if serving == 0 && (depth.waiting > 0 || used.contains(queue)) {
            findings.ill(what, found, format!("start a worker for it: `cronfleet worker --queue {queue}`"));
        } else if serving == 0 {
            findings.well(what, format!("{found}; no schedule uses it"));
        } else {
            findings.well(what, found);
        }
    }
    for worker in &workers {
        let unknown = worker.queues.iter().filter(|queue| !fleet.definitions.queues.contains_key(*queue));
        let unknown: Vec<&str> = unknown.map(QueueName::as_str).collect();
        if !unknown.is_empty() {
            let repair = "declare it under `queues:` and apply, or start the worker without it";
            findings.ill(
                format!("worker {}", worker.id),
                format!("serves undeclared {}", unknown.join(", ")),
                repair,
            );
        }
    }
    Ok(())
}

fn workers_of(count: usize) -> String {
    match count {
        0 => "no worker".to_owned(),
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    }
}

/// All may be in order and every run fail, because what the runs act on is down.
async fn targets(streams: &Streams, fleet: &Fleet, findings: &mut Findings) -> anyhow::Result<()> {
    let since = streams.clock().now() - LOOK_BACK;
    let records = streams.ledger().written_since(since, RECORDS_MAX).await?;
    let unreached = unreached(&records);
    let unreached = unreached.iter().filter(|(name, what)| what.still_matters(name, &fleet.definitions));
    let before = findings.0.len();
    for (name, what) in unreached {
        findings.ill(format!("target {name}"), what.found(), what.repair(name));
    }
    if findings.0.len() == before {
        let read = if records.len() as u64 >= RECORDS_MAX {
            format!("by the newest {RECORDS_MAX} changes of runs")
        } else {
            format!("in the last {} minutes", LOOK_BACK.as_secs() / 60)
        };
        findings.well("targets", format!("none was out of reach {read}"));
    }
    Ok(())
}

fn schedules(fleet: &Fleet, findings: &mut Findings) {
    let before = findings.0.len();
    for (name, reason) in &fleet.unreadable {
        findings.ill(
            format!("schedule {name}"),
            format!("cannot be understood: {reason}"),
            "mend it and apply it again; until then it is not planned",
        );
    }
    for (name, schedule) in &fleet.definitions.schedules {
        let one =
            Definitions { schedules: [(name.clone(), schedule.clone())].into(), ..Definitions::default() };
        if let Err(error) = one.check_references(&fleet.definitions) {
            findings.ill(
                format!("schedule {name}"),
                error.to_string(),
                "declare what it refers to, or mend it, and apply",
            );
        }
    }
    if findings.0.len() == before {
        findings.well("schedules", format!("{}, all in order", fleet.definitions.schedules.len()));
    }
}

/// The version of the zone data with which each partition was planned last.
async fn zone_data_of_cursors(streams: &Streams) -> anyhow::Result<Vec<String>> {
    let mut versions = Vec::new();
    for partition in 0..PARTITIONS {
        match streams.partitions().cursor(partition).await {
            Ok(cursor) => versions.extend(cursor.map(|cursor| cursor.value.tzdb)),
            // Its planner judges and replaces it.
            Err(ReadError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(versions)
}

/// Other zone data may mean other slots: which planner computes one, or what `next` shows here, must not matter.
fn zones(planned_with: &[String], findings: &mut Findings) {
    let ours = tzdb_version();
    let others: BTreeSet<&str> =
        planned_with.iter().map(String::as_str).filter(|version| *version != ours).collect();
    if others.is_empty() {
        findings.well("time zones", format!("IANA {ours}"));
        return;
    }
    let count = planned_with.iter().filter(|version| *version != ours).count();
    let others: Vec<&str> = others.into_iter().collect();
    findings.ill(
        "time zones",
        format!(
            "IANA {ours} here, but {count} of {PARTITIONS} partitions are planned with {}",
            others.join(", ")
        ),
        "run the same version of cronfleet everywhere; slots near a change of clocks may differ until then",
    );
}

fn show(findings: &[Finding], output: Output, quiet: bool) -> anyhow::Result<()> {
    if output.format != Format::Table {
        return output.list(findings, |finding| finding.what.clone(), || Table::new(&[]), "");
    }
    write(&report(findings, output.colours, quiet))
}

fn report(findings: &[Finding], colours: bool, quiet: bool) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["", "WHAT", "FOUND"]);
    for finding in findings {
        let mark = if finding.ok {
            Cell::coloured("ok", Some(Colour::Green))
        } else {
            Cell::coloured("!!", Some(Colour::Red))
        };
        table.row(vec![mark, finding.what.as_str().into(), finding.found.as_str().into()]);
    }
    let mut text = table.render(colours);
    // One repair often mends several things.
    let mut repairs: Vec<(&str, Vec<&str>)> = Vec::new();
    for finding in findings {
        let Some(repair) = finding.repair.as_deref() else { continue };
        match repairs.iter_mut().find(|(known, _)| *known == repair) {
            Some((_, whats)) => whats.push(&finding.what),
            None => repairs.push((repair, vec![&finding.what])),
        }
    }
    let repairs: Vec<String> = repairs
        .into_iter()
        .map(|(repair, whats)| format!("  {}: {}\n", printable(&whats.join(", ")), printable(repair)))
        .collect();
    match repairs.as_slice() {
        [] if quiet => {}
        [] => text.push_str("\nall well\n"),
        _ => text += &["\nto repair:\n", &repairs.concat()].concat(),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_all_well_or_with_the_repairs() {
        let mut findings = Findings::default();
        findings.well("server", "nats-server 2.15.1");
        assert!(report(&findings.0, false, false).ends_with("\n\nall well\n"));
        findings.ill("workers", "none", "start one");
        let text = report(&findings.0, false, false);
        findings.ill("planners", "none", "start one");
        let text_of_two = report(&findings.0, false, false);
        assert!(text_of_two.ends_with("\n  workers, planners: start one\n"), "{text_of_two}");
        assert!(text.ends_with("!!  workers  none\n\nto repair:\n  workers: start one\n"), "{text}");
        assert_eq!(report(&[], false, true), "");
    }

    #[test]
    fn a_schedule_that_refers_to_nothing_is_found() {
        let text = "schedules: {a: {every: 1h, queue: reports, task: {command: [b]}}}";
        let mut fleet =
            Fleet { definitions: Definitions::parse(text).expect("definitions"), ..Fleet::default() };
        fleet.unreadable.insert("b".parse().expect("name"), "newer".into());
        let mut findings = Findings::default();
        schedules(&fleet, &mut findings);
        let found: Vec<&str> = findings.0.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(found, ["schedule b", "schedule a"]);
    }

    #[test]
    fn zone_data_that_differs_from_ours_is_found() {
        let mut findings = Findings::default();
        let ours = tzdb_version().to_owned();
        zones(&[], &mut findings);
        zones(std::slice::from_ref(&ours), &mut findings);
        assert!(findings.0.iter().all(|finding| finding.ok && finding.found.contains(&ours)));
        zones(&[ours, "2019a".to_owned(), "2019a".to_owned()], &mut findings);
        let last = findings.0.last().expect("a finding");
        assert!(!last.ok && last.found.ends_with("2 of 64 partitions are planned with 2019a"), "{last:?}");
    }
}
