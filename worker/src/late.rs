//! What an attempt's end is written over: its claim, or what stood there before, if it was begun without one. One of those
//! that takes longer is claimed late; whoever is refused then has lost the run, and stops.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::{limits::CLAIM_AFTER, queue::Recording, run_record::RunRecord, run_state::RunState};
use streams::{
    Streams, WriteError,
    bucket::Stored,
    ledger::{Overwritten, Update},
    names::Origin,
    shared_writes::SharedWrites,
};

/// A late claim that could not be made is tried again after this, until the attempt is over or its hold is lost.
const CLAIM_AGAIN: Duration = Duration::from_millis(250);

/// What an attempt's end is written over.
pub(crate) struct Basis {
    /// What stood in the ledger when it was begun, 0 for nothing, or the revision of its claim: its fence.
    begun_over: u64,
    is_claimed: bool,
    /// Whether a late claim was sent; its answer may be lost, or may not have come yet.
    is_claim_sent: AtomicBool,
    late: OnceLock<u64>,
}

impl Basis {
    /// Of an attempt that was claimed before it began.
    pub(crate) fn claimed(fence: u64) -> Self {
        Self { is_claimed: true, ..Self::unclaimed(fence) }
    }

    /// Of one that was not.
    pub(crate) fn unclaimed(begun_over: u64) -> Self {
        let is_claim_sent = AtomicBool::new(false);
        Self { begun_over, is_claimed: false, is_claim_sent, late: OnceLock::new() }
    }

    /// Whether the attempt was claimed before it began.
    pub(crate) fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// Whether this end of the attempt leaves no record: all went well, its queue keeps only failures, and the ledger was told
    /// nothing of the run before.
    pub(crate) fn leaves_no_record(&self, end: &RunRecord, origin: Origin, recording: Recording) -> bool {
        let is_unwritten =
            !self.is_claimed && self.begun_over == 0 && !self.is_claim_sent.load(Ordering::SeqCst);
        is_unwritten
            && end.status == RunState::Success
            && origin == Origin::AdHoc
            && recording == Recording::Failures
    }

    /// Claims an attempt that was begun without a claim and takes longer. Returns only if that is refused: then the run is not
    /// ours.
    pub(crate) async fn claim_late(&self, streams: &Streams, begun: &RunRecord) {
        if self.is_claimed {
            std::future::pending::<()>().await;
        }
        streams.clock().sleep(CLAIM_AFTER).await;
        // Apart, so that what short runs do not come to takes no room in them.
        while Box::pin(self.is_ours(streams, begun)).await {
            let is_done = self.late.get().is_some();
            if is_done {
                std::future::pending::<()>().await;
            }
            streams.clock().sleep(CLAIM_AGAIN).await;
        }
        tracing::info!(run.id = %begun.id, "The late claim of `{}` was refused", begun.id);
    }

    /// Tries to write the late claim. False: somebody else wrote.
    async fn is_ours(&self, streams: &Streams, begun: &RunRecord) -> bool {
        self.is_claim_sent.store(true, Ordering::SeqCst);
        match streams.ledger().write(&self.late_claim(begun), self.begun_over).await {
            Ok(Update::Stored(revision)) => {
                let _ = self.late.set(revision);
                true
            }
            // An earlier try may have got through.
            Ok(Update::Stale) => match self.find(streams, begun).await {
                Ok(Some(revision)) => {
                    let _ = self.late.set(revision);
                    true
                }
                Ok(None) => false,
                Err(_) => true,
            },
            Err(error) => {
                tracing::warn!(run.id = %begun.id, %error, "`{}` is not claimed yet: {error}", begun.id);
                true
            }
        }
    }

    /// RUNNING, with the fence that its target was told: not the revision of this claim, which is larger.
    fn late_claim(&self, begun: &RunRecord) -> RunRecord {
        RunRecord { fence: Some(self.begun_over), ..begun.clone() }
    }

    /// The revision of our late claim, if it is what the ledger has.
    async fn find(&self, streams: &Streams, begun: &RunRecord) -> Result<Option<u64>, WriteError> {
        let found = streams.ledger().get(&begun.id).await;
        let found = found.map_err(|_| WriteError::Unknown { what: begun.id.to_string() })?;
        Ok(found.filter(|found| found.value == self.late_claim(begun)).map(|found| found.revision))
    }

    /// Writes the end of the attempt.
    pub(crate) async fn write(
        &self,
        streams: &Streams,
        shared: &SharedWrites,
        begun: &Stored<RunRecord>,
        end: &RunRecord,
    ) -> Result<Recorded, WriteError> {
        let over = self.late.get().copied().unwrap_or(self.begun_over);
        match write_end(streams, shared, end, over).await? {
            // The late claim was sent before, and whether it was taken nobody had waited for.
            Recorded::Stale if self.is_claim_sent.load(Ordering::SeqCst) && self.late.get().is_none() => {
                match Box::pin(self.find(streams, &begun.value)).await? {
                    Some(revision) => write_end(streams, shared, end, revision).await,
                    None => Ok(Recorded::Stale),
                }
            }
            recorded => Ok(recorded),
        }
    }
}

/// What came of writing the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is stored; under this revision, if the run goes on and so somebody writes over it.
    Stored(Option<u64>),
    /// Somebody else wrote: the run is not ours.
    Stale,
}

async fn write_end(
    streams: &Streams,
    shared: &SharedWrites,
    end: &RunRecord,
    over: u64,
) -> Result<Recorded, WriteError> {
    let ledger = streams.ledger();
    if end.status.is_final() {
        return Ok(match ledger.write_shared(shared, end, over).await? {
            Overwritten::Stored => Recorded::Stored(None),
            Overwritten::Stale => Recorded::Stale,
        });
    }
    Ok(match Box::pin(ledger.write(end, over)).await? {
        Update::Stored(revision) => Recorded::Stored(Some(revision)),
        Update::Stale => Recorded::Stale,
    })
}
