//! Waiting for a run to end.
//!
//! Results come over core NATS, which may lose one (a reconnect). So the ledger is asked, too, every few seconds: the
//! subscription makes it quick, the ledger makes it sure.

use std::time::Duration;

use futures::{Stream, StreamExt};
use shared::{run::RunId, run_record::RunRecord};

use crate::Streams;

/// How often the ledger is asked.
const POLL: Duration = Duration::from_secs(3);

/// Waits until a run has ended; its record. `results` was subscribed before the run was asked for. What is seen on the way is told,
/// once for each state and attempt.
pub async fn for_end(
    streams: &Streams,
    run: &RunId,
    mut results: impl Stream<Item = RunRecord> + Unpin,
    mut seen: impl FnMut(&RunRecord),
) -> RunRecord {
    let clock = streams.clock().clone();
    let mut subscribed = true;
    let mut last = None;
    loop {
        let record = tokio::select! {
            record = results.next(), if subscribed => {
                subscribed = record.is_some();
                // Anybody may publish on a result subject: an end is believed when the ledger says so.
                match record {
                    Some(record) if record.status.is_final() => {
                        streams.ledger().get(run).await.ok().flatten().map(|stored| stored.value)
                    }
                    record => record,
                }
            }
            // A read that failed is asked again.
            () = clock.sleep(POLL) => streams.ledger().get(run).await.ok().flatten().map(|stored| stored.value),
        };
        let Some(record) = record else { continue };
        if last != Some((record.status, record.attempt)) {
            last = Some((record.status, record.attempt));
            seen(&record);
        }
        if record.status.is_final() {
            return record;
        }
    }
}
