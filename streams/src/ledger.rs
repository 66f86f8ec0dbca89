//! The ledger: the record of every run, and what makes each of them unique.
//!
//! One write does three jobs. The bucket's stream republishes itself, so a change of state is at once the record, the
//! history of the run, and the message on its result subject.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use shared::{
    Timestamp,
    names::QueueName,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Change, Stored},
    shared_writes::{Shared, SharedWrites, Write},
};

/// How often an ambiguous write is read back or repeated before the caller is told.
const WRITE_ATTEMPTS_MAX: u32 = 5;
const WRITE_RETRY_WAIT: Duration = Duration::from_millis(200);

/// Room for a record without a long output, so that it does not grow piece by piece.
const RECORD_BYTES_USUAL: usize = 768;

/// The ledger.
#[derive(Clone)]
pub struct Ledger {
    streams: Streams,
    bucket: Bucket,
}

/// What came of creating a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Creation {
    /// It is ours, under this revision.
    Created(u64),
    /// The run was there already.
    Exists(Box<Stored<RunRecord>>),
}

/// What came of writing over a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// It is stored, under this revision.
    Stored(u64),
    /// Somebody else wrote it since: what we know of the run is stale.
    Stale,
}

/// What came of writing over a record where its new revision is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwritten {
    /// It is stored.
    Stored,
    /// Somebody else wrote it since: what we know of the run is stale.
    Stale,
}

impl Streams {
    /// The ledger.
    pub fn ledger(&self) -> Ledger {
        Ledger { streams: self.clone(), bucket: self.bucket(self.names().runs_bucket()) }
    }
}

impl Ledger {
    /// Reads a record from the leader. The fence of a running attempt is the revision of its claim.
    pub async fn get(&self, run: &RunId) -> Result<Option<Stored<RunRecord>>, ReadError> {
        let Some(stored) = self.bucket.get(&run.to_string()).await? else { return Ok(None) };
        read_record(&run.to_string(), &stored.value, stored.revision)
            .map(|value| Some(Stored { value, revision: stored.revision, stored_at: stored.stored_at }))
    }

    /// Reads a record as some server has it, which may be behind: only where a compare-and-set over its revision follows.
    pub async fn get_nearby(&self, run: &RunId) -> Result<Option<Stored<RunRecord>>, ReadError> {
        let Some(stored) = self.bucket.get_nearby(&run.to_string()).await? else { return Ok(None) };
        read_record(&run.to_string(), &stored.value, stored.revision)
            .map(|value| Some(Stored { value, revision: stored.revision, stored_at: stored.stored_at }))
    }

    /// Creates the record of a run, once: whoever comes second gets the record that is there.
    ///
    /// A write whose answer was lost is read back: if what is there is exactly what was written, it is ours.
    pub async fn create(&self, record: &RunRecord) -> Result<Creation, WriteError> {
        let key = record.id.to_string();
        match self.bucket.create(&key, encode(record)).await {
            Ok(revision) => Ok(Creation::Created(revision)),
            // Apart, so that what seldom happens takes no room in what always does.
            Err(error) => Box::pin(self.create_or_find(&key, record, error)).await,
        }
    }

    /// Goes on after a creation that was refused, or whose answer was lost.
    async fn create_or_find(
        &self,
        key: &str,
        record: &RunRecord,
        mut error: WriteError,
    ) -> Result<Creation, WriteError> {
        let mut answer_was_lost = false;
        for _ in 0..WRITE_ATTEMPTS_MAX {
            // Ours only after a lost answer, be it of an earlier try: a plain conflict means that it was there before.
            answer_was_lost |= matches!(error, WriteError::Unknown { .. });
            if !answer_was_lost && !matches!(error, WriteError::Conflict { .. }) {
                return Err(error);
            }
            match self.get(&record.id).await {
                Ok(Some(stored)) if answer_was_lost && stored.value == *record => {
                    return Ok(Creation::Created(stored.revision));
                }
                Ok(Some(stored)) => return Ok(Creation::Exists(Box::new(stored))),
                Ok(None) => match self.bucket.create(key, encode(record)).await {
                    Ok(revision) => return Ok(Creation::Created(revision)),
                    Err(again) => error = again,
                },
                // A stranger's writing in the place of a record: it must not stop the schedule. The history keeps it.
                Err(ReadError::Corrupt { revision, detail, .. }) => {
                    tracing::warn!(
                        run.id = key,
                        detail,
                        "The record of `{key}` was no record and is replaced: {detail}"
                    );
                    match self.bucket.update(key, encode(record), revision).await {
                        Ok(revision) => return Ok(Creation::Created(revision)),
                        Err(again) => error = again,
                    }
                }
                Err(_) => self.streams.clock().sleep(WRITE_RETRY_WAIT).await,
            }
        }
        Err(error)
    }

    /// Writes a record over exactly this revision.
    ///
    /// A write whose answer was lost is read back and repeated, a bounded number of times; then it is `Unknown`.
    pub async fn update(&self, record: &RunRecord, revision: u64) -> Result<Update, WriteError> {
        self.update_again(record, revision, false).await
    }

    async fn update_again(
        &self,
        record: &RunRecord,
        revision: u64,
        mut answer_was_lost: bool,
    ) -> Result<Update, WriteError> {
        let key = record.id.to_string();
        for attempt in 1..=WRITE_ATTEMPTS_MAX {
            match self.bucket.update(&key, encode(record), revision).await {
                Ok(stored) => return Ok(Update::Stored(stored)),
                // On three replicas a conflict may also mean "another write is on its way": the leader knows.
                Err(WriteError::Conflict { .. }) => {
                    return Box::pin(self.is_it_ours(record, revision, answer_was_lost)).await;
                }
                Err(WriteError::Unknown { .. } | WriteError::NoStream { .. })
                    if attempt < WRITE_ATTEMPTS_MAX =>
                {
                    answer_was_lost = true;
                    self.streams.clock().sleep(WRITE_RETRY_WAIT * attempt).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(WriteError::Unknown { what: key })
    }

    /// Writes a record over exactly this revision, or over nothing if that is 0.
    pub async fn write(&self, record: &RunRecord, over: u64) -> Result<Update, WriteError> {
        if over != 0 {
            return self.update(record, over).await;
        }
        match self.create(record).await? {
            Creation::Created(revision) => Ok(Update::Stored(revision)),
            // Written by an earlier try whose answer was lost.
            Creation::Exists(found) if found.value == *record => Ok(Update::Stored(found.revision)),
            Creation::Exists(_) => Ok(Update::Stale),
        }
    }

    /// As [`Ledger::write`], for who writes much at once and need not know the revision: it shares its answer with others.
    pub async fn write_shared(
        &self,
        shared: &SharedWrites,
        record: &RunRecord,
        over: u64,
    ) -> Result<Overwritten, WriteError> {
        let key = record.id.to_string();
        let write = Write { subject: self.bucket.subject(&key), value: encode(record), over };
        // Apart, so that what seldom happens takes no room in what always does.
        let update = match shared.write(write).await {
            Shared::Stored => return Ok(Overwritten::Stored),
            Shared::Alone(_alone) => Box::pin(self.write(record, over)).await?,
            Shared::Failed(WriteError::Conflict { .. }) if over != 0 => {
                Box::pin(self.is_it_ours(record, over, false)).await?
            }
            // Whatever it is, an ordinary write finds out: what was stored after all is found there, and ours.
            Shared::Failed(error) => Box::pin(self.write_after(error, record, over)).await?,
        };
        Ok(match update {
            Update::Stored(_) => Overwritten::Stored,
            Update::Stale => Overwritten::Stale,
        })
    }

    /// Goes on after a write that was refused, or whose answer was lost.
    async fn write_after(
        &self,
        error: WriteError,
        record: &RunRecord,
        over: u64,
    ) -> Result<Update, WriteError> {
        let is_unknown = matches!(error, WriteError::Unknown { .. });
        if over == 0 {
            return Ok(match self.create_or_find(&record.id.to_string(), record, error).await? {
                Creation::Created(revision) => Update::Stored(revision),
                Creation::Exists(found) if found.value == *record => Update::Stored(found.revision),
                Creation::Exists(_) => Update::Stale,
            });
        }
        if is_unknown { self.update_again(record, over, true).await } else { Err(error) }
    }

    /// Whether the ledger lies on one server, so that what any server says of it is the leader's word.
    pub async fn is_on_one_server(&self) -> Result<bool, ReadError> {
        Ok(self.bucket.replicas().await? == 1)
    }

    async fn is_it_ours(
        &self,
        record: &RunRecord,
        over: u64,
        answer_was_lost: bool,
    ) -> Result<Update, WriteError> {
        let what = || record.id.to_string();
        match self.get(&record.id).await {
            Ok(Some(stored)) if answer_was_lost && stored.value == *record => {
                Ok(Update::Stored(stored.revision))
            }
            // Still the revision we wanted to write over: the conflict was with a write that did not get through.
            Ok(Some(stored)) if stored.revision == over => Err(WriteError::Unknown { what: what() }),
            // Whatever it is: somebody wrote it since.
            Ok(_) => Ok(Update::Stale),
            Err(ReadError::Corrupt { revision, .. }) if revision != over => Ok(Update::Stale),
            Err(_) => Err(WriteError::Unknown { what: what() }),
        }
    }

    /// All versions of a record, oldest first: the run's life.
    pub async fn history(&self, run: &RunId) -> Result<Vec<Stored<RunRecord>>, ReadError> {
        self.bucket.history(&run.to_string()).await?.into_iter().map(stored_of).collect()
    }

    /// The records of all runs, or of one name. For people; what decides something reads one run.
    pub async fn list(&self, filter: &str) -> Result<Vec<Stored<RunRecord>>, ReadError> {
        // A record nobody understands must not hide the others.
        Ok(self.bucket.list(filter).await?.into_iter().filter_map(|change| stored_of(change).ok()).collect())
    }

    /// All that was written since a moment, by the server's clock, oldest first; of more than so many the newest. For
    /// people.
    pub async fn written_since(
        &self,
        since: Timestamp,
        newest_max: u64,
    ) -> Result<Vec<Stored<RunRecord>>, ReadError> {
        let changes = self.bucket.list_versions_since(">", since, newest_max).await?;
        Ok(changes.into_iter().filter_map(|change| stored_of(change).ok()).collect())
    }
}

fn stored_of(change: Change) -> Result<Stored<RunRecord>, ReadError> {
    let value = read_record(&change.key, &change.value.unwrap_or_default(), change.revision)?;
    Ok(Stored { value, revision: change.revision, stored_at: change.stored_at })
}

fn encode(record: &RunRecord) -> Bytes {
    let mut bytes = Vec::with_capacity(RECORD_BYTES_USUAL);
    // A record holds strings, numbers and JSON values only, which always encode.
    let _ = serde_json::to_writer(&mut bytes, record);
    Bytes::from(bytes)
}

/// What even a record of another version says, or one that holds what cannot be read: whose it is and how far it is. It is
/// never taken for absent, because then its run would run again.
#[derive(Deserialize)]
struct Outline {
    id: RunId,
    queue: QueueName,
    status: RunState,
    created_at: Timestamp,
}

pub(crate) fn read_record(key: &str, bytes: &[u8], revision: u64) -> Result<RunRecord, ReadError> {
    let corrupt = |detail: String| ReadError::Corrupt { what: format!("run {key}"), revision, detail };
    let record = match serde_json::from_slice::<RunRecord>(bytes) {
        Ok(record) => record,
        Err(error) => {
            let outline: Outline = serde_json::from_slice(bytes).map_err(|_| corrupt(error.to_string()))?;
            let Outline { id, queue, status, created_at } = outline;
            let outlined = RunRecord { status, ..RunRecord::pending(id, queue, created_at) };
            outlined.because(Reason::Other)
        }
    };
    if record.id.to_string() != key {
        return Err(corrupt(format!("it is the record of {}", record.id)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_made_out_of_a_record_counts_and_only_what_is_none_is_corrupt() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let head = r#""id":"a.b","queue":"default","created_at":"2026-11-24T02:00:00Z""#;
        for body in [
            format!(r#"{{{head},"status":"SUCCESS","output":{deep}}}"#),
            format!(r#"{{{head},"status":"SUCCESS","attempt":"three","slot":{{"of":"a newer version"}}}}"#),
        ] {
            let record = read_record("a.b", body.as_bytes(), 7).expect("an outline");
            assert_eq!((record.status, record.reason), (RunState::Success, Some(Reason::Other)));
            assert!(matches!(
                read_record("a.c", body.as_bytes(), 7),
                Err(ReadError::Corrupt { revision: 7, .. })
            ));
        }
        for nonsense in ["", "no record", "{}", r#"{"id":"a.b","status":"SUCCESS"}"#] {
            assert!(read_record("a.b", nonsense.as_bytes(), 7).is_err(), "{nonsense}");
        }
    }
}
