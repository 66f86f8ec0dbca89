//! Runs that were acknowledged and have no record yet, because no worker has taken them: they exist all the same, and say what
//! they wait for.

use futures::{StreamExt, stream};
use shared::{
    names::{Name, QueueName},
    run::RunId,
    run_record::RunRecord,
};
use streams::{ReadError, Streams};

use super::lists::{alive_workers, serving};
use crate::output::talk;

/// Submissions that are looked up at once.
const READS_AT_ONCE: usize = 16;

/// The record of a run that lies in its queue and has none, as it will begin; none if it lies in no queue.
pub async fn record_of(streams: &Streams, run: &RunId) -> Result<Option<RunRecord>, ReadError> {
    let queued = streams.queued_since(run).await?;
    Ok(queued.map(|(queue, since)| {
        RunRecord::pending(run.clone(), queue, since)
            .noting("it lies in its queue; no worker has taken it yet")
    }))
}

/// The same of submissions, all or those of one name, that are not among the runs with a record: so many at most. It says how
/// many more there are.
pub async fn records(
    streams: &Streams,
    name: Option<&Name>,
    is_recorded: impl Fn(&RunId) -> bool,
    room: usize,
) -> Result<Vec<RunRecord>, ReadError> {
    let Some(runs) = streams.submissions(name).await? else {
        talk("more submissions wait in their queues than can be listed; `cronfleet get queues` counts them");
        return Ok(Vec::new());
    };
    let mut runs: Vec<RunId> = runs.into_iter().filter(|run| !is_recorded(run)).collect();
    if runs.len() > room {
        talk(format!("{} more wait in their queues; more with --limit", runs.len() - room));
        runs.truncate(room);
    }
    let found: Vec<_> =
        stream::iter(&runs).map(|run| record_of(streams, run)).buffered(READS_AT_ONCE).collect().await;
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Says it if nobody serves the queue that a run is about to go to: it would wait without a word.
pub async fn warn_if_unserved(streams: &Streams, queue: &QueueName) -> anyhow::Result<()> {
    if let Some(words) = unserved(streams, queue).await? {
        talk(format!("warning: {words}"));
    }
    Ok(())
}

/// What is to be said of a queue that no worker serves; nothing if one does.
pub async fn unserved(streams: &Streams, queue: &QueueName) -> anyhow::Result<Option<String>> {
    let is_served = serving(&alive_workers(streams).await?, queue) > 0;
    Ok((!is_served).then(|| {
        format!(
            "no worker serves queue {queue}; its runs wait until one does: `cronfleet worker --queue {queue}`"
        )
    }))
}
