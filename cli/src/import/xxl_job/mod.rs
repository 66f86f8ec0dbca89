//! XXL-JOB: the rows of its table `xxl_job_info`, as its API or a database gives them.
//!
//! A handler of an executor becomes an action of a target that is called like the executor's app. Scripts that XXL-JOB keeps
//! itself become names on the worker's allow-list. A row that others name as their child follows them by `after`; if it is
//! due by itself, too, it is two schedules.

mod rows;

use std::collections::{BTreeMap, BTreeSet};

use chrono_tz::Tz;
use serde_json::{Map, Value};
use shared::{
    after::{After, End},
    human_duration::HumanDuration,
    names::{ActionName, Name, TargetName},
    schedule::{CronLines, Missed, Overlap, ScheduleFields},
    task::TaskFields,
};

use self::rows::Row;
use super::{
    Allowed, Entry, Item, Names, attempts_of, blank, checked, command_task, names::legal, quartz, shown,
    timeout_of,
};

/// Reads rows; or says why there are none.
pub fn read(text: &str, zone: Option<Tz>, names: &mut Names) -> Result<Vec<Item>, String> {
    let rows = rows::read(text)?;
    let mut items: Vec<Item> = rows.iter().map(|row| Item { line: row.line, ..Item::default() }).collect();
    let follows = upstreams(&rows, &mut items);
    // By the id of the row: what follows it follows the first schedule that was made of it.
    let mut made: BTreeMap<usize, (Name, bool)> = BTreeMap::new();
    let mut followers = Vec::new();
    for index in in_order(rows.len(), &follows) {
        let (row, notes) = (&rows[index], &mut items[index].notes);
        let ups: Vec<usize> = follows.get(&index).into_iter().flatten().copied().collect();
        let mut origins: Vec<Origin> = Vec::new();
        match own_timing(row) {
            Ok(Some(timing)) => origins.push(Origin::Own(timing)),
            Ok(None) if ups.is_empty() => {
                notes.push(format!(
                    "{} is due by hand only, so it is no schedule; run it with `cronfleet submit`",
                    title(row)
                ));
            }
            Ok(None) => {}
            Err(reason) => notes.push(format!("not carried over: {}: {reason}", title(row))),
        }
        for up in ups {
            match made.get(&up) {
                Some((name, is_active)) => origins.push(Origin::After(name.clone(), *is_active)),
                None => notes.push(format!(
                    "{} follows {}, which is no schedule here: run it by hand, or give it a `cron`",
                    title(row),
                    title(&rows[up])
                )),
            }
        }
        let mut command = None;
        for (number, origin) in origins.into_iter().enumerate() {
            let mut of_entry = Vec::new();
            let result = entry(row, &origin, zone, names, &mut command, &mut of_entry);
            if number > 0 {
                let copy = Item::of(row.line, Vec::new(), result);
                followers.push((index, copy));
                continue;
            }
            let item = Item::of(row.line, of_entry, result);
            if let Some(entry) = &item.entry {
                made.insert(index, (entry.name.clone(), entry.is_active));
            }
            items[index].notes.extend(item.notes);
            items[index].entry = item.entry;
        }
    }
    // Behind the row they are of; from the last, so that the places of the others stay.
    followers.sort_by_key(|(index, _)| *index);
    for (index, item) in followers.into_iter().rev() {
        items.insert(index + 1, item);
    }
    Ok(items)
}

/// What makes a schedule due.
enum Origin {
    Own(Timing),
    /// The end of another one's run; and whether that one runs.
    After(Name, bool),
}

enum Timing {
    Cron(String),
    Every(HumanDuration),
}

/// What a row is called.
fn title(row: &Row) -> String {
    let id = row.get("id").map_or_else(String::new, |id| format!("row {id} "));
    let called = row.get("jobdesc").or_else(|| row.get("executorhandler")).unwrap_or("without a name");
    format!("{id}{:?}", shown(called))
}

/// Which rows each row follows, by their places; a link that would lead back to its own row is left out, with a note.
fn upstreams(rows: &[Row], items: &mut [Item]) -> BTreeMap<usize, Vec<usize>> {
    let places: BTreeMap<&str, usize> =
        rows.iter().enumerate().filter_map(|(index, row)| Some((row.get("id")?, index))).collect();
    let mut follows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (up, row) in rows.iter().enumerate() {
        for id in row.get("childjobid").unwrap_or_default().split([',', ';', ' ']).filter(|id| !id.is_empty())
        {
            let Some(down) = places.get(id).copied() else {
                items[up].notes.push(format!("its child {} is not among the rows", shown(id)));
                continue;
            };
            if leads_to(&follows, up, down) {
                items[up].notes.push(format!(
                    "its child {} leads back to it: a chain has a beginning, so this link is left out",
                    shown(id)
                ));
                continue;
            }
            let ups = follows.entry(down).or_default();
            if !ups.contains(&up) {
                ups.push(up);
            }
        }
    }
    follows
}

/// Whether a row follows, in the end, another one, or is that one.
fn leads_to(follows: &BTreeMap<usize, Vec<usize>>, from: usize, to: usize) -> bool {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
    while let Some(at) = waiting.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            waiting.extend(follows.get(&at).into_iter().flatten());
        }
    }
    false
}

/// The rows, each behind those it follows. There are no cycles: see [`upstreams`].
fn in_order(count: usize, follows: &BTreeMap<usize, Vec<usize>>) -> Vec<usize> {
    let (mut order, mut done) = (Vec::with_capacity(count), BTreeSet::new());
    for start in 0..count {
        let mut waiting = vec![start];
        while let Some(at) = waiting.last().copied() {
            let missing: Vec<usize> =
                follows.get(&at).into_iter().flatten().filter(|up| !done.contains(*up)).copied().collect();
            if missing.is_empty() {
                waiting.pop();
                if done.insert(at) {
                    order.push(at);
                }
            } else {
                waiting.extend(missing);
            }
        }
    }
    order
}

/// When a row is due by itself; none if it is not.
fn own_timing(row: &Row) -> Result<Option<Timing>, String> {
    // Before version 2.3 there were cron lines only.
    let (kind, line) = match row.get("scheduletype") {
        Some(kind) => (kind.to_ascii_uppercase(), row.get("scheduleconf")),
        None => ("CRON".to_owned(), row.get("jobcron").or_else(|| row.get("scheduleconf"))),
    };
    match (kind.as_str(), line) {
        ("NONE", _) => Ok(None),
        ("CRON", Some(line)) => quartz::to_unix(line).map(|line| Some(Timing::Cron(line))),
        ("FIX_RATE", Some(seconds)) => {
            let seconds =
                seconds.parse().map_err(|_| format!("scheduleConf {seconds:?} is no number of seconds"))?;
            Ok(Some(Timing::Every(std::time::Duration::from_secs(seconds).into())))
        }
        ("CRON" | "FIX_RATE", None) => Err("it has no scheduleConf".to_owned()),
        (other, _) => {
            Err(format!("scheduleType {:?} is not known; CRON, FIX_RATE and NONE are", shown(other)))
        }
    }
}

fn entry(
    row: &Row,
    origin: &Origin,
    zone: Option<Tz>,
    names: &mut Names,
    script: &mut Option<ActionName>,
    notes: &mut Vec<String>,
) -> Result<Entry, String> {
    let handler = row.get("executorhandler");
    // A description in Chinese leaves nothing for a name; the handler's is readable then.
    let called = row
        .get("jobdesc")
        .filter(|called| called.is_ascii())
        .or(handler)
        .or(row.get("jobdesc"))
        .unwrap_or("row");
    let called = match origin {
        Origin::After(up, _) if own_timing(row).is_ok_and(|own| own.is_some()) => {
            format!("{called}-after-{up}")
        }
        _ => called.to_owned(),
    };
    let name = names.take(&called).map_err(|error| error.to_string())?;
    let (task, command) = task(row, script.as_ref().map_or(name.as_str(), ActionName::as_str), notes)?;
    // A row that is two schedules is one script.
    *script = command.as_ref().map(|allowed| allowed.name.clone());
    let mut fields: ScheduleFields = blank(task)?;
    fields.description = row.get("jobdesc").map(shown);
    fields.overlap = overlap(row, notes);
    let mut is_active = true;
    match origin {
        Origin::After(up, up_is_active) => {
            fields.after = Some(After { schedule: up.clone(), on: End::Success });
            is_active = *up_is_active;
            if !is_active {
                notes.push(format!("commented out, as {up} is, which it follows"));
            }
        }
        Origin::Own(timing) => {
            match timing {
                Timing::Cron(line) => {
                    fields.cron = Some(CronLines::One(line.clone()));
                    fields.timezone = zone.filter(|zone| *zone != Tz::UTC).map(|zone| zone.name().to_owned());
                }
                Timing::Every(interval) => {
                    fields.every = Some(*interval);
                    notes.push("FIX_RATE counts from its last start there; here from midnight UTC, the same for everybody".to_owned());
                }
            }
            fields.missed = match row.get("misfirestrategy") {
                Some("FIRE_ONCE_NOW") => Missed::Latest,
                _ => Missed::Skip,
            };
            if row.get("triggerstatus") == Some("0") {
                is_active = false;
                notes.push(
                    "triggerStatus is 0 (stopped), so it is commented out here; to have it without its running, apply it and `cronfleet pause` it"
                        .to_owned(),
                );
            }
        }
    }
    note_the_rest(row, notes);
    let fields = checked(fields).map_err(|error| format!("{}: {error}", title(row)))?;
    Ok(Entry { name, fields, is_active, command })
}

fn overlap(row: &Row, notes: &mut Vec<String>) -> Overlap {
    match row.get("executorblockstrategy") {
        Some("DISCARD_LATER") => Overlap::Skip,
        Some("COVER_EARLY") => Overlap::Replace,
        None | Some("SERIAL_EXECUTION") => Overlap::BufferAll,
        Some(other) => {
            notes.push(format!(
                "executorBlockStrategy {:?} is not known; taken for SERIAL_EXECUTION",
                shown(other)
            ));
            Overlap::BufferAll
        }
    }
}

fn task(row: &Row, script: &str, notes: &mut Vec<String>) -> Result<(TaskFields, Option<Allowed>), String> {
    let seconds = row.get("executortimeout").and_then(|text| text.parse().ok());
    let timeout = timeout_of(seconds, "executorTimeout", notes);
    let retries = row.get("executorfailretrycount").and_then(|text| text.parse().ok()).unwrap_or(0);
    let attempts = attempts_of(retries, "executorFailRetryCount", notes);
    let glue = row.get("gluetype").unwrap_or("BEAN");
    let command_name: ActionName =
        script.parse().map_err(|error: shared::names::NameError| error.to_string())?;
    let mut task = command_task(&command_name, timeout, attempts);
    task.parameters = parameters(row);
    if glue != "BEAN" {
        let words = format!(
            "{} is a script that XXL-JOB keeps: put it in a file on the worker's machine, and name that on the allow-list; executorParam is in the parameters, which a command reads from its input",
            shown(glue)
        );
        notes.push(words.clone());
        return Ok((task, Some(Allowed { name: command_name, settings: Err(words) })));
    }
    let handler =
        row.get("executorhandler").ok_or_else(|| format!("{} has no executorHandler", title(row)))?;
    let action: ActionName = legal(handler)
        .ok_or_else(|| format!("executorHandler {:?} makes no name of an action", shown(handler)))?;
    if action.as_str() != handler {
        notes.push(format!("the handler is called {:?} there", shown(handler)));
    }
    let target: TargetName = if let Some(target) = row.get("appname").and_then(legal) {
        target
    } else {
        let target = format!("executor-group-{}", row.get("jobgroup").unwrap_or("0"));
        legal(&target).ok_or_else(|| format!("jobGroup {target:?} makes no name of a target"))?
    };
    let task = TaskFields { command: Vec::new(), target_service: Some(target), action: Some(action), ..task };
    Ok((task, None))
}

/// What the handler is handed: the fields, if it is an object of JSON; else the text, as `executorParam`.
fn parameters(row: &Row) -> Map<String, Value> {
    let Some(text) = row.get("executorparam") else { return Map::new() };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::from_iter([("executorParam".to_owned(), Value::String(text.to_owned()))]),
    }
}

fn note_the_rest(row: &Row, notes: &mut Vec<String>) {
    match row.get("executorroutestrategy") {
        Some("SHARDING_BROADCAST") => notes.push(
            "SHARDING_BROADCAST runs once on each executor; write `shards: N`, with overlap skip or allow: each run is told its index and N".to_owned(),
        ),
        None | Some("FIRST") => {}
        Some(other) => notes.push(format!(
            "executorRouteStrategy {}: which instance answers is for whatever stands behind the target's address",
            shown(other)
        )),
    }
    if row.get("alarmemail").is_some() {
        notes.push("alarmEmail is not carried over: follow `cronfleet tail --state FAILED`".to_owned());
    }
}
