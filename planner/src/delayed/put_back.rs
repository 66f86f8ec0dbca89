//! A run that waited for its next attempt outside its queue goes back there at its instant.
//!
//! Published, then deleted here. A crash in between has it published once more, which the server refuses while the run is
//! queued or running, and which the worker's claim drops when it has ended.

use shared::run_state::RunState;
use streams::{
    ReadError, WriteError,
    delayed::{Entry, InPlace, Parked},
};

use super::send::{SendError, Sender, Sent};

/// How often a message that stands in the way of the one that replaces it is removed.
const LOOKS_MAX: u32 = 3;

impl Sender {
    /// Puts a run back into its queue when its instant comes.
    pub(super) async fn put_back(&self, entry: Entry, parked: &Parked) -> Result<Sent, SendError> {
        if let Some(not_before) = parked.not_before
            && !self.wait_for(not_before).await
        {
            return Ok(Sent::NotYet);
        }
        if !self.is_ours(entry.partition) {
            return Ok(Sent::NotYet);
        }
        if !self.is_wanted(parked).await? {
            return Ok(Sent::ToDelete);
        }
        for _ in 0..LOOKS_MAX {
            match self.streams.unpark(parked).await {
                Ok(_) => {
                    tracing::info!(run.id = %parked.run, "`{}` goes back to its queue for its next attempt", parked.run);
                    return Ok(Sent::ToDelete);
                }
                Err(WriteError::Occupied { .. }) => match self.streams.in_place_of(parked).await? {
                    // The message it came by, whose ack was lost or is on its way, or one that was submitted under its key and
                    // is about to be dropped: that would take with it, when it comes, what is thought to be queued. So it goes
                    // first.
                    Some(InPlace::Other(place)) => self.streams.remove_finished(place).await?,
                    // By us or by a predecessor.
                    Some(InPlace::PutBack) => return Ok(Sent::ToDelete),
                    None => {}
                },
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Sent::NotYet)
    }

    /// Whether the run still waits for this attempt. One whose record is a stranger's nonsense does: its worker replaces
    /// that, and it comes to its end.
    async fn is_wanted(&self, parked: &Parked) -> Result<bool, ReadError> {
        match self.streams.ledger().get(&parked.run).await {
            Ok(Some(found)) => Ok(found.value.status == RunState::Retry && found.revision == parked.revision),
            Ok(None) | Err(ReadError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
