//! A key-value bucket as we use it: compare-and-set writes, leader reads, watches that heal themselves.
//!
//! Not async-nats' own store for reads and writes: its `get` may answer from any replica, and its conflicts on three
//! replicas come back as "other". The stream behind it is the ordinary one, so `nats kv` shows it.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{
    datetime,
    jetstream::{consumer, kv, stream},
};
use bytes::Bytes;
use chrono::DateTime;
use futures::{Stream, StreamExt};
use shared::Timestamp;

use crate::{
    ReadError, Streams, WriteError,
    headers::{self, Headers},
    names::{bucket_prefix, bucket_stream},
    silence::Silence,
};

/// How often a read of many keys begins anew when it was interrupted.
const READS_MAX: u32 = 3;
/// Between two messages of such a read.
const READ_SILENCE_MAX: Duration = Duration::from_secs(5);

/// How often a silent watch is compared with what the leader has.
const WATCH_LOOK: Duration = Duration::from_secs(2);

/// A value as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// Its revision: what a compare-and-set must name.
    pub revision: u64,
    /// When the server stored it.
    pub stored_at: Timestamp,
}

/// What a watch saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key, without the bucket.
    pub key: String,
    /// The new value; none if the key was deleted.
    pub value: Option<Bytes>,
    /// The revision of this change.
    pub revision: u64,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// Whether everything that was there when the watch began has been seen, this change included.
    pub is_current: bool,
}

/// A bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    streams: Streams,
    name: String,
}

impl Streams {
    pub(crate) fn bucket(&self, name: String) -> Bucket {
        Bucket { streams: self.clone(), name }
    }
}

impl Bucket {
    pub(crate) fn subject(&self, key: &str) -> String {
        format!("{}{key}", bucket_prefix(&self.name))
    }

    /// Writes a key that must not exist. Conflict if it does.
    pub async fn create(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        self.update(key, value, 0).await
    }

    /// Writes a key over exactly this revision. Conflict if it is another.
    pub async fn update(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, WriteError> {
        let headers = Headers::new().with_number(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, revision);
        self.streams.write(&self.subject(key), headers, value).await
    }

    /// Writes a key over whatever is there: for what has one writer, or where the last one shall win.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        self.streams.write(&self.subject(key), Headers::new(), value).await
    }

    /// Marks a key as deleted, over exactly this revision. Its history stays.
    pub async fn delete(&self, key: &str, revision: u64) -> Result<u64, WriteError> {
        let headers = Headers::new()
            .with(headers::KV_OPERATION, "DEL")?
            .with_number(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, revision);
        self.streams.write(&self.subject(key), headers, Bytes::new()).await
    }

    /// Marks a key as deleted, over exactly this revision, and lets the mark be forgotten after a time: for keys that come
    /// and go without end. Then the key is as if it had never been. Only in buckets that allow it.
    pub async fn forget(&self, key: &str, revision: u64, after: Duration) -> Result<u64, WriteError> {
        let headers = Headers::new()
            .with(headers::KV_OPERATION, "DEL")?
            .with(headers::TTL, &format!("{}s", after.as_secs()))?
            .with_number(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, revision);
        self.streams.write(&self.subject(key), headers, Bytes::new()).await
    }

    /// Reads a key from the stream's leader. A deleted key is `Ok(None)`; so is one that never was.
    pub async fn get(&self, key: &str) -> Result<Option<Stored<Bytes>>, ReadError> {
        Ok(self.get_with_deleted(key).await?.filter(|stored| stored.value.is_some()).and_then(|stored| {
            Some(Stored { value: stored.value?, revision: stored.revision, stored_at: stored.stored_at })
        }))
    }

    /// Reads a key from the stream's leader, and tells a deleted key (value none) from one that never was.
    ///
    /// Whoever writes over a deletion must name its revision: zero would be a conflict.
    pub async fn get_with_deleted(&self, key: &str) -> Result<Option<Stored<Option<Bytes>>>, ReadError> {
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => {
                let deleted = headers::value(Some(&message.headers), headers::KV_OPERATION).is_some();
                Ok(Some(Stored {
                    value: (!deleted).then_some(message.payload),
                    revision: message.sequence,
                    stored_at: timestamp(message.time.unix_timestamp_nanos()),
                }))
            }
            Err(error) if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(missing_or_unavailable(&format!("bucket {}", self.name), &error)),
        }
    }

    /// Reads a key from whichever server answers first. Cheaper for the server than [`Bucket::get`], and it may be behind:
    /// only where a compare-and-set protects what is decided on it. A deleted key is `Ok(None)`.
    pub async fn get_nearby(&self, key: &str) -> Result<Option<Stored<Bytes>>, ReadError> {
        match self.stream().await?.direct_get_last_for_subject(self.subject(key)).await {
            Ok(message) if headers::value(Some(&message.headers), headers::KV_OPERATION).is_some() => {
                Ok(None)
            }
            Ok(message) => Ok(Some(Stored {
                value: message.payload,
                revision: message.sequence,
                stored_at: timestamp(message.time.unix_timestamp_nanos()),
            })),
            Err(error) if error.kind() == stream::DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(missing_or_unavailable(&format!("bucket {}", self.name), &error)),
        }
    }

    /// The key that matches and has not been written for longest, of those written at this revision or later, from the leader.
    /// No value: it was deleted.
    pub(crate) async fn oldest(
        &self,
        filter: &str,
        from: u64,
    ) -> Result<Option<(String, Stored<Option<Bytes>>)>, ReadError> {
        let stream = self.stream().await?;
        let message = match stream.get_first_raw_message_by_subject(&self.subject(filter), from).await {
            Ok(message) => message,
            Err(error) if error.kind() == stream::RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(missing_or_unavailable(&format!("bucket {}", self.name), &error)),
        };
        let key = message.subject.strip_prefix(&bucket_prefix(&self.name)).unwrap_or_default().to_owned();
        let deleted = headers::value(Some(&message.headers), headers::KV_OPERATION).is_some();
        let stored_at = timestamp(message.time.unix_timestamp_nanos());
        let value = (!deleted).then_some(message.payload);
        Ok(Some((key, Stored { value, revision: message.sequence, stored_at })))
    }

    /// Reads exactly this revision of a key from the leader; none if the history does not reach back to it any more.
    pub async fn at(&self, key: &str, revision: u64) -> Result<Option<Stored<Bytes>>, ReadError> {
        if revision == 0 {
            // Nothing was ever stored under it, and the server calls asking a bad request.
            return Ok(None);
        }
        let stream = self.stream().await?;
        match stream.get_raw_message(revision).await {
            Ok(message) if message.subject.as_str() == self.subject(key) => Ok(Some(Stored {
                value: message.payload,
                revision: message.sequence,
                stored_at: timestamp(message.time.unix_timestamp_nanos()),
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == stream::RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(missing_or_unavailable(&format!("bucket {}", self.name), &error)),
        }
    }

    async fn stream(&self) -> Result<stream::Stream<()>, ReadError> {
        self.streams
            .jetstream()
            .get_stream_no_info(bucket_stream(&self.name))
            .await
            .map_err(|error| ReadError::unavailable(self.name.clone(), error))
    }

    async fn store(&self) -> Result<kv::Store, ReadError> {
        self.streams.jetstream().get_key_value(&self.name).await.map_err(|error| match error.kind() {
            async_nats::jetstream::context::KeyValueErrorKind::GetBucket => {
                ReadError::Missing { what: format!("bucket {}", self.name) }
            }
            _ => ReadError::unavailable(self.name.clone(), error),
        })
    }

    /// How many messages the bucket holds: zero means that a watch will see nothing until something is written.
    pub async fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.stream_with_info().await?.cached_info().state.messages == 0)
    }

    /// How many servers keep it.
    pub(crate) async fn replicas(&self) -> Result<usize, ReadError> {
        Ok(self.stream_with_info().await?.cached_info().config.num_replicas)
    }

    async fn stream_with_info(&self) -> Result<stream::Stream, ReadError> {
        self.streams
            .jetstream()
            .get_stream(bucket_stream(&self.name))
            .await
            .map_err(|error| ReadError::unavailable(self.name.clone(), error))
    }

    /// Everything that is there now, then every change, for keys that match (`>` for all).
    ///
    /// A watch mends itself after most reconnects and goes on from where it was. Where it does not (after the loss of a server
    /// of three the client may fall silent for good, without an error) it is noticed after two looks (4 s), and the watch ends
    /// with an error: watch again then, with a wait between.
    pub async fn watch(
        &self,
        filter: &str,
    ) -> Result<impl Stream<Item = Result<Change, ReadError>> + Send + Unpin + use<>, ReadError> {
        self.watch_many(&[filter]).await
    }

    /// As [`Bucket::watch`], for keys that match any of several filters; in the order in which they were written.
    pub async fn watch_many(
        &self,
        filters: &[&str],
    ) -> Result<impl Stream<Item = Result<Change, ReadError>> + Send + Unpin + use<>, ReadError> {
        let watch = self
            .store()
            .await?
            .watch_many_with_history(filters.iter().copied())
            .await
            .map_err(|error| ReadError::unavailable(format!("watch of {}", self.name), error))?;
        let name = self.name.clone();
        let changes = watch.map(move |entry| {
            entry.map(change_of).map_err(|error| ReadError::unavailable(format!("watch of {name}"), error))
        });
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let watched = Watched { bucket: self.clone(), filters, silence: Silence::default() };
        Ok(Box::pin(futures::stream::unfold(
            (changes.boxed(), watched),
            |(mut changes, mut watched)| async move {
                let item = watched.next(&mut changes).await?;
                Some((item, (changes, watched)))
            },
        )))
    }

    /// The newest revision of all keys that match, from the leader; 0 if there is none.
    async fn newest_revision(&self, filter: &str) -> Result<u64, ReadError> {
        match self.stream().await?.get_last_raw_message_by_subject(&self.subject(filter)).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(missing_or_unavailable(&format!("bucket {}", self.name), &error)),
        }
    }

    /// All keys and values that match, as they are now. Of one moment only if nobody writes meanwhile.
    pub async fn list(&self, filter: &str) -> Result<Vec<Change>, ReadError> {
        let changes = self.read_all(filter, consumer::DeliverPolicy::LastPerSubject).await?;
        // What is written meanwhile comes too: the newest counts, at the place of its key.
        let mut newest: BTreeMap<String, Change> = BTreeMap::new();
        for change in changes {
            newest.insert(change.key.clone(), change);
        }
        Ok(newest.into_values().filter(|change| change.value.is_some()).collect())
    }

    /// All versions of all keys that match, deletions included, oldest first.
    pub async fn list_versions(&self, filter: &str) -> Result<Vec<Change>, ReadError> {
        self.read_all(filter, consumer::DeliverPolicy::All).await
    }

    /// All versions that match and were stored since a moment, deletions included, oldest first; of more than so many
    /// only the newest, so that a bucket with much traffic costs no more than that.
    pub async fn list_versions_since(
        &self,
        filter: &str,
        since: Timestamp,
        newest_max: u64,
    ) -> Result<Vec<Change>, ReadError> {
        let nanos = since.timestamp_nanos_opt().unwrap_or_default();
        let start_time = datetime::from_nanos(nanos.into())
            .map_err(|error| ReadError::unavailable(self.name.clone(), error))?;
        let by_time = consumer::DeliverPolicy::ByStartTime { start_time };
        let count = self.reader(filter, by_time).await?.cached_info().num_pending;
        if count <= newest_max {
            return self.read_all(filter, by_time).await;
        }
        let last = self.stream_with_info().await?.cached_info().state.last_sequence;
        let start_sequence = last.saturating_sub(newest_max) + 1;
        self.read_all(filter, consumer::DeliverPolicy::ByStartSequence { start_sequence }).await
    }

    /// Whether it holds a version of any key beside the newest.
    pub async fn has_history(&self) -> Result<bool, ReadError> {
        let stream = self.stream_with_info().await?;
        let state = &stream.cached_info().state;
        Ok(state.messages > state.subjects_count)
    }

    /// Reads what is there. A read that was interrupted (a reconnect, a change of leader) begins anew: the client would
    /// go on somewhere, and a gap would not show.
    async fn read_all(
        &self,
        filter: &str,
        policy: consumer::DeliverPolicy,
    ) -> Result<Vec<Change>, ReadError> {
        let mut outcome = self.read_once(filter, policy).await;
        for _ in 1..READS_MAX {
            match outcome {
                Err(ReadError::Unavailable { .. }) => outcome = self.read_once(filter, policy).await,
                outcome => return outcome,
            }
        }
        outcome
    }

    /// A consumer that begins where it is told; the server drops it when nobody listens.
    async fn reader(
        &self,
        filter: &str,
        policy: consumer::DeliverPolicy,
    ) -> Result<consumer::Consumer<consumer::push::OrderedConfig>, ReadError> {
        let config = consumer::push::OrderedConfig {
            deliver_subject: self.streams.client().new_inbox(),
            filter_subject: self.subject(filter),
            deliver_policy: policy,
            ..Default::default()
        };
        let stream = self.stream().await?;
        let created = stream.create_consumer(config).await;
        created.map_err(|error| missing_or_unavailable(&format!("bucket {}", self.name), &error))
    }

    async fn read_once(
        &self,
        filter: &str,
        policy: consumer::DeliverPolicy,
    ) -> Result<Vec<Change>, ReadError> {
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(self.name.clone(), error);
        let consumer = self.reader(filter, policy).await?;
        let mut expected = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(|error| unavailable(&error))?;
        let mut found = Vec::new();
        while expected > 0 {
            let message = tokio::select! {
                message = messages.next() => message,
                // What was expected may have aged out meanwhile; then nothing comes any more.
                () = self.streams.clock().sleep(READ_SILENCE_MAX) => {
                    return Err(unavailable(&"it fell silent in the middle of a read"));
                }
            };
            let Some(message) = message else { return Err(unavailable(&"the read ended early")) };
            let message = message.map_err(|error| unavailable(&error))?;
            let info = message.info().map_err(|error| unavailable(&error))?;
            if info.consumer_sequence != found.len() as u64 + 1 {
                return Err(unavailable(&"the read was interrupted"));
            }
            // What is written meanwhile comes too, or replaces what was to come: the server's count decides.
            expected = info.pending.min(expected - 1);
            let key = message.subject.strip_prefix(&bucket_prefix(&self.name)).unwrap_or_default();
            let deleted = headers::value(message.headers.as_ref(), headers::KV_OPERATION).is_some();
            found.push(Change {
                key: key.to_owned(),
                revision: info.stream_sequence,
                stored_at: timestamp(info.published.unix_timestamp_nanos()),
                is_current: expected == 0,
                value: (!deleted).then(|| message.payload.clone()),
            });
        }
        Ok(found)
    }

    /// All versions of one key, deletions included, oldest first.
    pub async fn history(&self, key: &str) -> Result<Vec<Change>, ReadError> {
        let unavailable =
            |error: &dyn std::fmt::Display| ReadError::unavailable(format!("history of {key}"), error);
        let mut entries = self.store().await?.history(key).await.map_err(|error| unavailable(&error))?;
        let mut versions = Vec::new();
        while let Some(entry) = entries.next().await {
            versions.push(change_of(entry.map_err(|error| unavailable(&error))?));
        }
        Ok(versions)
    }
}

/// A watch that is compared with the leader while it is silent.
struct Watched {
    bucket: Bucket,
    filters: Vec<String>,
    silence: Silence,
}

impl Watched {
    async fn next(
        &mut self,
        changes: &mut (impl Stream<Item = Result<Change, ReadError>> + Unpin),
    ) -> Option<Result<Change, ReadError>> {
        let clock = self.bucket.streams.clock().clone();
        loop {
            tokio::select! {
                // A million changes at the start need no timer each.
                biased;
                change = changes.next() => {
                    if let Some(Ok(change)) = &change {
                        self.silence.broken_by(change.revision);
                    }
                    return change;
                }
                () = clock.sleep(WATCH_LOOK) => {}
            }
            let mut newest = 0;
            for filter in &self.filters {
                newest = newest.max(self.bucket.newest_revision(filter).await.unwrap_or(0));
            }
            if self.silence.is_loss(newest) {
                let what = format!("watch of {}", self.bucket.name);
                return Some(Err(ReadError::unavailable(
                    what,
                    "it has fallen silent and shows no changes any more",
                )));
            }
        }
    }
}

fn change_of(entry: kv::Entry) -> Change {
    Change {
        key: entry.key,
        value: (entry.operation == kv::Operation::Put).then_some(entry.value),
        revision: entry.revision,
        stored_at: timestamp(entry.created.unix_timestamp_nanos()),
        is_current: entry.delta == 0,
    }
}

/// A stream that is not there is for the operator to make; anything else may pass.
pub(crate) fn missing_or_unavailable(what: &str, error: &impl std::fmt::Display) -> ReadError {
    // async-nats has the code in a different place for each kind of request; its words are the same everywhere.
    if error.to_string().contains("stream not found") {
        return ReadError::Missing { what: what.to_owned() };
    }
    ReadError::unavailable(what, error)
}

pub(crate) fn timestamp(nanos: i128) -> Timestamp {
    // Until the year 2262; a server does not store messages from later.
    DateTime::from_timestamp_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}
