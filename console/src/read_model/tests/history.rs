//! Whatever comes in whatever pieces, and whenever the writer begins anew: the tables hold what the ledger holds.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};
use shared::{
    run::RunId,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::RunState,
};
use streams::{Bytes, ledger_changes::LedgerChange};

use super::{Table, at, change, deletion};
use crate::read_model::{Listed, Order, RunFilter, RunQuery, TimeRange};

/// A version of a record, or what else may be written under a run's key.
#[derive(Debug, Clone)]
enum Write {
    Record(Box<RunRecord>),
    Deletion(String),
    Nonsense(String),
}

fn ids() -> impl Strategy<Value = String> {
    (select(vec!["a", "b", "c"]), 0..5).prop_map(|(name, key)| format!("{name}.k{key}"))
}

fn records() -> impl Strategy<Value = RunRecord> {
    let words = (
        ids(),
        any::<bool>(),
        select(vec!["default", "reports"]),
        option::of(select(vec!["w-1", "w-2"])),
        option::of(select(vec!["store", "mail"])),
    );
    let times = (0..4_i64, option::of(0..6_i64), option::of(0..9_i64), option::of(0..50_u64));
    let rest = (
        select(RunState::ALL.to_vec()),
        option::of(select(vec![Reason::Timeout, Reason::SkippedOverlap, Reason::Paused])),
        option::of(select(vec!["Connection REFUSED", "no such table", "é"])),
        any::<bool>(),
        0..4_u32,
        any::<bool>(),
    );
    (words, times, rest).prop_map(
        |(
            (id, planned, queue, worker, target),
            (created, slot, finished, duration),
            (status, reason, error, late, attempt, has_output),
        )| {
            let id: RunId = id.parse().expect("id");
            RunRecord {
                schedule: planned.then(|| id.name.clone()),
                status,
                reason,
                late,
                attempt,
                worker: worker.map(|worker| worker.parse().expect("worker")),
                target_service: target.map(|target| target.parse().expect("target")),
                slot: slot.map(at),
                finished_at: finished.map(at),
                duration_ms: duration,
                error: error.map(|error| RunError::new(ErrorKind::Target, error)),
                output: has_output.then(|| serde_json::json!({"rows": attempt})),
                ..RunRecord::pending(id, queue.parse().expect("queue"), at(created))
            }
        },
    )
}

fn writes() -> impl Strategy<Value = Write> {
    prop_oneof![
        12 => records().prop_map(|record| Write::Record(Box::new(record))),
        1 => ids().prop_map(Write::Deletion),
        1 => ids().prop_map(Write::Nonsense),
    ]
}

fn filters() -> impl Strategy<Value = RunFilter> {
    let ranges = || {
        (option::weighted(0.2, 0..5_i64), option::weighted(0.2, 0..5_i64))
            .prop_map(|(from, to)| TimeRange { from: from.map(at), to: to.map(at) })
    };
    let words = (
        option::weighted(0.2, select(vec!["a", "b", "unheard"])),
        option::weighted(0.2, select(vec!["a", "c"])),
        option::weighted(0.2, select(vec!["default", "reports", "unheard"])),
        option::weighted(0.2, select(vec!["w-1", "w-2"])),
        option::weighted(0.2, select(vec!["store", "mail"])),
        option::weighted(0.2, select(vec!["a", "b.k", "c.k3", "zz"])),
    );
    let rest = (
        vec(select(RunState::ALL.to_vec()), 0..3),
        vec(select(vec![Reason::Timeout, Reason::SkippedOverlap]), 0..2),
        option::weighted(0.2, select(vec!["refused", "table", "É", "é"])),
        option::weighted(0.2, any::<bool>()),
        option::weighted(0.2, 0..4_u32),
    );
    (words, rest, ranges(), ranges()).prop_map(
        |(
            (schedule, name, queue, worker, target, prefix),
            (statuses, reasons, error, late, attempts),
            created,
            slot,
        )| {
            RunFilter {
                schedule: schedule.map(|word| word.parse().expect("name")),
                name: name.map(|word| word.parse().expect("name")),
                queue: queue.map(|word| word.parse().expect("queue")),
                worker: worker.map(|word| word.parse().expect("worker")),
                target: target.map(|word| word.parse().expect("target")),
                id_prefix: prefix.map(|word| word.parse().expect("prefix")),
                error_text: error.map(|word| word.parse().expect("text")),
                action: None,
                attempts_min: attempts,
                statuses,
                reasons,
                late,
                created,
                slot,
            }
        },
    )
}

/// What the ledger holds after these writes, as anybody would compute it.
fn held(writes: &[Write]) -> BTreeMap<String, Listed> {
    let mut held = BTreeMap::new();
    for (write, revision) in writes.iter().zip(1..) {
        match write {
            Write::Record(record) => {
                let record = RunRecord { output: None, ..(**record).clone() };
                held.insert(record.id.to_string(), Listed { record, revision });
            }
            Write::Deletion(id) => {
                held.remove(id);
            }
            Write::Nonsense(_) => {}
        }
    }
    held
}

fn changes(writes: &[Write]) -> Vec<LedgerChange> {
    let nonsense = Some(Bytes::from_static(b"{\"id\":7}"));
    writes
        .iter()
        .zip(1..)
        .map(|(write, revision)| match write {
            Write::Record(record) => change(record, revision),
            Write::Deletion(id) => deletion(id, revision),
            Write::Nonsense(id) => {
                LedgerChange { key: id.clone(), value: nonsense.clone(), revision, stored_at: at(0) }
            }
        })
        .collect()
}

async fn all_pages(table: &Table, query: &RunQuery) -> Vec<Listed> {
    let mut query = query.clone();
    let mut all = Vec::new();
    loop {
        let page = table.model.runs(&query).await.expect("a page");
        assert!(page.items.len() <= usize::from(query.limit));
        all.extend(page.items);
        match page.next {
            // As it comes back from whoever carried it.
            Some(next) => query.cursor = Some(next.to_string().parse().expect("a cursor")),
            None => return all,
        }
    }
}

fn rank(order: Order, listed: &Listed) -> (u8, i64) {
    let created = listed.record.created_at.timestamp_millis();
    match (order, listed.record.status) {
        (Order::OldestFirst, _) => (0, created),
        (Order::NewestFirst, _) | (_, RunState::Failed) => (0, -created),
        (Order::FailuresFirst, RunState::Retry) => (1, -created),
        (Order::FailuresFirst, _) => (2, -created),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_hold_what_the_ledger_holds_in_whatever_pieces_it_came_and_every_list_is_its_pages(
        writes in vec(writes(), 1..60),
        pieces in vec(1_usize..9, 60),
        restarts in vec(any::<bool>(), 60),
        queries in vec((filters(), select(vec![Order::NewestFirst, Order::OldestFirst, Order::FailuresFirst]), 1_u16..7), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (held, changes) = (held(&writes), changes(&writes));
        let mut in_pieces = Table::new();
        let mut rest = &changes[..];
        for (piece, restart) in pieces.into_iter().zip(restarts) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            // Whoever begins anew may hear again what was stored.
            in_pieces.store(now);
            if restart {
                in_pieces.restart();
                in_pieces.store(now);
            }
            rest = later;
        }
        in_pieces.store(rest);
        let mut at_once = Table::new();
        at_once.store(&changes);
        for table in [&in_pieces, &at_once] {
            let status = table.model.status();
            prop_assert_eq!((status.runs, status.place, status.is_rebuilding), (held.len() as u64, changes.len() as u64, false));
        }
        for (filter, order, limit) in queries {
            let query = RunQuery { filter, order, limit, cursor: None };
            let mut expected: Vec<&Listed> = held.values().filter(|listed| query.filter.matches(&listed.record)).collect();
            for table in [&in_pieces, &at_once] {
                let mut found = runtime.block_on(all_pages(table, &query));
                let ranks: Vec<_> = found.iter().map(|listed| rank(order, listed)).collect();
                prop_assert!(ranks.is_sorted(), "{:?}: {:?}", query, ranks);
                found.sort_by_key(|listed| listed.revision);
                expected.sort_by_key(|listed| listed.revision);
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected.clone(), "{:?}", query);
                let count = runtime.block_on(table.model.count(&query.filter)).expect("a count");
                prop_assert_eq!((count.number, count.is_exact), (expected.len() as u64, true));
            }
        }
    }
}
