//! Names as numbers: a table that holds each once, and what the writer remembers of it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

/// What a word is. The same text may be of several kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name = 0,
    Queue = 1,
    Worker = 2,
    Target = 3,
    Action = 4,
}

/// How many kinds there are.
const KINDS: usize = Kind::Action as usize + 1;
/// Words of a kind that are remembered, of about 100 bytes each: all names of 100,000 schedules.
const REMEMBERED_MAX: usize = 150_000;

/// The numbers of words, as far as they are remembered. Of one session: what was rolled back must not be remembered.
#[derive(Debug, Default)]
pub(super) struct Words {
    known: [HashMap<Box<str>, i64>; KINDS],
    /// Whether words are forgotten: only where an index says whether a run has them.
    pub(super) are_forgotten: bool,
}

impl Words {
    /// The number of a word, which gets one if it has none.
    pub(super) fn number(&mut self, conn: &Connection, kind: Kind, text: &str) -> rusqlite::Result<i64> {
        let known = &mut self.known[kind as usize];
        if let Some(number) = known.get(text) {
            return Ok(*number);
        }
        let number = if let Some(number) = find(conn, kind, text)? {
            number
        } else {
            let mut insert = conn.prepare_cached("INSERT INTO words (kind, text) VALUES (?1, ?2)")?;
            insert.insert((kind as i64, text))?
        };
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(text.into(), number);
        Ok(number)
    }

    /// Forgets a word that no run has any more; only kinds that come and go without end.
    pub(super) fn forget(&mut self, conn: &Connection, kind: Kind, number: i64) -> rusqlite::Result<()> {
        let column = match kind {
            Kind::Name if self.are_forgotten => "name",
            Kind::Worker if self.are_forgotten => "worker",
            _ => return Ok(()),
        };
        let sql = format!(
            "DELETE FROM words WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE {column} = ?1) RETURNING text"
        );
        let text: Option<String> =
            conn.prepare_cached(&sql)?.query_row([number], |row| row.get(0)).optional()?;
        if let Some(text) = text {
            self.known[kind as usize].remove(text.as_str());
        }
        Ok(())
    }
}

/// The number of a word, if it has one.
pub(super) fn find(conn: &Connection, kind: Kind, text: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM words WHERE kind = ?1 AND text = ?2")?
        .query_row((kind as i64, text), |row| row.get(0))
        .optional()
}
