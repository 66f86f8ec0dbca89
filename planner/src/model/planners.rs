//! The bucket of the planners: seats, leases, cursors and lines, in one stream.

use shared::{Timestamp, names::Name, run::RunId};
use streams::{
    leases::{Cursor, Lease, Seat},
    ledger::Update,
    lines::Line,
};

use super::bucket::{Bucket, Entry};
use crate::machine::ask::CursorFound;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Seat(u16),
    Lease(u16),
    Cursor(u16),
    Line(Name),
}

#[derive(Debug)]
enum Value {
    Seat(Seat),
    Lease(Lease),
    Cursor(Cursor),
    Line(Vec<RunId>),
}

/// Seats, leases, cursors and lines.
#[derive(Debug)]
pub(crate) struct Planners(Bucket<Key, Value>);

impl Default for Planners {
    fn default() -> Self {
        Self(Bucket::new(1))
    }
}

impl Planners {
    pub(crate) fn cursor(&self, partition: u16) -> CursorFound {
        match self.0.get(&Key::Cursor(partition)) {
            Some(Entry { value: Some(Value::Cursor(cursor)), revision, .. }) => {
                CursorFound::Cursor(cursor.clone(), *revision)
            }
            _ => CursorFound::None,
        }
    }

    pub(crate) fn write_cursor(
        &mut self,
        partition: u16,
        cursor: &Cursor,
        over: u64,
        now: Timestamp,
    ) -> Update {
        self.0.write(Key::Cursor(partition), Some(Value::Cursor(cursor.clone())), over, now)
    }

    pub(crate) fn line(&self, schedule: &Name) -> Line {
        let entry = self.0.get(&Key::Line(schedule.clone()));
        let runs = match entry {
            Some(Entry { value: Some(Value::Line(runs)), .. }) => runs.clone(),
            _ => Vec::new(),
        };
        Line { runs, revision: entry.map_or(0, |entry| entry.revision) }
    }

    /// Writes a line; an empty one is deleted.
    pub(crate) fn write_line(
        &mut self,
        schedule: &Name,
        runs: &[RunId],
        over: u64,
        now: Timestamp,
    ) -> Update {
        let value = (!runs.is_empty()).then(|| Value::Line(runs.to_vec()));
        self.0.write(Key::Line(schedule.clone()), value, over, now)
    }

    pub(crate) fn seat(&self, number: u16) -> Option<(Option<Seat>, u64, Timestamp)> {
        let entry = self.0.get(&Key::Seat(number))?;
        let seat = match &entry.value {
            Some(Value::Seat(seat)) => Some(seat.clone()),
            _ => None,
        };
        Some((seat, entry.revision, entry.stored_at))
    }

    pub(crate) fn write_seat(&mut self, number: u16, seat: &Seat, over: u64, now: Timestamp) -> Update {
        self.0.write(Key::Seat(number), Some(Value::Seat(seat.clone())), over, now)
    }

    pub(crate) fn lease(&self, partition: u16) -> Option<(Option<Lease>, u64)> {
        let entry = self.0.get(&Key::Lease(partition))?;
        let lease = match &entry.value {
            Some(Value::Lease(lease)) => Some(lease.clone()),
            _ => None,
        };
        Some((lease, entry.revision))
    }

    pub(crate) fn write_lease(&mut self, partition: u16, lease: &Lease, over: u64, now: Timestamp) -> Update {
        self.0.write(Key::Lease(partition), Some(Value::Lease(lease.clone())), over, now)
    }
}
