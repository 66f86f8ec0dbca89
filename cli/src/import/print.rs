//! The file: definitions in YAML with the notes at their places, and the allow-list that its commands need.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value, json};
use shared::{
    names::{ActionName, TargetName},
    retry::RetryPolicy,
    schedule::ScheduleFields,
};

use super::{Allowed, Entry, Item, target_of};
use crate::output::printable;

/// What was read of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// How people call the file.
    pub shown: String,
    /// What stands in it.
    pub items: Vec<Item>,
}

/// The notes with their places, as they are said on stderr.
pub fn notes(sources: &[Source]) -> Vec<String> {
    let of = |source: &Source, item: &Item| -> Vec<String> {
        item.notes.iter().map(|note| one_line(&format!("{}:{}: {note}", source.shown, item.line))).collect()
    };
    sources.iter().flat_map(|source| source.items.iter().flat_map(move |item| of(source, item))).collect()
}

/// The definitions file. `remarks` stand at its head.
pub fn definitions(sources: &[Source], remarks: &[String]) -> anyhow::Result<String> {
    let mut text = String::new();
    for remark in remarks {
        let _ = writeln!(text, "# {}", one_line(remark));
    }
    let targets = targets(sources);
    if !targets.is_empty() {
        text.push_str("targets:\n");
        for (name, url) in targets {
            let _ = writeln!(
                text,
                "  # Where is it? Requests go to <http>/actions/<action>.\n  {name}: {{http: '{url}'}}"
            );
        }
    }
    let is_empty = !entries(sources).any(|entry| entry.is_active);
    text.push_str(if is_empty {
        "schedules: {}    # for what is commented out below, take the {} away\n"
    } else {
        "schedules:\n"
    });
    for source in sources {
        for item in &source.items {
            for note in &item.notes {
                let _ =
                    writeln!(text, "  # {}", one_line(&format!("{}:{}: {note}", source.shown, item.line)));
            }
            let Some(entry) = &item.entry else { continue };
            let yaml = serde_saphyr::to_string(&json!({ entry.name.as_str(): concise(&entry.fields)? }))?;
            for line in yaml.lines() {
                let sign = if entry.is_active { "  " } else { "  # " };
                push_line(&mut text, sign, line);
            }
        }
    }
    Ok(text)
}

/// What is not commented out, as one value: for programs.
pub fn value(sources: &[Source]) -> anyhow::Result<Value> {
    let active = entries(sources).filter(|entry| entry.is_active);
    let schedules: Map<String, Value> = active
        .map(|entry| Ok((entry.name.to_string(), concise(&entry.fields)?)))
        .collect::<anyhow::Result<_>>()?;
    let targets: Map<String, Value> =
        targets(sources).into_iter().map(|(name, url)| (name.to_string(), json!({ "http": url }))).collect();
    Ok(json!({ "targets": targets, "schedules": schedules }))
}

/// The allow-list: each command once; those of which the source does not say how they are run as comments.
pub fn allow_list(sources: &[Source]) -> anyhow::Result<String> {
    let mut commands: BTreeMap<&ActionName, &Allowed> = BTreeMap::new();
    commands.extend(
        entries(sources).filter_map(|entry| entry.command.as_ref()).map(|allowed| (&allowed.name, allowed)),
    );
    let mut text = String::from(
        "# The allow-list of the workers: cronfleet worker --commands THIS\n\
         # Who may change this file says what runs on the worker's machine. Schedules only name its entries.\n",
    );
    let is_empty = !commands.values().any(|allowed| allowed.settings.is_ok());
    text.push_str(if is_empty {
        "commands: {}    # for what is commented out below, take the {} away\n"
    } else {
        "commands:\n"
    });
    for (name, allowed) in commands {
        let settings = match &allowed.settings {
            Ok(settings) => serde_json::to_value(settings)?,
            Err(reason) => {
                let _ = writeln!(text, "  # {name}: {{program: /where/is/it}}    {}", one_line(reason));
                continue;
            }
        };
        let mut settings = settings;
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|_, value| {
                value.as_object().is_none_or(|map| !map.is_empty() && !map.values().all(Value::is_null))
            });
            settings.remove("exit_codes");
        }
        for line in serde_saphyr::to_string(&json!({ name.as_str(): settings }))?.lines() {
            push_line(&mut text, "  ", line);
        }
    }
    Ok(text)
}

/// A text as comments, for who wants one file.
pub fn commented(text: &str) -> String {
    text.lines().flat_map(|line| ["# ", line, "\n"]).collect()
}

fn entries(sources: &[Source]) -> impl Iterator<Item = &Entry> {
    sources.iter().flat_map(|source| &source.items).filter_map(|item| item.entry.as_ref())
}

/// The targets with an address that nobody has, so that a run before it is filled in fails instead of going astray.
fn targets(sources: &[Source]) -> BTreeMap<&TargetName, String> {
    let host = |name: &TargetName| name.as_str().to_ascii_lowercase().replace('_', "-");
    let of = |name| (name, format!("http://{}.invalid", host(name)));
    entries(sources).filter_map(target_of).map(of).collect()
}

/// A schedule as one would write it: without what goes without saying. Its policies are said: they are what was meant there.
fn concise(fields: &ScheduleFields) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(fields)?;
    let Some(map) = value.as_object_mut() else { return Ok(value) };
    map.retain(|name, value| name != "queue" || value != "default");
    if fields.after.is_some() {
        // It has no slots that could be missed.
        map.retain(|name, _| name != "missed");
    }
    if let Some(task) = map.get_mut("task").and_then(Value::as_object_mut) {
        let default = serde_json::to_value(RetryPolicy::default())?;
        if let Some(retry) = task.get_mut("retry").and_then(Value::as_object_mut) {
            retry.retain(|name, value| name == "attempts" || default.get(name) != Some(value));
        }
        task.retain(|name, _| name != "execution");
    }
    Ok(value)
}

/// A line that is moved to the right. Blanks at its end stay: in a block they are part of a text.
fn push_line(text: &mut String, before: &str, line: &str) {
    let before = if line.is_empty() { before.trim_end() } else { before };
    let _ = writeln!(text, "{before}{line}");
}

/// A text that stays within its comment, whatever a stranger wrote.
fn one_line(text: &str) -> String {
    let is_break = |c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    printable(&text.replace(is_break, " "))
}
