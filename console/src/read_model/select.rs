//! From a filter to SQL: which index leads, and what is compared beside it. Values are bound, never written into the text.
//!
//! The condition that fewest runs meet *leads*: its index is read in the order of the list, and the others are compared row by
//! row. How many meet it is counted, but never far ([`PROBES`]), so the choice costs little and is right where it matters.

use std::collections::BTreeSet;

use rusqlite::{Connection, types::Value};
use shared::run_state::RunState;

use super::{
    filter::{RunFilter, TimeRange},
    schema::{first_millisecond_from, first_place_from, is_whole, reason_number, state_number},
    words::{self, Kind},
};

/// How far is counted to find the condition that fewest runs meet: first a little, then further if that does not tell.
const PROBES: [u64; 2] = [500, 20_000];

/// Places of a list: from the first on, before the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) from: i64,
    pub(super) before: i64,
}

impl Places {
    /// Of runs that were created within a time.
    pub(super) fn created(range: TimeRange) -> Self {
        Self {
            from: range.from.map_or(0, first_place_from),
            before: range.to.map_or(i64::MAX, first_place_from),
        }
    }
}

/// Where a condition can lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// By an index that ends in the place.
    Index(&'static str),
    /// By an index of ranges: what it finds must be sorted.
    Range(&'static str),
    /// By the table of errors.
    Errors,
    /// Not at all.
    No,
}

/// Something that is compared: one of several texts, each with its values.
#[derive(Debug, Clone)]
struct Condition {
    lead: Lead,
    /// How it is written; each `?` stands for a value.
    text: &'static str,
    /// It holds if it does for one of these.
    alternatives: Vec<Vec<Value>>,
}

impl Condition {
    fn one(lead: Lead, text: &'static str, values: Vec<Value>) -> Self {
        Self { lead, text, alternatives: vec![values] }
    }

    /// That something is one of several; none if it may be anything.
    fn any<T: Copy>(lead: Lead, text: &'static str, wanted: &[T], number: fn(T) -> i64) -> Option<Self> {
        let numbers: BTreeSet<i64> = wanted.iter().copied().map(number).collect();
        let alternatives: Vec<Vec<Value>> = numbers.into_iter().map(|number| vec![number.into()]).collect();
        (!alternatives.is_empty()).then_some(Self { lead, text, alternatives })
    }
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

/// The statements whose answers together are the places of a list; each is in the list's order.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    conditions: Vec<Condition>,
    /// Which of them leads; the order of places, if none does.
    leader: Option<usize>,
    places: Places,
}

/// What a filter asks for; none if no run can meet it, because there is no such word.
pub(super) fn lanes(
    conn: &Connection,
    filter: &RunFilter,
    statuses: &[RunState],
    places: Places,
) -> rusqlite::Result<Option<Lanes>> {
    let Some(conditions) = conditions(conn, filter, statuses)? else { return Ok(None) };
    // While it is being built there are no indexes but that of places.
    let leader = if is_whole(conn)? { leader(conn, &conditions, places)? } else { None };
    Ok(Some(Lanes { conditions, leader, places }))
}

/// The conditions, those first that few runs meet as a rule.
fn conditions(
    conn: &Connection,
    filter: &RunFilter,
    statuses: &[RunState],
) -> rusqlite::Result<Option<Vec<Condition>>> {
    let Some(mut all) = named(conn, filter)? else { return Ok(None) };
    if let Some(prefix) = &filter.id_prefix {
        // Ids are of ASCII: nothing that begins so comes after this.
        let values = vec![prefix.to_string().into(), format!("{prefix}\u{7f}").into()];
        all.push(Condition::one(Lead::Range("runs_id"), "r.id >= ? AND r.id < ?", values));
    }
    if let Some(text) = &filter.error_text {
        let bytes = text.as_str().as_bytes().to_vec();
        all.push(Condition::one(Lead::Errors, "", vec![Value::Blob(bytes)]));
    }
    all.extend(Condition::any(Lead::Index("runs_reason"), "r.reason = ?", &filter.reasons, reason_number));
    all.extend(Condition::any(Lead::Index("runs_status"), "r.status = ?", statuses, state_number));
    match filter.attempts_min {
        None | Some(0) => {}
        Some(1) => all.push(Condition::one(Lead::No, "r.attempt >= ?", vec![1.into()])),
        // The index is of those that were tried more than once.
        Some(attempts) => {
            let text = "r.attempt > 1 AND r.attempt >= ?";
            all.push(Condition::one(Lead::Index("runs_repeated"), text, vec![i64::from(attempts).into()]));
        }
    }
    match filter.late {
        Some(true) => all.push(Condition::one(Lead::Index("runs_late"), "r.late = 1", vec![])),
        Some(false) => all.push(Condition::one(Lead::No, "r.late = 0", vec![])),
        None => {}
    }
    if filter.schedule.is_some() {
        all.push(Condition::one(Lead::No, "r.planned = 1", vec![]));
    }
    if !filter.slot.is_open() {
        let from = filter.slot.from.map_or(i64::MIN, first_millisecond_from);
        let to = filter.slot.to.map_or(i64::MAX, first_millisecond_from);
        let text = "r.slot >= ? AND r.slot < ?";
        all.push(Condition::one(Lead::Range("runs_slot"), text, vec![from.into(), to.into()]));
    }
    Ok(Some(all))
}

/// The conditions on names; none if one of them is a name that nothing has.
fn named(conn: &Connection, filter: &RunFilter) -> rusqlite::Result<Option<Vec<Condition>>> {
    // The name is known as soon as a prefix has its dot.
    let prefix = filter.id_prefix.as_ref().and_then(|prefix| prefix.as_str().split_once('.'));
    let name = (Lead::Index("runs_name"), "r.name = ?", Kind::Name);
    let mut all = Vec::new();
    for ((lead, text, kind), word) in [
        (name, filter.schedule.as_ref().map(AsRef::as_ref)),
        (name, filter.name.as_ref().map(AsRef::as_ref)),
        (name, prefix.map(|(name, _)| name)),
        (
            (Lead::Index("runs_worker"), "r.worker = ?", Kind::Worker),
            filter.worker.as_ref().map(AsRef::as_ref),
        ),
        (
            (Lead::Index("runs_target"), "r.target = ?", Kind::Target),
            filter.target.as_ref().map(AsRef::as_ref),
        ),
        (
            (Lead::Index("runs_action"), "r.action = ?", Kind::Action),
            filter.action.as_ref().map(AsRef::as_ref),
        ),
        ((Lead::Index("runs_queue"), "r.queue = ?", Kind::Queue), filter.queue.as_ref().map(AsRef::as_ref)),
    ] {
        let Some(word) = word else { continue };
        let Some(number) = words::find(conn, kind, word)? else { return Ok(None) };
        all.push(Condition::one(lead, text, vec![number.into()]));
    }
    Ok(Some(all))
}

/// The condition that fewest runs meet.
fn leader(conn: &Connection, conditions: &[Condition], places: Places) -> rusqlite::Result<Option<usize>> {
    let can_lead = |index: &usize| conditions[*index].lead != Lead::No;
    let candidates: Vec<usize> = (0..conditions.len()).filter(can_lead).collect();
    if let [only] = candidates[..]
        && !matches!(conditions[only].lead, Lead::Range(_))
    {
        return Ok(Some(only));
    }
    for at_most in PROBES {
        let mut fewest = (probe(conn, None, places, at_most)?, None);
        for index in &candidates {
            let found = probe(conn, Some(&conditions[*index]), places, at_most)?;
            if found < fewest.0 {
                fewest = (found, Some(*index));
            }
        }
        if fewest.0 < at_most {
            return Ok(fewest.1);
        }
    }
    // All are met by many: then what is met by fewest as a rule. Sorting many would take longer than looking for them.
    Ok(candidates.into_iter().find(|index| !matches!(conditions[*index].lead, Lead::Range(_))))
}

/// How many runs meet a condition, counted up to a number; without one, how many places there are.
fn probe(
    conn: &Connection,
    condition: Option<&Condition>,
    places: Places,
    at_most: u64,
) -> rusqlite::Result<u64> {
    let alternatives = condition.map_or(1, |condition| condition.alternatives.len());
    let mut found = 0;
    for alternative in 0..alternatives {
        let leads = condition.map(|condition| (condition, alternative));
        let mut statement = from(leads, &[], places);
        statement.sql = format!("SELECT count(*) FROM (SELECT 1 {} LIMIT ?)", statement.sql);
        statement.values.push((at_most.saturating_sub(found)).cast_signed().into());
        let values = rusqlite::params_from_iter(statement.values);
        found += conn
            .prepare_cached(&statement.sql)?
            .query_row(values, |row| row.get::<_, i64>(0))?
            .cast_unsigned();
    }
    Ok(found)
}

impl Lanes {
    /// The statements that find places, in one direction, each at most so many.
    pub(super) fn in_order(&self, is_newest_first: bool, limit: usize) -> Vec<Statement> {
        let direction = if is_newest_first { "DESC" } else { "ASC" };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.statements(|statement| {
            let key = if self.is_led_by(Lead::Errors) { "e.place" } else { "r.place" };
            statement.sql = format!("SELECT r.place {} ORDER BY {key} {direction} LIMIT ?", statement.sql);
            statement.values.push(limit.into());
        })
    }

    /// The statements that find places, in no order.
    pub(super) fn unordered(&self) -> Vec<Statement> {
        self.statements(|statement| statement.sql = format!("SELECT r.place {}", statement.sql))
    }

    fn is_led_by(&self, lead: Lead) -> bool {
        self.leader.is_some_and(|leader| self.conditions[leader].lead == lead)
    }

    fn statements(&self, finish: impl Fn(&mut Statement)) -> Vec<Statement> {
        let leader = self.leader.map(|leader| &self.conditions[leader]);
        let others: Vec<&Condition> = self
            .conditions
            .iter()
            .enumerate()
            .filter(|(index, _)| Some(*index) != self.leader)
            .map(|(_, condition)| condition)
            .collect();
        let alternatives = leader.map_or(1, |leader| leader.alternatives.len());
        (0..alternatives)
            .map(|alternative| {
                let leads = leader.map(|leader| (leader, alternative));
                let mut statement = from(leads, &others, self.places);
                finish(&mut statement);
                statement
            })
            .collect()
    }
}

/// `FROM` and `WHERE`: led by one alternative of a condition, or by the order of places.
fn from(leads: Option<(&Condition, usize)>, others: &[&Condition], places: Places) -> Statement {
    let lead = leads.map(|(condition, _)| condition.lead);
    let (tables, key) = match lead {
        Some(Lead::Errors) => ("errors e CROSS JOIN runs r ON r.place = e.place".to_owned(), "e.place"),
        Some(Lead::Index(index) | Lead::Range(index)) => (format!("runs r INDEXED BY {index}"), "r.place"),
        Some(Lead::No) | None => ("runs r NOT INDEXED".to_owned(), "r.place"),
    };
    let mut all = vec![format!("{key} >= ? AND {key} < ?")];
    let mut values: Vec<Value> = vec![places.from.into(), places.before.into()];
    if let Some((condition, alternative)) = leads {
        let text = if condition.lead == Lead::Errors { "instr(e.text, ?) > 0" } else { condition.text };
        all.push(text.to_owned());
        values.extend(condition.alternatives[alternative].iter().cloned());
    }
    for condition in others {
        let text = match condition.lead {
            Lead::Errors => {
                "EXISTS (SELECT 1 FROM errors e WHERE e.place = r.place AND instr(e.text, ?) > 0)"
            }
            _ => condition.text,
        };
        all.push(format!("({})", vec![text; condition.alternatives.len()].join(" OR ")));
        values.extend(condition.alternatives.iter().flatten().cloned());
    }
    Statement { sql: format!("FROM {tables} WHERE {}", all.join(" AND ")), values }
}
