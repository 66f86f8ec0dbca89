//! Partitions as they come and go: where each begins, and its cursor.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::TimeDelta;
use futures::{StreamExt, stream};
use shared::{Timestamp, cron::tzdb_version, limits, names::Name};
use streams::{ReadError, WriteError, bucket::Stored, leases::Cursor};

use super::{Rounds, StoredCursor};
use crate::book::before;

/// A cursor may be this much ahead of our clock: its writer's may be fast.
const CURSOR_AHEAD_MAX: TimeDelta = TimeDelta::minutes(1);
/// How long a planner may go on without hearing of a new definition: a watch that is lost and begun anew.
const DEFINITION_LAG_MAX: TimeDelta = TimeDelta::minutes(1);
/// How far back a partition is looked through whose cursor is lost.
const CURSOR_LOST_LOOK_BACK: TimeDelta = TimeDelta::days(1);
/// Cursors that are read at once when partitions come.
const CURSORS_IN_FLIGHT_MAX: usize = 16;
/// Schedules whose history is read one by one; of more, a partition's whole history is read at once.
const HISTORIES_ONE_BY_ONE_MAX: usize = 8;

impl Rounds {
    /// Follows what the lease keeper holds: opens partitions that are new, closes those that are gone.
    pub(super) async fn open_and_close(&mut self) {
        let held = self.holdings.all();
        let open: BTreeSet<u16> = self.book.open_partitions().into_iter().collect();
        for partition in open.difference(&held) {
            self.book.close(*partition);
            self.catch_ups.close(*partition);
            self.cursors.remove(partition);
        }
        let partitions = self.streams.partitions();
        let cursors = stream::iter(held.difference(&open).copied())
            .map(|partition| {
                let partitions = partitions.clone();
                async move { (partition, partitions.cursor(partition).await) }
            })
            .buffer_unordered(CURSORS_IN_FLIGHT_MAX);
        for (partition, cursor) in cursors.collect::<Vec<_>>().await {
            if let Err(error) = self.open(partition, cursor).await {
                tracing::warn!(partition, %error, "Partition {partition} cannot be opened yet: {error}");
            }
        }
    }

    async fn open(
        &mut self,
        partition: u16,
        cursor: Result<Option<Stored<Cursor>>, ReadError>,
    ) -> Result<(), ReadError> {
        let now = self.streams.clock().now();
        let (stored, revision, heard) = match cursor {
            Ok(Some(stored)) if stored.value.accounted_to <= now + CURSOR_AHEAD_MAX => {
                self.note_zone_data(&stored.value);
                (stored.value.accounted_to, stored.revision, stored.value.heard)
            }
            Ok(None) => (self.beginning_of(partition, now).await?, 0, 0),
            // A cursor from the future (of a clock that was wrong) or one nobody understands would leave slots behind
            // without a record. Looking back finds done what was done.
            Ok(Some(Stored { revision, .. })) | Err(ReadError::Corrupt { revision, .. }) => {
                tracing::error!(
                    partition,
                    "Partition {partition}'s cursor cannot be right; looking back a day"
                );
                (self.beginning_of(partition, now).await?.max(now - CURSOR_LOST_LOOK_BACK), revision, 0)
            }
            Err(error) => return Err(error),
        };
        // Its writer's clock may be fast. What lies ahead by ours is looked at again when it comes, and found done if it is.
        let accounted_to = stored.min(now);
        // A definition that was written just before the cursor may not have been heard by who wrote the cursor.
        let changed = self.book.changed_since(partition, accounted_to, DEFINITION_LAG_MAX, heard);
        if changed.len() > HISTORIES_ONE_BY_ONE_MAX {
            // Each read is a consumer of its own, and the server has a limit of those: many are read as one.
            self.learn_history_of(partition).await?;
        } else {
            for name in changed {
                let versions = self.streams.schedules().history(&name).await?;
                self.book.learn_history(&name, versions);
            }
        }
        for name in self.pauses.changed_since(partition, before(accounted_to, DEFINITION_LAG_MAX)) {
            let history = self.streams.schedules().pause_history(&name).await?;
            self.pauses.learn_history(&name, history);
        }
        self.book.open(partition, accounted_to, DEFINITION_LAG_MAX, heard);
        self.cursors
            .insert(partition, StoredCursor { accounted_to: stored, revision, written_at: Duration::ZERO });
        Ok(())
    }

    /// Where a partition begins that nobody ever planned: with its oldest schedule, in its oldest version. The slots
    /// since then count, although the schedule may have been changed before any planner lived.
    async fn beginning_of(&mut self, partition: u16, now: Timestamp) -> Result<Timestamp, ReadError> {
        self.learn_history_of(partition).await?;
        Ok(self.book.beginning_of(partition).unwrap_or(now))
    }

    /// Learns the older versions of all schedules of a partition.
    async fn learn_history_of(&mut self, partition: u16) -> Result<(), ReadError> {
        let mut histories: BTreeMap<Name, Vec<_>> = BTreeMap::new();
        for version in self.streams.schedules().history_of_partition(partition).await? {
            histories.entry(version.name.clone()).or_default().push(version);
        }
        for (name, versions) in histories {
            self.book.learn_history(&name, versions);
        }
        Ok(())
    }

    /// Says once if slots were computed with other zone data than ours. What is accounted for stays so; from the cursor on
    /// ours counts, and a slot that moved across the cursor by a new rule is not looked for.
    fn note_zone_data(&mut self, cursor: &Cursor) {
        if cursor.tzdb != tzdb_version() && self.zone_data_noted.insert(cursor.tzdb.clone()) {
            tracing::warn!(
                theirs = %cursor.tzdb, ours = tzdb_version(), by = %cursor.by,
                "Slots were computed with IANA {} by `{}`, from here on with {}: those near a change of clocks may differ",
                cursor.tzdb, cursor.by, tzdb_version()
            );
        }
    }

    /// Moves a partition's cursor, if it has something to say or was silent for long.
    pub(super) async fn write_cursor(&mut self, partition: u16, is_last: bool) {
        let Some(now) = self.clock.now() else { return };
        let elapsed = self.streams.clock().elapsed();
        let Some(stored) = self.cursors.get(&partition).copied() else { return };
        let accounted_to = self.book.accounted_to(partition, now);
        let is_old = elapsed.saturating_sub(stored.written_at) >= limits::CURSOR_WRITE;
        let had_work = self.worked.remove(&partition);
        // Never backwards, whatever the wall clock does.
        if accounted_to <= stored.accounted_to || !(is_old || is_last || had_work) {
            return;
        }
        let cursor = Cursor {
            accounted_to,
            by: self.status.id().clone(),
            tzdb: tzdb_version().to_owned(),
            heard: self.book.heard(),
        };
        match self.streams.partitions().write_cursor(partition, &cursor, stored.revision).await {
            Ok(revision) => {
                self.cursors.insert(partition, StoredCursor { accounted_to, revision, written_at: elapsed });
            }
            Err(WriteError::Conflict { .. }) => self.adopt_cursor(partition).await,
            Err(error) => {
                tracing::warn!(partition, %error, "The cursor of partition {partition} stays where it is: {error}");
            }
        }
    }

    /// Somebody else wrote our cursor: a predecessor that was still at it, or a successor. Theirs is taken over, and
    /// whose partition it is the lease decides; the ledger keeps us from doing anything twice meanwhile.
    async fn adopt_cursor(&mut self, partition: u16) {
        if let Ok(Some(found)) = self.streams.partitions().cursor(partition).await {
            tracing::info!(partition, by = %found.value.by, "Partition {partition}'s cursor was moved by `{}`", found.value.by);
            // One from the future is written over: it would stand there until that comes.
            let limit = self.streams.clock().now() + CURSOR_AHEAD_MAX;
            let is_right = found.value.accounted_to <= limit;
            let accounted_to = if is_right { found.value.accounted_to } else { Timestamp::MIN_UTC };
            let stored = StoredCursor { accounted_to, revision: found.revision, written_at: Duration::ZERO };
            self.cursors.insert(partition, stored);
        } else {
            self.book.close(partition);
            self.catch_ups.close(partition);
            self.cursors.remove(&partition);
        }
    }
}
