//! What `SQLite` does to answer: every list is read from an index, in its order, and none reads the whole table.

use rusqlite::{Connection, params_from_iter, types::Value};
use shared::{run_record::Reason, run_state::RunState};

use super::{Table, at};
use crate::read_model::{
    RunFilter, TimeRange, aggregates, file, list,
    select::{self, Places, Statement},
};

fn plan(conn: &Connection, sql: &str, values: Vec<Value>) -> String {
    let mut prepared = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
    let rows = prepared.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).expect("a plan");
    rows.map(|row| row.expect("a line")).collect::<Vec<_>>().join("; ")
}

fn plans(conn: &Connection, filter: &RunFilter) -> Vec<String> {
    let lanes = select::lanes(conn, filter, &filter.statuses, Places::created(filter.created));
    let lanes = lanes.expect("readable").expect("known words");
    let statements = [lanes.in_order(true, 50), lanes.in_order(false, 50), lanes.unordered()].concat();
    statements.into_iter().map(|Statement { sql, values }| plan(conn, &sql, values)).collect()
}

#[test]
fn no_list_reads_the_whole_table_and_none_is_sorted() {
    let mut table = Table::new();
    table.fill(3_000, 20);
    let conn = file::reader(&table.path()).expect("a connection");
    let with = |set: fn(&mut RunFilter)| {
        let mut filter = RunFilter::default();
        set(&mut filter);
        filter
    };
    for (filter, leads) in [
        (RunFilter::default(), "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (with(|filter| filter.schedule = "schedule_000001".parse().ok()), "INDEX runs_name (name=?"),
        (with(|filter| filter.name = "schedule_000001".parse().ok()), "INDEX runs_name (name=?"),
        (
            with(|filter| filter.queue = "reports".parse().ok()),
            "INDEX runs_queue (queue=? AND rowid>? AND rowid<?)",
        ),
        (with(|filter| filter.target = "service-3".parse().ok()), "INDEX runs_target (target=?"),
        (with(|filter| filter.action = "action_3".parse().ok()), "INDEX runs_action (action=?"),
        (with(|filter| filter.worker = "worker-host3-1a2b3c4d".parse().ok()), "INDEX runs_worker (worker=?"),
        (
            with(|filter| filter.statuses = vec![RunState::Failed, RunState::Retry]),
            "INDEX runs_status (status=?",
        ),
        (
            with(|filter| filter.reasons = vec![Reason::SkippedOverlap, Reason::Paused]),
            "INDEX runs_reason (reason=?",
        ),
        (with(|filter| filter.late = Some(true)), "INDEX runs_late (late=?"),
        (with(|filter| filter.attempts_min = Some(2)), "INDEX runs_repeated (place>? AND place<?)"),
        (with(|filter| filter.error_text = "refused".parse().ok()), "SEARCH e USING INTEGER PRIMARY KEY"),
        (with(|filter| filter.id_prefix = "schedule_000001.2026".parse().ok()), "INDEX runs_name (name=?"),
        (
            with(|filter| filter.created = TimeRange::since(at(0))),
            "INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        ),
        // The one that fewest runs meet leads.
        (
            with(|filter| {
                filter.queue = "default".parse().ok();
                filter.statuses = vec![RunState::Failed];
            }),
            "INDEX runs_status",
        ),
        (
            with(|filter| {
                filter.queue = "reports".parse().ok();
                filter.statuses = vec![RunState::Success, RunState::Failed];
            }),
            "INDEX runs_queue",
        ),
    ] {
        for plan in plans(&conn, &filter) {
            assert!(plan.contains(leads), "{filter:?}: {plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
        }
    }
    // Few ids begin so: they are found by their index, and sorted. Many: they are looked for in the list's order.
    let few = with(|filter| filter.id_prefix = "schedule_000019".parse().ok());
    assert!(plans(&conn, &few)[0].contains("INDEX runs_id (id>? AND id<?)"), "{:?}", plans(&conn, &few));
    let few = with(|filter| filter.slot.to = Some(at(0) - chrono::Duration::days(85)));
    assert!(
        plans(&conn, &few)[0].contains("INDEX runs_slot (slot>? AND slot<?)"),
        "{:?}",
        plans(&conn, &few)
    );
    let many = with(|filter| filter.id_prefix = "schedule".parse().ok());
    assert!(!plans(&conn, &many)[0].contains("TEMP B-TREE"), "{:?}", plans(&conn, &many));
}

#[test]
fn no_sum_reads_the_whole_table() {
    let mut table = Table::new();
    table.fill(500, 20);
    let conn = file::reader(&table.path()).expect("a connection");
    for sql in [
        aggregates::STRIP,
        aggregates::STATUS,
        aggregates::STATUSES_OF,
        aggregates::FINISHED,
        aggregates::DURATIONS,
        aggregates::DAYS,
        list::CHANGED_SINCE,
        list::DOWNSTREAM,
        list::SHARDS,
    ] {
        let values = vec![Value::Integer(1); sql.matches('?').count()];
        let plan = plan(&conn, sql, values);
        let is_grouped = sql.contains("GROUP BY");
        assert!(!plan.contains("SCAN") && (is_grouped || !plan.contains("TEMP B-TREE")), "{sql}: {plan}");
    }
    for covered in [
        aggregates::STATUS,
        aggregates::STATUSES_OF,
        aggregates::FINISHED,
        aggregates::DURATIONS,
        aggregates::DAYS,
    ] {
        let values = vec![Value::Integer(1); covered.matches('?').count()];
        let plan = plan(&conn, covered, values);
        assert!(plan.contains("COVERING INDEX"), "{covered}: {plan}");
    }
}
