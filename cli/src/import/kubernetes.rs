//! What Kubernetes runs by the clock: documents of YAML or JSON, and lists of them as `kubectl get cronjobs -o yaml` writes.
//!
//! What the container runs becomes an entry of the worker's allow-list, with all its arguments: the image, and whatever else makes
//! a pod, has no counterpart here, and is noted.

use std::time::Duration;

use chrono_tz::Tz;
use serde_json::Value;
use shared::{
    cron::parse_zone,
    human_duration::HumanDuration,
    limits::CATCH_UP_MAX,
    schedule::{CronLines, Overlap},
};
use worker::executors::local::allow_list::CommandSettings;

use super::{
    Allowed, Entry, Item, Names, attempts_of, blank, checked, command_task, number, set_when, shown,
    timeout_of,
};

/// Retries of a Job that says nothing.
const BACKOFF_LIMIT: u64 = 6;
/// The first wait of a Job's retries, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(6));

/// Reads documents.
pub fn read(text: &str, zone: Option<Tz>, names: &mut Names) -> Vec<Item> {
    let mut items = Vec::new();
    for (line, document) in documents(text) {
        match serde_saphyr::from_str::<Value>(&document) {
            Ok(Value::Null) => {}
            Ok(value) => read_document(&value, line, &document, zone, names, &mut items),
            Err(error) => {
                let reason = error.to_string();
                let first = reason.lines().next().unwrap_or_default().to_owned();
                items.push(Item::note(
                    line,
                    format!("not carried over: it is no YAML: {first} (lines are counted from this one)"),
                ));
            }
        }
    }
    items
}

/// The documents with their first lines. `---` at the beginning of a line ends a document, wherever it stands.
fn documents(text: &str) -> Vec<(usize, String)> {
    let is_mark = |line: &str| {
        line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
    };
    let mut documents = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        if is_mark(line) {
            documents.push((index + 1, String::new()));
        }
        let Some((_, document)) = documents.last_mut() else { continue };
        document.push_str(line);
        document.push('\n');
    }
    let has_text = |document: &str| {
        document.lines().any(|line| !is_mark(line) && !line.trim().is_empty() && !line.starts_with('#'))
    };
    documents.retain(|(_, document)| has_text(document));
    documents
}

fn read_document(
    value: &Value,
    line: usize,
    document: &str,
    zone: Option<Tz>,
    names: &mut Names,
    items: &mut Vec<Item>,
) {
    let kind = value["kind"].as_str().unwrap_or_default();
    match (kind, value["items"].as_array()) {
        ("List" | "CronJobList", Some(all)) => {
            for one in all {
                let name = one["metadata"]["name"].as_str().unwrap_or_default();
                let at = line_of_name(document, name).map_or(line, |index| line + index);
                // A list's own items need not repeat their kind.
                if kind == "CronJobList" && one["kind"].is_null() {
                    items.push(cron_job(one, at, zone, names));
                } else {
                    read_document(one, at, "", zone, names, items);
                }
            }
        }
        ("CronJob", _) => {
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            let line = line_of_name(document, name).map_or(line, |index| line + index);
            items.push(cron_job(value, line, zone, names));
        }
        ("", _) => items.push(Item::note(line, "not carried over: it has no `kind`, so it is no CronJob")),
        (other, _) => {
            let name = value["metadata"]["name"].as_str().unwrap_or("without a name");
            items.push(Item::note(
                line,
                format!("not carried over: {} {} is no CronJob", shown(other), shown(name)),
            ));
        }
    }
}

/// The first line, from 0, that says this name.
fn line_of_name(document: &str, name: &str) -> Option<usize> {
    let says = |line: &str| {
        let line = line.trim().trim_start_matches("- ").trim_end_matches(',').replace('"', "");
        line.strip_prefix("name:").is_some_and(|found| found.trim() == name)
    };
    document.lines().position(says).filter(|_| !name.is_empty())
}

fn cron_job(value: &Value, line: usize, zone: Option<Tz>, names: &mut Names) -> Item {
    let mut notes = Vec::new();
    let entry = entry(value, zone, names, &mut notes);
    Item::of(line, notes, entry)
}

fn entry(
    value: &Value,
    zone: Option<Tz>,
    names: &mut Names,
    notes: &mut Vec<String>,
) -> Result<Entry, String> {
    let (spec, job) = (&value["spec"], &value["spec"]["jobTemplate"]["spec"]);
    let given = value["metadata"]["name"].as_str().unwrap_or_default();
    let when = spec["schedule"].as_str().ok_or_else(|| format!("CronJob {given:?} has no spec.schedule"))?;
    let zone = match spec["timeZone"].as_str() {
        Some(zone) => Some(parse_zone(zone).map_err(|error| format!("CronJob {given:?}: {error}"))?),
        None => zone,
    };
    let name = names.take(given).map_err(|error| error.to_string())?;
    if name.as_str() != given {
        notes.push(format!("it is called {:?} there", shown(given)));
    }
    let timeout = timeout_of(number(Some(&job["activeDeadlineSeconds"])), "activeDeadlineSeconds", notes);
    let attempts =
        attempts_of(number(Some(&job["backoffLimit"])).unwrap_or(BACKOFF_LIMIT), "backoffLimit", notes);
    let command = allowed(&job["template"]["spec"], name.as_str(), notes)?;
    let mut task = command_task(&command.name, timeout, attempts);
    if attempts > 1 {
        (task.retry.backoff, task.retry.max_backoff) = (HumanDuration(BACKOFF.0), HumanDuration(BACKOFF.1));
    }
    let mut fields = blank(task)?;
    set_when(&mut fields, when, zone).map_err(|error| format!("CronJob {given:?}: {error}"))?;
    if let Some(CronLines::One(line)) = &mut fields.cron {
        *line = with_steps_restricted(line);
    }
    fields.overlap = match spec["concurrencyPolicy"].as_str() {
        Some("Forbid") => Overlap::Skip,
        Some("Replace") => Overlap::Replace,
        _ => Overlap::Allow,
    };
    fields.catch_up = catch_up(number(Some(&spec["startingDeadlineSeconds"])), notes);
    let is_active = spec["suspend"].as_bool() != Some(true);
    if !is_active {
        notes.push(
            "suspend is true, so it is commented out here; to have it without its running, apply it and `cronfleet pause` it".to_owned(),
        );
    }
    note_the_rest(job, notes);
    let fields = checked(fields).map_err(|error| format!("CronJob {given:?}: {error}"))?;
    Ok(Entry { name, fields, is_active, command: Some(command) })
}

/// How late a missed slot may still run.
fn catch_up(seconds: Option<u64>, notes: &mut Vec<String>) -> Option<HumanDuration> {
    let Some(seconds) = seconds else {
        notes.push(
            "no startingDeadlineSeconds: there the newest missed slot runs however late it is; here within `catch_up`, 1h if it is not said"
                .to_owned(),
        );
        return None;
    };
    Some(HumanDuration(Duration::from_secs(seconds).min(CATCH_UP_MAX)))
}

/// The day fields as they are read there: only a bare `*` leaves a day field unrestricted, whereas here one that begins with `*`
/// does, as in Vixie's cron.
fn with_steps_restricted(line: &str) -> String {
    let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let [_, _, day_of_month, _, day_of_week] = fields.as_mut_slice() else { return line.to_owned() };
    let is_free = |field: &String| field == "*" || field == "?";
    if is_free(day_of_month) || is_free(day_of_week) {
        return line.to_owned();
    }
    for (field, whole) in [(day_of_month, "1-31"), (day_of_week, "0-6")] {
        if let Some(step) = field.strip_prefix("*/").filter(|step| *step != "1") {
            *field = format!("{whole}/{step}");
        }
    }
    fields.join(" ")
}

/// What the first container runs.
fn allowed(pod: &Value, name: &str, notes: &mut Vec<String>) -> Result<Allowed, String> {
    let container = &pod["containers"][0];
    let words = |field: &str| -> Vec<String> {
        let all = container[field].as_array().into_iter().flatten();
        all.map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect()
    };
    let (command, arguments) = (words("command"), words("args"));
    let name = name.parse().map_err(|error: shared::names::NameError| error.to_string())?;
    let image = shown(container["image"].as_str().unwrap_or("without a name"));
    let Some((program, own)) = command.split_first() else {
        let words = format!(
            "it has no command, so the image {image} says what runs; name the program on the allow-list{}",
            if arguments.is_empty() {
                String::new()
            } else {
                format!(", with the arguments {}", shown(&format!("{arguments:?}")))
            }
        );
        notes.push(words.clone());
        return Ok(Allowed { name, settings: Err(words) });
    };
    notes.push(format!(
        "the image {image} is not carried over: its command must be there on the worker's machine"
    ));
    if [program].into_iter().chain(own).chain(&arguments).any(|word| word.contains("$(")) {
        notes.push("$(NAME) in a command is replaced by Kubernetes, and by nobody here: write it out on the allow-list".to_owned());
    }
    let (mut env, mut secrets) = (Vec::new(), Vec::new());
    for variable in container["env"].as_array().into_iter().flatten() {
        let Some(named) =
            variable["name"].as_str().filter(|named| !named.is_empty() && !named.contains(['=', '\0']))
        else {
            continue;
        };
        let is_secret = !variable["valueFrom"]["secretKeyRef"].is_null();
        if is_secret { &mut secrets } else { &mut env }.push(named.to_owned());
    }
    if !env.is_empty() || !secrets.is_empty() {
        let all: Vec<&str> = env.iter().chain(&secrets).map(String::as_str).collect();
        notes.push(format!(
            "set {} in the worker's environment; the allow-list passes them on",
            shown(&all.join(", "))
        ));
    }
    let folder = container["workingDir"].as_str().filter(|folder| folder.starts_with('/'));
    let rest = own.iter().chain(&arguments).cloned();
    // No search path decides what a worker runs, unless its operator says so.
    let (program, args) = if program.starts_with('/') {
        (program.clone(), rest.collect())
    } else {
        notes.push(format!(
            "{:?} is looked for in the worker's PATH by /usr/bin/env; better write where it is",
            shown(program)
        ));
        if !env.iter().any(|name| name == "PATH") {
            env.push("PATH".to_owned());
        }
        ("/usr/bin/env".to_owned(), std::iter::once(program.clone()).chain(rest).collect())
    };
    let settings = CommandSettings {
        program: program.into(),
        args,
        cwd: folder.map(Into::into),
        env,
        secrets,
        ..CommandSettings::default()
    };
    Ok(Allowed { name, settings: Ok(settings) })
}

/// What makes a pod, and nothing here.
fn note_the_rest(job: &Value, notes: &mut Vec<String>) {
    let pod = &job["template"]["spec"];
    let containers = pod["containers"].as_array().map_or(0, Vec::len);
    if containers > 1 {
        notes.push(format!("only the first of its {containers} containers is carried over"));
    }
    for field in ["parallelism", "completions"] {
        if let Some(count) = number(Some(&job[field])).filter(|count| *count > 1) {
            notes.push(format!(
                "{field} is {count}; `shards: {count}` runs a slot in parts, with overlap skip or allow"
            ));
        }
    }
    let of_pod = [
        "initContainers",
        "volumes",
        "serviceAccountName",
        "nodeSelector",
        "affinity",
        "tolerations",
        "securityContext",
    ];
    let of_container = ["envFrom", "volumeMounts", "resources", "securityContext", "lifecycle"];
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        _ => true,
    };
    let mut rest: Vec<&str> = of_pod.into_iter().filter(|field| is_said(&pod[*field])).collect();
    rest.extend(
        of_container
            .into_iter()
            .filter(|field| is_said(&pod["containers"][0][*field]) && !pod[*field].is_object()),
    );
    rest.extend(["podFailurePolicy"].into_iter().filter(|field| is_said(&job[*field])));
    if !rest.is_empty() {
        notes.push(format!("not carried over: {}", rest.join(", ")));
    }
}
