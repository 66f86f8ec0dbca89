//! `get delayed`: what was submitted to wait for its instant.

use anyhow::bail;
use clap::Args;
use shared::{
    names::{Name, QueueName},
    run::RunId,
};
use streams::{
    Streams,
    delayed::{Listed, Wanted},
};

use super::when::{ago, milliseconds};
use crate::{output::Output, table::Table};

/// So many are listed when nothing else is said.
const LIMIT_DEFAULT: usize = 50;

/// Which of those that wait.
#[derive(Debug, Args)]
pub struct DelayedArgs {
    /// Only this run (`name.key`), or only those submitted under this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Only those that go to this queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<QueueName>,

    /// At most so many, from 1
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT, value_parser = super::get::parse_limit)]
    pub limit: usize,
}

/// Lists what waits, the first due first.
pub async fn list(streams: &Streams, output: Output, args: DelayedArgs) -> anyhow::Result<()> {
    let now = streams.clock().now();
    let table = |items: &[Listed]| {
        let mut table = Table::new(&["ID", "QUEUE", "NOT BEFORE", "DUE IN", "SUBMITTED"]);
        for item in items {
            let due_in = (item.not_before - now).num_milliseconds().max(0).unsigned_abs();
            // Whole seconds, except in the last.
            let due_in = if due_in > 1_000 { due_in / 1_000 * 1_000 } else { due_in };
            table.row(vec![
                item.id.to_string().into(),
                item.queue.as_str().into(),
                item.not_before.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).into(),
                milliseconds(due_in).into(),
                format!("{} ago", ago(item.submitted_at, now)).into(),
            ]);
        }
        table
    };
    let name = match args.name.as_deref() {
        Some(text) if text.contains('.') => {
            let run: RunId = text.parse()?;
            let waiting = streams.delayed().find(&run).await?.and_then(|waiting| {
                let appointment = waiting.read.ok()?;
                let (not_before, queue) = (appointment.not_before, appointment.queue);
                Some(Listed { not_before, id: appointment.run, queue, submitted_at: waiting.submitted_at })
            });
            let Some(item) = waiting else {
                bail!("{run} does not wait for an instant; look with `cronfleet describe run {run}`");
            };
            let rendered = || table(std::slice::from_ref(&item)).render(output.colours);
            return output.one(&item, || run.to_string(), rendered);
        }
        Some(text) => Some(text.parse::<Name>()?),
        None => None,
    };
    let wanted = Wanted { queue: args.queue, name, limit: args.limit };
    let items = streams.delayed().list(&wanted).await?;
    let when_empty = "nothing waits; `cronfleet submit NAME -d JSON --in 10m` submits what does";
    output.list(&items, |item| item.id.to_string(), || table(&items), when_empty)
}
