//! Partitions as they come and go: where each begins, and its cursor.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{Timestamp, cron::tzdb_version, hash::partition_of, limits, names::Name};
use streams::{leases::Cursor, ledger::Update, schedules::Version};

use super::{
    Asker, Effect, Note, Now, Planning,
    ask::{Answer, Ask, CursorFound, Unanswered, wants},
};
use crate::{book::before, planted::planted};

/// A cursor may be this much ahead of our clock: its writer's may be fast.
const CURSOR_AHEAD_MAX: TimeDelta = TimeDelta::minutes(1);
/// How long a planner may go on without hearing of a new definition: a watch that is lost and begun anew.
const DEFINITION_LAG_MAX: TimeDelta = TimeDelta::minutes(1);
/// How far back a partition is looked through whose cursor is lost.
const CURSOR_LOST_LOOK_BACK: TimeDelta = TimeDelta::days(1);
/// Schedules whose history is read one by one; of more, a partition's whole history is read at once: each read is a
/// consumer of its own, and the server has a limit of those.
const HISTORIES_ONE_BY_ONE_MAX: usize = 8;
/// Between two writes of a cursor while its partition has slots: a write for each slot would slow the slots down, and a
/// successor finds quickly what was done since.
const CURSOR_SPACING: Duration = Duration::from_millis(200);
/// Before a partition that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// A partition that is held.
#[derive(Debug)]
pub(super) enum Partition {
    /// It could not be opened, and is tried again then.
    Closed { until: Duration },
    /// What is needed to plan it is being read.
    Opening(Opening),
    /// It is planned.
    Open(Open),
}

#[derive(Debug)]
pub(super) enum Opening {
    ReadingCursor,
    /// It has no cursor, or one that cannot be right: it begins with its oldest schedule, in its oldest version. The
    /// slots since then count, although the schedule may have been changed before any planner lived.
    FindingBeginning {
        not_before: Timestamp,
        revision: u64,
    },
    /// Reading the versions between the cursor and the newest.
    ReadingHistories(Beginning),
    ReadingHistory(Beginning, Name, VecDeque<Name>),
    /// Reading what was said of pauses since the cursor.
    ReadingPauses(Beginning, Name, VecDeque<Name>),
}

/// Where a partition begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// What its cursor says.
    stored: Timestamp,
    revision: u64,
    /// The newest definition that the cursor's writer had heard of.
    heard: u64,
    /// Where planning begins: a cursor may be ahead of our clock. What lies ahead by ours is looked at again when it
    /// comes, and found done if it is.
    from: Timestamp,
}

/// The cursor of a partition that is planned, as it is stored.
#[derive(Debug)]
pub(super) struct Open {
    accounted_to: Timestamp,
    revision: u64,
    /// When it was last looked at whether it can be moved.
    looked_at: Duration,
    /// What is being written.
    writing: Option<Timestamp>,
    /// It had slots since its cursor was written.
    has_worked: bool,
}

impl Planning {
    pub(super) fn is_open(&self, partition: u16) -> bool {
        matches!(self.partitions.get(&partition), Some(Partition::Open(_)))
    }

    pub(super) fn open_partitions(&self) -> Vec<u16> {
        self.partitions.keys().copied().filter(|partition| self.is_open(*partition)).collect()
    }

    /// Opens partitions that are new, closes those that are gone. Not before all definitions are known.
    pub(super) fn follow_holdings(&mut self, now: Now) {
        if !self.loaded.is_whole() || self.is_stopping {
            return;
        }
        let gone: Vec<u16> =
            self.partitions.keys().copied().filter(|partition| !self.held.contains(partition)).collect();
        for partition in gone {
            self.close(partition);
        }
        for partition in self.held.clone() {
            let begins = match self.partitions.get(&partition) {
                None => true,
                Some(Partition::Closed { until }) => *until <= now.elapsed,
                Some(_) => false,
            };
            // By a clock that is not believed a cursor would be judged wrongly.
            if begins && now.is_believed {
                self.partitions.insert(partition, Partition::Opening(Opening::ReadingCursor));
                self.ask(Asker::Partition(partition), Ask::ReadCursor(partition));
            }
        }
    }

    /// A watch of schedules begins: from now on everything is told anew.
    pub(super) fn watch_begins(&mut self) {
        if self.loaded.schedules {
            self.heard_before.get_or_insert(self.book.heard());
        }
    }

    /// All schedules have been told.
    pub(super) fn watch_is_current(&mut self) {
        self.loaded.schedules = true;
        if self.heard_before.take().is_some() {
            self.close_all();
        }
    }

    /// Closes all partitions, to open them with the versions that were not told.
    fn close_all(&mut self) {
        for partition in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.close(partition);
        }
    }

    fn close(&mut self, partition: u16) {
        self.partitions.remove(&partition);
        self.forget_asks(|asker| matches!(asker, Asker::Partition(closed) if *closed == partition));
        self.forget_errands(partition);
        self.heard_while_opening.retain(|name| partition_of(name.as_str()) != partition);
        self.book.close(partition);
        self.catch_ups.close(partition);
        self.held_back.forget(|name| partition_of(name.as_str()) == partition);
    }

    pub(super) fn partition_answered(&mut self, partition: u16, answer: Answer, now: Now) {
        match self.partitions.remove(&partition) {
            Some(Partition::Opening(opening)) => {
                if let Err(Unanswered(why)) = self.go_on_opening(partition, opening, answer, now) {
                    self.effects.push(Effect::Note(Note::NotOpened { partition, why }));
                    let until = now.elapsed + OPEN_AGAIN;
                    self.partitions.insert(partition, Partition::Closed { until });
                }
            }
            Some(Partition::Open(open)) => self.cursor_answered(partition, open, answer, now),
            Some(closed @ Partition::Closed { .. }) => {
                self.partitions.insert(partition, closed);
            }
            None => {}
        }
    }

    fn go_on_opening(
        &mut self,
        partition: u16,
        opening: Opening,
        answer: Answer,
        now: Now,
    ) -> Result<(), Unanswered> {
        match opening {
            Opening::ReadingCursor if !now.is_believed => {
                return Err(Unanswered("the clock is not believed".to_owned()));
            }
            Opening::ReadingCursor => {
                let found = wants!(answer, Answer::Cursor(found) => found);
                self.found_cursor(partition, found, now);
            }
            Opening::FindingBeginning { not_before, revision } => {
                self.learn_histories(wants!(answer, Answer::Versions(versions) => versions));
                let stored = self.book.beginning_of(partition).unwrap_or(now.wall).max(not_before);
                let from = stored.min(now.wall);
                self.read_pauses(partition, Beginning { stored, revision, heard: 0, from }, now);
            }
            Opening::ReadingHistories(beginning) => {
                self.learn_histories(wants!(answer, Answer::Versions(versions) => versions));
                self.read_pauses(partition, beginning, now);
            }
            Opening::ReadingHistory(beginning, name, rest) => {
                self.book.learn_history(&name, wants!(answer, Answer::Versions(versions) => versions));
                self.read_next_history(partition, beginning, rest, now);
            }
            Opening::ReadingPauses(beginning, name, rest) => {
                self.pauses.learn_history(&name, wants!(answer, Answer::Pauses(said) => said));
                self.read_next_pauses(partition, beginning, rest, now);
            }
        }
        Ok(())
    }

    /// Leaves what was begun in a partition as a crash would. What it was told to do was right by what was known before the
    /// partition was closed: it must not account for anything after.
    fn forget_errands(&mut self, partition: u16) {
        let is_in = |name: &Name| partition_of(name.as_str()) == partition;
        self.busy.retain(|name| !is_in(name));
        self.ready.retain(|due| !is_in(&due.name));
        let gone: Vec<u64> =
            self.errands.extract_if(.., |_, errand| is_in(&errand.name)).map(|(n, _)| n).collect();
        if !gone.is_empty() {
            self.forget_asks(|asker| matches!(asker, Asker::Errand(number) if gone.contains(number)));
        }
    }

    /// Notes that a version came: if its partition is being opened, its history is read once more before it is.
    pub(super) fn note_while_opening(&mut self, name: &Name) {
        if matches!(self.partitions.get(&partition_of(name.as_str())), Some(Partition::Opening(_))) {
            self.heard_while_opening.insert(name.clone());
        }
    }

    fn opening(&mut self, partition: u16, opening: Opening, ask: Ask) {
        self.partitions.insert(partition, Partition::Opening(opening));
        self.ask(Asker::Partition(partition), ask);
    }

    fn found_cursor(&mut self, partition: u16, found: CursorFound, now: Now) {
        let (not_before, revision) = match found {
            CursorFound::Cursor(cursor, revision) if self.is_right(&cursor, now) => {
                self.note_zone_data(&cursor);
                let (stored, heard) = (cursor.accounted_to, cursor.heard);
                let beginning = Beginning { stored, revision, heard, from: stored.min(now.wall) };
                return self.read_histories(partition, beginning, now);
            }
            CursorFound::None => (Timestamp::MIN_UTC, 0),
            // One from the future (of a clock that was wrong) or one nobody understands would leave slots behind without
            // a record. Looking back finds done what was done.
            CursorFound::Cursor(_, revision) | CursorFound::Corrupt(revision) => {
                self.effects.push(Effect::Note(Note::CursorWrong(partition)));
                (now.wall - CURSOR_LOST_LOOK_BACK, revision)
            }
        };
        let finding = Opening::FindingBeginning { not_before, revision };
        self.opening(partition, finding, Ask::ReadHistories(partition));
    }

    /// Whether a cursor is not from the future. A wall clock that was just set back does not make it so.
    fn is_right(&self, cursor: &Cursor, now: Now) -> bool {
        !now.is_believed || cursor.accounted_to <= now.wall.max(self.latest) + CURSOR_AHEAD_MAX
    }

    fn read_histories(&mut self, partition: u16, beginning: Beginning, now: Now) {
        // A definition that was written just before the cursor may not have been heard by who wrote the cursor.
        let mut changed =
            self.book.changed_since(partition, beginning.from, DEFINITION_LAG_MAX, beginning.heard);
        // In one order, so that what happened once can happen again.
        changed.sort();
        self.read_these(partition, beginning, changed, now);
    }

    fn read_these(&mut self, partition: u16, beginning: Beginning, changed: Vec<Name>, now: Now) {
        if changed.len() > HISTORIES_ONE_BY_ONE_MAX {
            let reading = Opening::ReadingHistories(beginning);
            self.opening(partition, reading, Ask::ReadHistories(partition));
        } else {
            self.read_next_history(partition, beginning, changed.into(), now);
        }
    }

    fn read_next_history(
        &mut self,
        partition: u16,
        beginning: Beginning,
        mut rest: VecDeque<Name>,
        now: Now,
    ) {
        match rest.pop_front() {
            Some(name) => {
                let ask = Ask::ReadHistory(name.clone());
                self.opening(partition, Opening::ReadingHistory(beginning, name, rest), ask);
            }
            None => self.read_pauses(partition, beginning, now),
        }
    }

    fn read_pauses(&mut self, partition: u16, beginning: Beginning, now: Now) {
        let since = before(beginning.from, DEFINITION_LAG_MAX);
        let mut changed = self.pauses.changed_since(partition, since);
        changed.sort();
        self.read_next_pauses(partition, beginning, changed.into(), now);
    }

    fn read_next_pauses(&mut self, partition: u16, beginning: Beginning, mut rest: VecDeque<Name>, now: Now) {
        match rest.pop_front() {
            Some(name) => {
                let ask = Ask::ReadPauses(name.clone());
                self.opening(partition, Opening::ReadingPauses(beginning, name, rest), ask);
            }
            None => self.open(partition, beginning, now),
        }
    }

    fn open(&mut self, partition: u16, beginning: Beginning, now: Now) {
        let is_here = |name: &Name| partition_of(name.as_str()) == partition;
        let meanwhile: Vec<Name> = self.heard_while_opening.extract_if(.., is_here).collect();
        if !meanwhile.is_empty() {
            return self.read_these(partition, beginning, meanwhile, now);
        }
        let Beginning { stored, revision, heard, from } = beginning;
        self.book.open(partition, from, DEFINITION_LAG_MAX, heard);
        let open = Open {
            accounted_to: stored,
            revision,
            looked_at: Duration::ZERO,
            writing: None,
            has_worked: false,
        };
        self.partitions.insert(partition, Partition::Open(open));
        self.look_at = self.look_at.min(now.elapsed);
        self.cursors_at = self.cursors_at.min(now.elapsed);
    }

    fn learn_histories(&mut self, versions: Vec<Version>) {
        let mut histories: BTreeMap<Name, Vec<Version>> = BTreeMap::new();
        for version in versions {
            histories.entry(version.name.clone()).or_default().push(version);
        }
        for (name, versions) in histories {
            self.book.learn_history(&name, versions);
        }
    }

    /// Says once if slots were computed with other zone data than ours. What is accounted for stays so; from the cursor on
    /// ours counts, and a slot that moved across the cursor by a new rule is not looked for.
    fn note_zone_data(&mut self, cursor: &Cursor) {
        if cursor.tzdb != tzdb_version() && self.zone_data_noted.insert(cursor.tzdb.clone()) {
            let (theirs, by) = (cursor.tzdb.clone(), cursor.by.clone());
            self.effects.push(Effect::Note(Note::OtherZoneData { theirs, by }));
        }
    }

    /// Notes that slots of a partition were accounted for.
    pub(super) fn note_work(&mut self, partition: u16, now: Now) {
        if let Some(Partition::Open(open)) = self.partitions.get_mut(&partition) {
            open.has_worked = true;
            self.cursors_at = self.cursors_at.min((open.looked_at + CURSOR_SPACING).max(now.elapsed));
        }
    }

    /// Moves the cursors that have something to say or were silent for long; all of them if it is the last time.
    pub(super) fn write_cursors(&mut self, now: Now, is_last: bool) {
        self.cursors_at = now.elapsed + limits::CURSOR_WRITE;
        if !now.is_believed {
            self.cursors_at = now.elapsed + CURSOR_SPACING;
            return;
        }
        for partition in self.open_partitions() {
            let heard = self.heard_before.unwrap_or(self.book.heard());
            let Some(Partition::Open(open)) = self.partitions.get_mut(&partition) else { continue };
            let spacing = if open.has_worked { CURSOR_SPACING } else { limits::CURSOR_WRITE };
            let due_at = open.looked_at + spacing;
            if open.writing.is_some() {
                // Its answer comes, or it is looked at again then.
                continue;
            }
            if now.elapsed < due_at && !is_last {
                self.cursors_at = self.cursors_at.min(due_at);
                continue;
            }
            (open.has_worked, open.looked_at) = (false, now.elapsed);
            let accounted_to = self.book.accounted_to(partition, now.wall);
            // Never backwards, whatever the wall clock does.
            if accounted_to <= open.accounted_to && !planted!(CursorGoesBack) {
                continue;
            }
            open.writing = Some(accounted_to);
            let over = open.revision;
            let (by, tzdb) = (self.me.clone(), tzdb_version().to_owned());
            let cursor = Cursor { accounted_to, by, tzdb, heard };
            self.ask(Asker::Partition(partition), Ask::WriteCursor { partition, cursor, over });
        }
    }

    fn cursor_answered(&mut self, partition: u16, mut open: Open, answer: Answer, now: Now) {
        let writing = open.writing.take();
        match (answer, writing) {
            (Answer::Updated(Update::Stored(revision)), Some(accounted_to)) => {
                (open.accounted_to, open.revision) = (accounted_to, revision);
                if open.has_worked {
                    self.cursors_at = self.cursors_at.min(open.looked_at + CURSOR_SPACING);
                }
            }
            // Somebody else wrote our cursor: a predecessor that was still at it, or a successor. Theirs is taken over,
            // and whose partition it is the lease decides; the ledger keeps us from doing anything twice meanwhile.
            (Answer::Updated(Update::Stale), _) => {
                self.partitions.insert(partition, Partition::Open(open));
                return self.ask(Asker::Partition(partition), Ask::ReadCursor(partition));
            }
            (Answer::Cursor(CursorFound::Cursor(found, revision)), _) => {
                self.effects.push(Effect::Note(Note::CursorMoved(partition, found.by.clone())));
                // One from the future is written over: it would stand there until that comes.
                open.accounted_to =
                    if self.is_right(&found, now) { found.accounted_to } else { Timestamp::MIN_UTC };
                open.revision = revision;
                self.cursors_at = self.cursors_at.min(now.elapsed + CURSOR_SPACING);
            }
            // It is gone, or nobody understands it: the partition is opened anew.
            (Answer::Cursor(_), _) => return self.close(partition),
            (other, _) => {
                let Unanswered(why) = other.unexpected();
                self.effects.push(Effect::Note(Note::CursorStays { partition, why }));
                open.has_worked = true;
                self.cursors_at = self.cursors_at.min(now.elapsed + OPEN_AGAIN);
            }
        }
        self.partitions.insert(partition, Partition::Open(open));
    }

    /// The last word of a planner that stops: up to where everything is accounted for.
    pub(super) fn last_words(&mut self, now: Now) {
        self.write_cursors(now, true);
    }
}
