//! What `up` says where nobody watches a picture: the next slots once, then a line per change of a run's state.

use shared::{Timestamp, run_record::RunRecord};

use super::{
    model::Model,
    render::local,
    table::{Cell, Column, lines},
    text::coarse,
    words,
};

/// Schedules in the table at the start; `get schedules` has them all.
const SCHEDULES_MAX: usize = 50;

const COLUMNS: [Column; 5] = [
    Column { title: "SCHEDULE", narrowest: 12, goes: 0, right: false },
    Column { title: "IN", narrowest: 7, goes: 0, right: true },
    Column { title: "NEXT SLOT", narrowest: 19, goes: 0, right: false },
    Column { title: "UTC", narrowest: 19, goes: 0, right: false },
    Column { title: "DOES", narrowest: 12, goes: 0, right: false },
];

/// The addresses and the next slots, as lines.
pub(super) fn opening(model: &Model) -> String {
    let mut all = vec![model.fixed.address.clone()];
    all.extend(model.fixed.services.iter().map(|(name, address)| format!("{name} {address}")));
    let next = model.next_slots(SCHEDULES_MAX);
    let rows: Vec<Vec<Cell>> = next
        .iter()
        .map(|next| {
            let cells = match &next.slot {
                Ok(Some(slot)) => {
                    let wait = coarse((*slot - model.now).to_std().unwrap_or_default());
                    [wait, local(*slot, next.zone, None), rfc3339(*slot), next.does.clone()]
                }
                Ok(None) => [next.otherwise.clone(), String::new(), String::new(), next.does.clone()],
                Err(detail) => ["invalid".to_owned(), String::new(), String::new(), detail.clone()],
            };
            std::iter::once(next.schedule.to_string()).chain(cells).map(Cell::plain).collect()
        })
        .collect();
    if !rows.is_empty() {
        all.extend(lines(&COLUMNS, &rows, usize::MAX, false));
    }
    let left_out = model.schedules_total().saturating_sub(SCHEDULES_MAX);
    if left_out > 0 {
        all.push(format!("… and {left_out} more: {} get schedules", model.fixed.program));
    }
    all.join("\n")
}

/// A change of a run's state: when, which state, which run, which attempt, how long it took, what came of it.
pub(super) fn line(run: &RunRecord, at: Timestamp) -> String {
    let parts = [
        rfc3339(at),
        format!("{:<9}", run.status),
        run.id.to_string(),
        format!("attempt {}", run.attempt),
        words::duration(run, at),
        words::result(run, at),
    ];
    let said: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    said.join("  ")
}

fn rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use shared::{names::QueueName, run_state::RunEvent};

    use super::*;

    #[test]
    fn a_change_is_one_line_without_escape_codes() {
        let at = |text: &str| text.parse::<Timestamp>().expect("instant");
        let due = at("2026-11-24T02:00:00Z");
        let pending =
            RunRecord::pending("reindex.4711".parse().expect("id"), QueueName::default_queue(), due);
        assert_eq!(
            line(&pending, due),
            "2026-11-24T02:00:00Z  PENDING    reindex.4711  attempt 0  waits for a worker"
        );
        let done = pending
            .apply(RunEvent::Started, due)
            .and_then(|run| run.apply(RunEvent::Succeeded, at("2026-11-24T02:00:01.250Z")))
            .expect("done");
        let done = RunRecord { output: Some(serde_json::json!({"rows": "4\u{1b}[0m"})), ..done };
        let line = line(&done, at("2026-11-24T02:00:01.250Z"));
        assert_eq!(line, "2026-11-24T02:00:01Z  SUCCESS    reindex.4711  attempt 1  1.3s  rows=4␛[0m");
    }
}
