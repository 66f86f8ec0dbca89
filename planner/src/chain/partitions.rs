//! Partitions as they come and go: from which place in the ledger each is read, and its cursor.

use std::{collections::BTreeMap, time::Duration};

use shared::{Timestamp, limits::CHAIN_CURSOR_WRITE, names::Name};
use streams::{ReadError, WriteError, chain::ChainCursor, schedules::Version};

use super::{
    Chains, State, StoredCursor,
    begin::{Beginning, beginning},
    links::{Link, Plan},
};

/// Schedules whose history is read one by one; of more, a partition's whole history is read at once.
const HISTORIES_ONE_BY_ONE_MAX: usize = 2;

impl Chains {
    /// Opens the partitions of a plan that are new to it, closes those that are gone, and reads from further back where a
    /// schedule was heard of later than its partition was read.
    pub(super) async fn open_and_close(&self, state: &mut State, plan: &Plan) -> Result<(), ReadError> {
        state.cursors.retain(|partition, _| plan.partitions.contains_key(partition));
        for partition in state.work.partitions() {
            if !plan.partitions.contains_key(&partition) {
                state.work.close(partition);
            }
        }
        if plan.partitions.is_empty() {
            return Ok(());
        }
        let (made, last) = self.streams.ledger_extent().await?;
        if state.made != Some(made) {
            state.running.abort_all();
            *state = State { made: Some(made), ..State::default() };
        }
        let mut beginnings = Vec::new();
        for (partition, links) in &plan.partitions {
            if !state.cursors.contains_key(partition) {
                let (cursor, revision) = self.streams.chain_cursors().get(*partition).await?;
                // One that lies ahead is of a ledger that has lost its newest records: what is there is looked at again.
                let stored = cursor.filter(|cursor| cursor.ledger == made && cursor.place <= last);
                let stored = stored.map(|cursor| (cursor.place, cursor.heard));
                let heard = stored.map_or(0, |(_, heard)| heard);
                let cursor = StoredCursor { stored, revision, written_at: Duration::ZERO, heard };
                state.cursors.insert(*partition, cursor);
            }
            let Some(cursor) = state.cursors.get(partition) else { continue };
            let read = state.work.read(*partition).or(cursor.stored.map(|(place, _)| place));
            let (since, at_cursor) = self.beginning_of(*partition, links, cursor.heard).await?;
            beginnings.push((*partition, since, read.filter(|_| at_cursor)));
        }
        // One look for all: each is a consumer. What is read from too far back is found done, or too early for its schedule.
        let since = beginnings.iter().filter_map(|(_, since, _)| *since).min();
        let place = match since {
            Some(since) => self.streams.ledger_place_before(since).await?,
            None => 0,
        };
        for (partition, since, read) in beginnings {
            let behind = since.map(|_| place).into_iter().chain(read).min();
            if let (Some(behind), Some(cursor)) = (behind, state.cursors.get_mut(&partition)) {
                state.work.open(partition, behind);
                cursor.heard = plan.heard;
            }
        }
        Ok(())
    }

    /// From when on a partition is to be read for schedules that were not followed for when it was read, and whether it has
    /// others, for which it is read on from where it is.
    async fn beginning_of(
        &self,
        partition: u16,
        links: &[(Name, Link)],
        heard: u64,
    ) -> Result<(Option<Timestamp>, bool), ReadError> {
        let unheard: Vec<&(Name, Link)> = links.iter().filter(|(_, link)| link.revision > heard).collect();
        let (known, unknown): (Vec<&(Name, Link)>, Vec<_>) =
            unheard.iter().partition(|(_, link)| link.taken_up.is_some());
        let taken_up = known.iter().filter_map(|(_, link)| link.taken_up);
        let mut beginnings: Vec<Beginning> =
            taken_up.map(|first| Beginning::of(first.revision, first.since, heard)).collect();
        for (link, versions) in self.histories(partition, &unknown).await? {
            beginnings.extend(beginning(&versions, heard, &link.after.schedule));
        }
        let since = beginnings.iter().filter_map(|beginning| match beginning {
            Beginning::At(since) => Some(*since),
            Beginning::AtCursor => None,
        });
        let at_cursor = unheard.len() < links.len() || beginnings.contains(&Beginning::AtCursor);
        Ok((since.min(), at_cursor))
    }

    /// The versions of these schedules' definitions.
    async fn histories<'a>(
        &self,
        partition: u16,
        of: &[&'a (Name, Link)],
    ) -> Result<Vec<(&'a Link, Vec<Version>)>, ReadError> {
        let mut histories = Vec::new();
        if of.len() <= HISTORIES_ONE_BY_ONE_MAX {
            for (name, link) in of {
                histories.push((link, self.streams.schedules().history(name).await?));
            }
            return Ok(histories);
        }
        // Each read is a consumer of its own, and the server has a limit of those: many are read as one.
        let mut all: BTreeMap<Name, Vec<Version>> = BTreeMap::new();
        for version in self.streams.schedules().history_of_partition(partition).await? {
            all.entry(version.name.clone()).or_default().push(version);
        }
        for (name, link) in of {
            let Link { revision, since, .. } = link.clone();
            // None is there if no schedule was ever changed.
            let versions = all.remove(name).unwrap_or_default();
            let newest = || async {
                let stored = self.streams.schedules().at(name, revision).await?;
                Ok::<_, ReadError>(vec![Version {
                    name: name.clone(),
                    definition: Ok(stored),
                    revision,
                    since,
                }])
            };
            let versions = if versions.is_empty() { newest().await? } else { versions };
            histories.push((link, versions));
        }
        Ok(histories)
    }

    /// Moves the cursors that have something to say, at most once a second each. Never back.
    pub(super) async fn write_cursors(&self, state: &mut State, is_last: bool) {
        let Some(made) = state.made else { return };
        let now = self.streams.clock().elapsed();
        let mut lost = Vec::new();
        for (partition, cursor) in &mut state.cursors {
            let Some(place) = state.work.accounted_to(*partition) else { continue };
            let is_news =
                cursor.stored.is_none_or(|stored| stored.0 <= place && stored < (place, cursor.heard));
            let is_soon = now.saturating_sub(cursor.written_at) < CHAIN_CURSOR_WRITE;
            if !is_news || (is_soon && !is_last) {
                continue;
            }
            cursor.written_at = now;
            let by = self.status.id().clone();
            let written = ChainCursor { place, heard: cursor.heard, ledger: made, by };
            match self.streams.chain_cursors().write(*partition, &written, cursor.revision).await {
                Ok(revision) => {
                    cursor.revision = revision;
                    cursor.stored = Some((place, written.heard));
                }
                Err(WriteError::Conflict { .. }) => lost.push(*partition),
                Err(error) => {
                    tracing::warn!(partition, %error, "The chain cursor of partition {partition} stays where it is: {error}");
                }
            }
        }
        for partition in lost {
            self.adopt_cursor(state, partition, made).await;
        }
    }

    /// Somebody else wrote our cursor: a predecessor that was still at it, a successor, or we, and the answer was lost. What
    /// we have read stays; it is written over theirs once it is further.
    async fn adopt_cursor(&self, state: &mut State, partition: u16, made: Timestamp) {
        let Ok((found, revision)) = self.streams.chain_cursors().get(partition).await else { return };
        if let Some(cursor) = state.cursors.get_mut(&partition) {
            let found = found.filter(|found| found.ledger == made);
            cursor.stored = found.map(|found| (found.place, found.heard));
            cursor.revision = revision;
        }
    }
}
