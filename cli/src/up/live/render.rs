//! The picture, drawn: a pure function of the model and the size of the terminal.

use chrono::{Datelike as _, TimeDelta, Timelike as _};
use chrono_tz::Tz;
use shared::{Timestamp, run_state::RunState};

use super::{
    model::{Model, NextSlot, SeenRun},
    table::{Cell, Column, Style, lines},
    text::{clip, coarse, flow},
    words,
};
use crate::{output::printable, table::Colour};

/// Below so many lines the headings' blank lines are left out.
const ROOMY: usize = 16;
/// Notices shown, and for how long.
const NOTICES_SHOWN_MAX: usize = 3;
const NOTICE_SHOWN_FOR: TimeDelta = TimeDelta::minutes(5);

const NEXT: [Column; 5] = [
    Column { title: "NEXT SLOTS", narrowest: 20, goes: 0, right: false },
    Column { title: "IN", narrowest: 7, goes: 1, right: true },
    Column { title: "AT", narrowest: 24, goes: 2, right: false },
    Column { title: "UTC", narrowest: 11, goes: 4, right: false },
    Column { title: "DOES", narrowest: 14, goes: 3, right: false },
];
const RUNS: [Column; 6] = [
    Column { title: "UTC", narrowest: 8, goes: 3, right: false },
    Column { title: "STATE", narrowest: 11, goes: 0, right: false },
    Column { title: "LATEST RUNS", narrowest: 20, goes: 0, right: false },
    Column { title: "TRY", narrowest: 3, goes: 4, right: true },
    Column { title: "TOOK", narrowest: 5, goes: 2, right: true },
    Column { title: "RESULT", narrowest: 16, goes: 1, right: false },
];

/// The picture: at most `height` lines of at most `width` columns, separated by line feeds.
pub(super) fn render(model: &Model, width: usize, height: usize, colour: bool) -> String {
    let header = header(model, width, height, colour);
    let footer = footer(model, width, height, colour);
    let blank = usize::from(height >= ROOMY);
    let body = height.saturating_sub(header.len() + footer.len() + 2 * blank);
    let mut picture = header;
    picture.extend(std::iter::repeat_n(String::new(), blank));
    picture.extend(tables(model, width, body, blank, colour));
    // The footer keeps its place at the bottom, so that the eye finds it.
    let filled = height.saturating_sub(footer.len());
    picture.truncate(filled);
    picture.resize(filled, String::new());
    picture.extend(footer);
    picture.truncate(height);
    picture.join("\n")
}

fn header(model: &Model, width: usize, height: usize, colour: bool) -> Vec<String> {
    let trouble = if model.is_connected { "" } else { " (not answering, trying again)" };
    let address = format!("{}{trouble}", model.fixed.address);
    let many = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let counts = &model.counts;
    let items = [
        "cronfleet up".to_owned(),
        address,
        format!("data {}", model.fixed.data_dir),
        utc(model.now),
        many(counts.planners, "planner"),
        many(counts.workers, "worker"),
        many(counts.queues, "queue"),
        many(model.schedules_total(), "schedule"),
    ];
    let services: Vec<String> =
        model.fixed.services.iter().map(|(name, address)| format!("{name} {address}")).collect();
    let mut lines: Vec<String> = flow(&items, width);
    if let Some(line) = lines.first_mut() {
        *line = Style::Strong.paint(line, colour);
    }
    if height >= ROOMY {
        lines.extend(flow(&services, width));
    }
    // A small terminal is for the tables.
    let room = height.div_ceil(5);
    let is_cut = lines.len() > room;
    lines.truncate(room);
    // The first line is painted, and never the last of several.
    if let [_, .., last] = lines.as_mut_slice()
        && is_cut
    {
        *last = clip(&format!("{last} · …"), width);
    }
    lines
}

fn footer(model: &Model, width: usize, height: usize, colour: bool) -> Vec<String> {
    let program = &model.fixed.program;
    let mut hints = Vec::new();
    if let Some(schedule) = model.example_schedule() {
        hints.push(format!("{program} trigger {schedule} --wait"));
    } else {
        hints.push(format!("{program} apply -f FILE"));
    }
    hints.push(format!("{program} get runs"));
    hints.push("ctrl-C stops".to_owned());
    let since = model.now - NOTICE_SHOWN_FOR;
    let recent: Vec<_> = model.notices.iter().filter(|notice| notice.at > since).collect();
    let shown = if height >= ROOMY { NOTICES_SHOWN_MAX } else { 1 };
    let notices = recent.iter().skip(recent.len().saturating_sub(shown)).map(|notice| {
        let text = format!("{} {}", notice.at.format("%H:%M:%S"), printable(&notice.text));
        Style::Coloured(Colour::Yellow).paint(&clip(&text, width), colour)
    });
    let hints = flow(&hints, width).into_iter().map(|line| Style::FAINT.paint(&line, colour));
    let mut lines: Vec<String> = notices.chain(hints).collect();
    // What stops it is the last line, and the last to go.
    lines.drain(..lines.len().saturating_sub(height.div_ceil(8)));
    lines
}

/// Both tables in so many lines: each gets what it needs, or its half and what the other leaves.
fn tables(model: &Model, width: usize, height: usize, blank: usize, colour: bool) -> Vec<String> {
    let rows = height.saturating_sub(2 + blank);
    let next = model.next_slots(rows + 1);
    let runs = model.latest_runs(rows);
    let half = rows / 2;
    let next_rows = next.len().max(1).min(rows.saturating_sub(runs.len().max(1)).max(half));
    let run_rows = rows - next_rows.min(rows);

    let mut all = next_table(model, &next, next_rows, width, colour);
    all.extend(std::iter::repeat_n(String::new(), blank));
    all.extend(run_table(model, &runs[..runs.len().min(run_rows)], width, colour));
    all
}

fn next_table(model: &Model, next: &[NextSlot], rows_max: usize, width: usize, colour: bool) -> Vec<String> {
    if next.is_empty() {
        let hint = format!("no schedules yet: {} apply -f FILE", model.fixed.program);
        return empty(&NEXT, &hint, width, colour);
    }
    let left_out = model.schedules_total().saturating_sub(rows_max);
    // Where there is hardly room, a row is worth more than the word that there are others.
    let is_told = left_out > 0 && rows_max > 2;
    let shown = if is_told { rows_max - 1 } else { rows_max };
    let rows: Vec<Vec<Cell>> = next.iter().take(shown).map(|slot| next_row(slot, model.now)).collect();
    let mut all = lines(&NEXT, &rows, width, colour);
    if is_told {
        all.push(Style::FAINT.paint(&clip(&format!("… and {} more", left_out + 1), width), colour));
    }
    all
}

fn next_row(next: &NextSlot, now: Timestamp) -> Vec<Cell> {
    let name = Cell::plain(next.schedule.as_str());
    let does = Cell::plain(next.does.clone());
    let none = || Cell::plain("");
    match &next.slot {
        Ok(Some(slot)) => vec![
            name,
            Cell::new(coarse((*slot - now).to_std().unwrap_or_default()), Style::Strong),
            Cell::plain(local(*slot, next.zone, Some(now))),
            Cell::new(
                slot.format(if slot.year() == now.year() { "%m-%d %H:%M" } else { "%Y-%m-%d %H:%M" })
                    .to_string(),
                Style::FAINT,
            ),
            does,
        ],
        Ok(None) => vec![name, Cell::new(next.otherwise.clone(), Style::FAINT), none(), none(), does],
        Err(detail) => vec![
            name,
            Cell::new("invalid", Style::BAD),
            none(),
            none(),
            Cell::new(detail.clone(), Style::BAD),
        ],
    }
}

fn run_table(model: &Model, runs: &[&SeenRun], width: usize, colour: bool) -> Vec<String> {
    if runs.is_empty() {
        return empty(&RUNS[2..], "none yet", width, colour);
    }
    let rows: Vec<Vec<Cell>> = runs.iter().map(|run| run_row(run, model.now)).collect();
    lines(&RUNS, &rows, width, colour)
}

fn run_row(run: &SeenRun, now: Timestamp) -> Vec<Cell> {
    let record = &run.record;
    let (symbol, style) = words::look(record.status);
    let result_style = if record.status == RunState::Failed { Style::BAD } else { Style::Plain };
    vec![
        Cell::new(moment(run.changed_at, now), Style::FAINT),
        Cell::new(format!("{symbol} {}", record.status), style),
        Cell::plain(record.id.to_string()),
        Cell::plain(if record.attempt == 0 { String::new() } else { record.attempt.to_string() }),
        Cell::plain(words::duration(record, now)),
        Cell::new(words::result(record, now), result_style),
    ]
}

fn empty(columns: &[Column], text: &str, width: usize, colour: bool) -> Vec<String> {
    let mut all = lines(&columns[..1], &[], width, colour);
    all.push(Style::FAINT.paint(&clip(text, width), colour));
    all
}

/// The time of day, or the day if it was not today.
fn moment(at: Timestamp, now: Timestamp) -> String {
    let format = if at.date_naive() == now.date_naive() { "%H:%M:%S" } else { "%m-%d %H:%M" };
    at.format(format).to_string()
}

fn utc(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A slot as its schedule's people write it; without the year if that is this one.
pub(super) fn local(slot: Timestamp, zone: Tz, now: Option<Timestamp>) -> String {
    let local = slot.with_timezone(&zone);
    let year =
        if now.is_some_and(|now| now.with_timezone(&zone).year() == local.year()) { "" } else { "%Y-" };
    let seconds = if local.second() == 0 { "" } else { ":%S" };
    format!("{} {}", local.format(&format!("%a {year}%m-%d %H:%M{seconds}")), zone.name())
}
