//! `get runs --watch`: what `get runs` lists, and then each change of it.
//!
//! The ledger's own stream is followed, from before the list was read: unlike results, which are not kept, it misses nothing when
//! the server is away for a while.

use std::{collections::HashMap, time::Duration};

use shared::{run::RunId, run_record::RunRecord};
use streams::{ReadError, Streams, ledger_changes::LedgerHeard};

use super::{
    get::{Found, RunsArgs, found, is_wanted},
    progress::RunItem,
    runs,
};
use crate::{
    output::{Format, Output, line, talk, write},
    signals,
};

/// How long is waited when the ledger cannot be read.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Lists runs, then shows each change, until it is asked to stop.
pub async fn runs(streams: &Streams, output: Output, args: RunsArgs) -> anyhow::Result<()> {
    let stages = signals::listen()?;
    // Before the list is read: what changes between the two is heard, too.
    let extent = streams.ledger_extent_now().await?;
    let mut follower = streams.follow_ledger(extent.last, extent.made);
    let mut shown = Shown { output, widths: Vec::new(), listed: HashMap::new() };
    match found(streams, &args).await? {
        Found::One(item) => shown.list(streams, vec![*item])?,
        Found::List(items, when_empty) if items.is_empty() => talk(format!("{when_empty}; listening")),
        Found::List(items, _) => shown.list(streams, items)?,
    }
    let mut is_away = false;
    loop {
        let heard = tokio::select! {
            heard = follower.next() => heard,
            () = stages.drain.cancelled() => return Ok(()),
        };
        match heard {
            Ok(LedgerHeard::Changes(changes, _)) => {
                is_away = false;
                // What is no record of a run is none of a run that was asked for.
                let records = changes
                    .iter()
                    .filter(|change| change.value.is_some())
                    .filter_map(|change| change.record().ok());
                for record in records.filter(|record| is_of(record, &args) && is_wanted(record, &args)) {
                    shown.change(streams, record)?;
                }
            }
            Ok(LedgerHeard::Anew) => {
                talk("the ledger was made anew; going on with its first record");
                let extent = streams.ledger_extent_now().await?;
                follower = streams.follow_ledger(extent.first.saturating_sub(1), extent.made);
            }
            Err(error @ ReadError::Missing { .. }) => return Err(error.into()),
            Err(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    talk(format!("changes cannot be read just now ({error}); trying on"));
                }
                tokio::select! {
                    () = streams.clock().sleep(TRY_AGAIN) => {}
                    () = stages.drain.cancelled() => return Ok(()),
                }
            }
        }
    }
}

/// Whether a record is that of the run or of the name that was asked for.
fn is_of(record: &RunRecord, args: &RunsArgs) -> bool {
    match (args.name.as_deref(), &args.schedule) {
        (Some(text), _) if text.contains('.') => record.id.to_string() == text,
        (Some(text), _) => record.id.name.as_str() == text,
        (None, Some(name)) => record.id.name == *name,
        (None, None) => true,
    }
}

struct Shown {
    output: Output,
    /// How wide the columns are.
    widths: Vec<usize>,
    /// What was listed and has not been heard of since: it may be heard once more as it was.
    listed: HashMap<RunId, RunRecord>,
}

impl Shown {
    fn list(&mut self, streams: &Streams, items: Vec<RunItem>) -> anyhow::Result<()> {
        self.show(streams, &items)?;
        self.listed = items.into_iter().map(|item| (item.run.id.clone(), item.run)).collect();
        Ok(())
    }

    fn change(&mut self, streams: &Streams, record: RunRecord) -> anyhow::Result<()> {
        if self.listed.remove(&record.id).is_some_and(|listed| listed == record) {
            return Ok(());
        }
        self.show(streams, &[RunItem { run: record, progress: None }])
    }

    fn show(&mut self, streams: &Streams, items: &[RunItem]) -> anyhow::Result<()> {
        if self.output.format == Format::Table {
            let table = runs::table_with_progress(items, streams.clock().now());
            return write(&table.render_more(&mut self.widths, self.output.colours));
        }
        for item in items {
            match self.output.format {
                Format::Json => line(serde_json::to_string(item)?)?,
                Format::Yaml => line(format!("---\n{}", serde_saphyr::to_string(item)?.trim_end()))?,
                Format::Table | Format::Name => line(&item.run.id)?,
            }
        }
        Ok(())
    }
}
