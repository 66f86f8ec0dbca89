//! `logs`: what a run said, and says.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use shared::{
    limits::LOG_RETENTION,
    run::RunId,
    run_log::{LogBatch, LogLine, LogSource},
    run_record::RunRecord,
    run_state::RunState,
};
use streams::{ReadError, Streams, log::LogReader};

use super::{
    runs::counted,
    unbegun,
    when::{ago, precise, utc},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Format, Output, line, printable, talk},
    signals,
    table::Colour,
};

/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(200);
/// So many looks apart the ledger is asked, too: what comes over core NATS may be lost.
const LOOKS_PER_ASK: u32 = 15;
/// Before a server that does not answer is asked again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
What commands write is kept for seven days, the first mebibyte of each attempt, and at most a gibibyte of all runs together. \
Control characters are shown as what they are and do nothing. As JSON it is one line of the log per line; with `-o name` \
nothing but the text.

Examples:
  cronfleet logs nightly_vacuum.20261124T020000Z
  cronfleet logs reindex.4711 --follow
  cronfleet logs reindex.4711 --attempt 2 -o json | jq -r .text";

/// The arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    /// The run, as `name.key`
    #[arg(value_name = "RUN")]
    pub id: RunId,

    /// Go on until the run has ended and all it said is shown
    #[arg(long, short = 'f')]
    pub follow: bool,

    /// Only what this attempt said, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
}

/// Shows a log.
pub async fn run(args: LogsArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let mut shown =
        Shown { output: global.output(), attempt: args.attempt, latest: BTreeMap::new(), lines: 0 };
    let mut log = streams.log_of(&args.id);
    if args.follow {
        follow(&streams, &args.id, &mut log, &mut shown).await?;
    } else {
        for batch in log.rest().await? {
            shown.show(&batch)?;
        }
    }
    if shown.lines == 0 {
        let record = streams.ledger().get(&args.id).await?.map(|stored| stored.value);
        let Some(record) = record else { bail!(no_such_run(&streams, &args.id).await?) };
        talk(why_empty(&record, args.attempt, streams.clock().now()));
    }
    Ok(Exit::Done.into())
}

async fn follow(streams: &Streams, id: &RunId, log: &mut LogReader, shown: &mut Shown) -> anyhow::Result<()> {
    let clock = streams.clock();
    let stages = signals::listen()?;
    // Before the ledger is asked: an end between the two is heard.
    let mut results = streams.results_of(id).await?;
    let record = streams.ledger().get(id).await?.map(|stored| stored.value);
    if record.is_none() {
        let Some(waits) = unbegun::record_of(streams, id).await? else {
            bail!(no_such_run(streams, id).await?)
        };
        let unserved = unbegun::unserved(streams, &waits.queue).await?;
        let why = unserved.unwrap_or_else(|| "no worker has taken it yet".to_owned());
        talk(format!("run {id} lies in queue {}: {why}", waits.queue));
    }
    let mut has_ended = record.is_some_and(|record| record.status.is_final());
    for batch in log.rest().await? {
        shown.show(&batch)?;
    }
    // Whether ends are still told; if not, they are looked for.
    let mut is_heard = true;
    for look in 1_u32.. {
        // What a run says is stored before its end is: whoever looks after that has seen all of it.
        let is_all = match show_what_is_new(log, shown).await? {
            Ok(()) if has_ended => log.is_current().await,
            shown => shown.map(|()| false),
        };
        match is_all {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error @ ReadError::Missing { .. }) => return Err(error.into()),
            Err(_) => clock.sleep(TRY_AGAIN).await,
        }
        let heard_an_end = tokio::select! {
            () = stages.drain.cancelled() => return Ok(()),
            record = results.next(), if is_heard => {
                is_heard = record.is_some();
                record.is_none_or(|record| record.status.is_final())
            }
            () = clock.sleep(LOOK) => look % LOOKS_PER_ASK == 0,
        };
        if heard_an_end && !has_ended {
            // Anybody may publish on a result subject: an end is believed when the ledger says so.
            let record = streams.ledger().get(id).await.ok().flatten();
            has_ended = record.is_some_and(|record| record.value.status.is_final());
            clock.sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Shows what was not read yet, each batch when it comes: it is read once, whatever becomes of the next.
async fn show_what_is_new(log: &mut LogReader, shown: &mut Shown) -> anyhow::Result<Result<(), ReadError>> {
    loop {
        match log.next().await {
            Ok(Some(batch)) => shown.show(&batch)?,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// What has been shown so far.
struct Shown {
    output: Output,
    attempt: Option<u32>,
    /// The number of the last line of each attempt, by its fence.
    latest: BTreeMap<u64, u64>,
    lines: u64,
}

/// A line, as JSON: with the attempt it belongs to.
#[derive(Serialize)]
struct Item<'a> {
    attempt: u32,
    fence: u64,
    #[serde(flatten)]
    line: &'a LogLine,
}

impl Shown {
    fn show(&mut self, batch: &LogBatch) -> anyhow::Result<()> {
        if self.attempt.is_some_and(|attempt| attempt != batch.attempt) {
            return Ok(());
        }
        // An attempt that was handed back and begun anew has its number twice.
        if self.lines > 0 && !self.latest.contains_key(&batch.fence) && self.output.format == Format::Table {
            line(format!("[here attempt {} begins, with fence {}]", batch.attempt, batch.fence))?;
        }
        for said in &batch.lines {
            let before = self.latest.insert(batch.fence, said.n).unwrap_or(0);
            self.lines += 1;
            match self.output.format {
                Format::Table => {
                    if said.n > before + 1 {
                        line(format!("[{} lines are missing here]", said.n - before - 1))?;
                    }
                    line(in_words(batch.attempt, said, self.output.colours))?;
                }
                Format::Name => line(printable(&said.text))?,
                format => {
                    let item = Item { attempt: batch.attempt, fence: batch.fence, line: said };
                    match format {
                        Format::Yaml => line(format!("---\n{}", serde_saphyr::to_string(&item)?.trim_end()))?,
                        _ => line(serde_json::to_string(&item)?)?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// A line for people.
pub fn in_words(attempt: u32, said: &LogLine, colours: bool) -> String {
    let cut = said.cut.map(|bytes| format!(" [{bytes} bytes more]")).unwrap_or_default();
    let text =
        format!("{}  {attempt}  {:<6}  {}{cut}", precise(said.at), said.from.as_str(), printable(&said.text));
    let colour = match said.from {
        LogSource::Stderr => Some(Colour::Yellow),
        LogSource::Worker => Some(Colour::Cyan),
        LogSource::Stdout | LogSource::Other => None,
    };
    colour.filter(|_| colours).map_or(text.clone(), |colour| colour.paint(&text))
}

/// Why there is no such run, as far as that can be said.
async fn no_such_run(streams: &Streams, id: &RunId) -> anyhow::Result<String> {
    if let Some(Ok(appointment)) = streams.delayed().find(id).await?.map(|waiting| waiting.read) {
        let until = utc(appointment.not_before);
        return Ok(format!("run {id} waits until {until}; it says nothing before"));
    }
    Ok(format!(
        "there is no record of run {id}; one that was submitted has its record when a worker takes it; `cronfleet get runs {}` \
         lists those of that name",
        id.name
    ))
}

fn why_empty(run: &RunRecord, attempt: Option<u32>, now: shared::Timestamp) -> String {
    let id = &run.id;
    if run.shards.is_some() {
        return format!(
            "run {id} has parts, and each has its own log; `cronfleet get runs {}` lists them",
            id.name
        );
    }
    if let Some(attempt) = attempt.filter(|attempt| *attempt > run.attempt) {
        let had = counted(u64::from(run.attempt), "attempt");
        return format!("run {id} has had {had}, and not yet one with number {attempt}");
    }
    let is_old =
        |finished: &shared::Timestamp| (now - *finished).to_std().is_ok_and(|age| age > LOG_RETENTION);
    match (run.status, run.finished_at.filter(is_old)) {
        (_, Some(finished)) => {
            let kept = LOG_RETENTION.as_secs() / 86_400;
            format!(
                "run {id} ended {} ago, and logs are kept for {kept} days; `cronfleet describe run {id}` has its record",
                ago(finished, now)
            )
        }
        (RunState::Pending, _) => format!("run {id} is PENDING: it has said nothing yet"),
        (RunState::Running, _) => {
            format!("run {id} is RUNNING and has said nothing so far; --follow waits for it")
        }
        (status, _) => format!(
            "run {id} is {status} and said nothing: only commands, and handlers that do so, write to a log"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> LogLine {
        let at = "2026-11-24T02:00:00.5Z".parse().expect("instant");
        LogLine {
            n: 1,
            at,
            from: LogSource::Stdout,
            text: text.to_owned(),
            cut: None,
            lossy: false,
            progress: None,
        }
    }

    #[test]
    fn a_line_can_do_nothing_to_a_terminal() {
        let line = in_words(2, &said("\u{1b}[2J\u{202e}x\u{7}\r"), false);
        assert_eq!(line, "2026-11-24T02:00:00.500Z  2  stdout  ␛[2J\\u{202e}x␇␍");
        let long = LogLine { cut: Some(70), ..said("x") };
        assert!(in_words(1, &long, false).ends_with("x [70 bytes more]"));
    }

    #[test]
    fn a_log_that_shows_nothing_says_why() {
        let at = |text: &str| text.parse::<shared::Timestamp>().expect("instant");
        let now = at("2026-11-24T02:00:00Z");
        let run = RunRecord::pending("a.1".parse().expect("id"), "default".parse().expect("queue"), now);
        let words = |run: RunRecord, attempt| why_empty(&run, attempt, now);
        assert!(words(run.clone(), None).contains("PENDING"));
        assert!(words(run.clone(), Some(3)).contains("0 attempts"));
        let running = RunRecord { status: RunState::Running, attempt: 1, ..run.clone() };
        assert!(words(running.clone(), Some(1)).contains("--follow"));
        let done = |finished| RunRecord {
            status: RunState::Success,
            finished_at: Some(at(finished)),
            ..running.clone()
        };
        assert!(words(done("2026-11-24T01:00:00Z"), None).contains("said nothing"));
        assert!(
            words(done("2026-11-14T02:00:00Z"), None).contains("ended 10d ago, and logs are kept for 7 days")
        );
    }
}
