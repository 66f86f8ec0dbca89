//! Crontabs: of a user, or with a user in each line as `/etc/crontab` and `/etc/cron.d` have it.
//!
//! The fields mean the same here, the rule for the two days included: our dialect is Vixie's. A command line is read by a shell
//! there; here no worker runs a shell for a schedule, so the line goes, as it is, on the worker's allow-list.

use std::{collections::BTreeSet, path::PathBuf};

use chrono_tz::Tz;
use shared::{
    cron::parse_zone,
    names::{ActionName, NameError},
    schedule::{Missed, Overlap},
};
use worker::executors::local::allow_list::CommandSettings;

use super::{Allowed, Entry, Item, Names, blank, checked, command_task, set_when, shown};

/// Where a crontab's line ends and its command begins.
const FIELDS: usize = 5;
/// Variables that cron sets for every command; a worker passes its own on, if it has them.
const USUAL: [&str; 3] = ["HOME", "LOGNAME", "PATH"];
/// Programs that run another: the name of the line is that of the other.
const WRAPPERS: [&str; 24] = [
    "sudo",
    "nice",
    "ionice",
    "nohup",
    "time",
    "env",
    "exec",
    "timeout",
    "flock",
    "chronic",
    "run-parts",
    "sh",
    "bash",
    "zsh",
    "dash",
    "python",
    "python3",
    "php",
    "perl",
    "ruby",
    "node",
    "java",
    "root",
    "command",
];
/// Programs that only prepare: the line is about what comes after them.
const PREPARING: [&str; 10] = ["cd", "test", "[", "[[", "export", "set", ".", "source", "sleep", "umask"];

/// How a crontab is to be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether each line names a user before its command.
    pub has_users: bool,
    /// The zone of lines that name none; UTC if nobody says.
    pub zone: Option<Tz>,
}

/// What the lines above say of those below.
#[derive(Debug, Clone, Default)]
struct Environment {
    /// The zone, or why it is none.
    zone: Option<Result<Tz, String>>,
    /// Whether it was said by `CRON_TZ`, which counts more than `TZ`.
    is_cron_zone: bool,
    shell: Option<PathBuf>,
    home: Option<PathBuf>,
    variables: BTreeSet<String>,
}

/// Reads a crontab.
pub fn read(text: &str, options: Options, names: &mut Names) -> Vec<Item> {
    let mut environment = Environment::default();
    let mut commands: Vec<(CommandSettings, ActionName)> = Vec::new();
    let mut items = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = assignment(line) {
            items.extend(environment.set(name, value).map(|note| Item::note(number, note)));
            continue;
        }
        let mut notes = Vec::new();
        let entry = entry(line, options, &environment, names, &mut commands, &mut notes);
        items.push(Item::of(number, notes, entry));
    }
    items
}

/// `NAME = value`, with or without quotes; a line of fields begins with no letter.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = unquoted(name.trim());
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| (name, unquoted(value.trim())))
}

fn unquoted(text: &str) -> &str {
    let inside = |quote| text.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

impl Environment {
    /// Notes what a line sets; what there is to say about it. Values are not repeated: they may be secrets.
    fn set(&mut self, name: &str, value: &str) -> Option<String> {
        match name {
            "CRON_TZ" | "TZ" => {
                let is_cron_zone = name == "CRON_TZ";
                if is_cron_zone || !self.is_cron_zone {
                    self.is_cron_zone = is_cron_zone;
                    let named = value.strip_prefix(':').unwrap_or(value);
                    self.zone = Some(parse_zone(named).map_err(|error| error.to_string()));
                }
                (!is_cron_zone).then(|| {
                    "TZ is taken for the zone of the lines below; some crons set it for the commands only, and read the fields \
                     in the machine's zone: then change `timezone`"
                        .to_owned()
                })
            }
            "SHELL" if value.starts_with('/') => {
                self.shell = Some(value.into());
                None
            }
            "HOME" if value.starts_with('/') => {
                self.home = Some(value.into());
                Some("HOME is where the commands below begin (`cwd`); set the variable in the worker's environment, too".to_owned())
            }
            "MAILTO" | "MAILFROM" => Some(format!(
                "{name}: nobody is sent mail; what a run said is in its record, and in `cronfleet logs RUN`"
            )),
            "RANDOM_DELAY" => {
                Some("RANDOM_DELAY is not carried over; write `jitter: 5m` where it is wanted".to_owned())
            }
            _ => {
                self.variables.insert(name.to_owned());
                Some(format!(
                    "{name}: set it in the worker's environment; the allow-list passes it on to the commands below"
                ))
            }
        }
    }

    fn settings(&self, script: String) -> CommandSettings {
        let usual = USUAL.into_iter().map(str::to_owned);
        CommandSettings {
            program: self.shell.clone().unwrap_or_else(|| "/bin/sh".into()),
            args: vec!["-c".to_owned(), script],
            cwd: self.home.clone(),
            env: usual.chain(self.variables.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
            ..CommandSettings::default()
        }
    }
}

fn entry(
    line: &str,
    options: Options,
    environment: &Environment,
    names: &mut Names,
    commands: &mut Vec<(CommandSettings, ActionName)>,
    notes: &mut Vec<String>,
) -> Result<Entry, String> {
    let (when, rest) = when(line, notes)?;
    let (user, command) = if options.has_users { split_words(rest, 1) } else { ("", rest) };
    let command = command.trim();
    if command.is_empty() {
        return Err(format!(
            "{:?} has no command{}",
            shown(line),
            if options.has_users { " after its user" } else { "" }
        ));
    }
    let zone = match &environment.zone {
        Some(Ok(zone)) => Some(*zone),
        Some(Err(error)) => return Err(format!("the zone of {:?}: {error}", shown(line))),
        None => options.zone,
    };
    let settings = environment.settings(script(command, notes));
    let name = names.take(&name_in(command)).map_err(|error| error.to_string())?;
    let known = commands.iter().find(|(known, _)| *known == settings).map(|(_, name)| name.clone());
    let command_name = match known {
        Some(name) => name,
        None => name.as_str().parse().map_err(|error: NameError| error.to_string())?,
    };
    let mut fields = blank(command_task(&command_name, None, 1))?;
    set_when(&mut fields, &when, zone)?;
    // Cron starts a line at its minute, whatever else is running, and what it slept through is gone.
    (fields.overlap, fields.missed) = (Overlap::Allow, Missed::Skip);
    let fields = checked(fields).map_err(|error| format!("{:?}: {error}", shown(line)))?;
    commands.push((settings.clone(), command_name.clone()));
    if options.has_users {
        notes.push(format!(
            "it runs as {user:?} there; here it runs as the user of the worker: start a worker as {user:?} with this allow-list"
        ));
    }
    Ok(Entry {
        name,
        fields,
        is_active: true,
        command: Some(Allowed { name: command_name, settings: Ok(settings) }),
    })
}

/// The fields, or the word, at the beginning of a line; and the rest.
fn when<'a>(line: &'a str, notes: &mut Vec<String>) -> Result<(String, &'a str), String> {
    let Some(word) = line.starts_with('@').then(|| split_words(line, 1)) else {
        let (fields, rest) = split_words(line, FIELDS);
        let fields = match fields.strip_prefix('-') {
            Some(quiet) => {
                notes.push(
                    "the - in front, which keeps it out of the log there, has no meaning here".to_owned(),
                );
                quiet
            }
            None => fields,
        };
        return Ok((fields.split_whitespace().collect::<Vec<_>>().join(" "), rest));
    };
    let (word, rest) = word;
    match word.to_ascii_lowercase().as_str() {
        "@reboot" => Err(format!(
            "@reboot runs {:?} when a machine starts, and a fleet has no such moment; let the machine's init system do it",
            shown(rest)
        )),
        "@every_minute" => Ok(("* * * * *".to_owned(), rest)),
        _ => Ok((word.to_owned(), rest)),
    }
}

/// So many words with the blanks between them, and what follows.
fn split_words(text: &str, count: usize) -> (&str, &str) {
    let text = text.trim_start();
    let (mut end, mut rest) = (0, text);
    for _ in 0..count {
        let blanks = rest.len() - rest.trim_start().len();
        let word = rest.trim_start();
        let length = word.find(char::is_whitespace).unwrap_or(word.len());
        end += blanks + length;
        rest = &text[end..];
    }
    (&text[..end], rest)
}

/// A command as the shell gets it: behind the first `%` stands its input, and each further one ends a line of that.
fn script(command: &str, notes: &mut Vec<String>) -> String {
    let mut parts = vec![String::new()];
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('%')) => {
                chars.next();
                push(&mut parts, '%');
            }
            ('%', _) => parts.push(String::new()),
            _ => push(&mut parts, c),
        }
    }
    let mut parts = parts.into_iter();
    let command = parts.next().unwrap_or_default();
    let mut input: Vec<String> = parts.collect();
    if input.is_empty() {
        return command;
    }
    notes.push(
        "what stands behind the first % is the command's input there, a line for each %; on the allow-list it is a here-document"
            .to_owned(),
    );
    if input.last().is_some_and(String::is_empty) {
        // The last % ended the last line.
        input.pop();
    }
    let mut end = "INPUT".to_owned();
    while input.contains(&end) {
        end.push('_');
    }
    let lines: String = input.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    format!("{{ {command}\n}} <<'{end}'\n{lines}{end}\n")
}

fn push(parts: &mut [String], c: char) {
    if let Some(part) = parts.last_mut() {
        part.push(c);
    }
}

/// What to call a command line: the program it is about, without folders, ending and interpreters.
fn name_in(command: &str) -> String {
    let segments = command
        .split(['&', '|', ';', '(', ')', '{', '}', '%'])
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let is_about = |segment: &&str| {
        let first = segment.split_whitespace().next().unwrap_or_default();
        !PREPARING.contains(&first)
    };
    let all: Vec<&str> = segments.collect();
    let segment = all.iter().find(|segment| is_about(segment)).or(all.first()).copied().unwrap_or_default();
    let base = |word: &str| {
        word.trim_matches(['"', '\'']).trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
    };
    let counts = |word: &&str| {
        let is_assignment = assignment(word).is_some();
        let has_letter = word.chars().any(|c| c.is_ascii_alphabetic());
        let is_lock = word.rsplit('.').next() == Some("lock");
        !word.starts_with(['-', '>', '<', '$', '`'])
            && !is_lock
            && !is_assignment
            && has_letter
            && !WRAPPERS.contains(&base(word).as_str())
    };
    let found = segment.split_whitespace().find(counts).or_else(|| segment.split_whitespace().next());
    let base = base(found.unwrap_or("command"));
    let stem = [".sh", ".py", ".php", ".pl", ".rb", ".js", ".jar"]
        .iter()
        .find_map(|ending| base.strip_suffix(ending));
    stem.unwrap_or(&base).to_owned()
}
