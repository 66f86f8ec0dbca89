//! What is said of a mistake in a file: where it is, what stands there, the rule and the repair.
//!
//! The readers know where they stopped, which is not always where the mistake is: a value that a whole schedule was
//! refused for is looked for in the schedule's lines, and a line that is indented otherwise than its neighbours is
//! pointed at itself.

mod indent;
mod place;
mod words;

use self::{indent::misfit_near, place::block_of};
pub use self::{
    place::Place,
    words::{json_words, plain_words},
};
use crate::{definitions::DefinitionsError, suggest::explain_unknown};

/// Lines below the place of a structural mistake in which its cause is looked for.
const CAUSE_LINES_MAX: usize = 20;

/// What to say of a YAML text that could not be read; the file is called `<input>`.
pub(crate) fn of_yaml(text: &str, path: Option<&str>, error: &serde_saphyr::Error) -> String {
    let location = error.location().filter(|location| location.line() > 0);
    let Some(location) = location else { return with_path(path, &error.to_string()) };
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let reported = Place { line: number(location.line()), column: number(location.column()).max(1) };
    let shown = error.without_snippet().to_string();
    let suffix = format!(" at line {}, column {}", location.line(), location.column());
    let message = shown.strip_suffix(&suffix).unwrap_or(&shown);

    let said = words::of_yaml(message, path_of(path), &reported.value_in(text));
    let said = explain_unknown(&said).replace("unknown variant", "unknown value");
    let is_structural = STRUCTURAL.iter().any(|part| message.contains(part));
    let lines_below = if is_structural { CAUSE_LINES_MAX } else { 1 };
    if let Some(misfit) = misfit_near(text, reported.line, lines_below)
        .filter(|misfit| is_structural || misfit.continues_a_value())
    {
        let said = format!("{misfit} (as it stands: {said})");
        return misfit.place().show(text, path_of(path), &said);
    }
    let said = with_quotes_hint(said);
    refine(text, reported, &said).show(text, path_of(path), &said)
}

/// What to say of a JSON text that could not be read: the reader's own words end with the place.
pub(crate) fn of_json(path: &str, message: &str) -> String {
    with_path(Some(path), &explain_unknown(&json_words(message)))
}

/// What a reader says where the structure of a text is not as it should be.
const STRUCTURAL: [&str; 7] = [
    "missing field",
    "unknown field",
    "did not find expected",
    "not allowed in this context",
    "this one has",
    "block mapping",
    "duplicate mapping key",
];

fn with_path(path: Option<&str>, message: &str) -> String {
    match path_of(path) {
        Some(path) => format!("{path}: {message}"),
        None => message.to_owned(),
    }
}

/// The path of the fields that were entered; `?` is one that was not known yet.
fn path_of(path: Option<&str>) -> Option<&str> {
    path.map(|path| path.trim_end_matches(['?', '.'])).filter(|path| !path.is_empty())
}

/// The YAML reader says what a `*` means to it; an author wants to know what to write.
fn with_quotes_hint(message: String) -> String {
    if message.contains("anchor or alias") {
        return format!("{message}; if this is a cron line, put it in quotes");
    }
    message
}

/// Where the field or the value stands that a message names, in the lines of the mapping that was refused.
fn refine(text: &str, reported: Place, message: &str) -> Place {
    let Some(from) = reported.offset_in(text) else { return reported };
    let block = from..block_of(text, from);
    let word = message.split(' ').next().unwrap_or_default();
    let rest = &message[word.len()..];
    let field = word.rsplit('.').next().unwrap_or_default();
    let names_field = [" is ", " has ", " does not go with"].iter().any(|verb| rest.starts_with(verb))
        && !field.is_empty()
        && field.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let found = if names_field {
        place::find_key(text, block, field).map(|at| place::value_after(text, at + field.len()))
    } else {
        words::first_quoted(message).and_then(|value| place::find_value(text, block, &value))
    };
    found.map_or(reported, |at| Place::at(text, at))
}

impl DefinitionsError {
    /// The error with its place in the text of its file, which is called `<input>`.
    pub fn explain(&self, text: &str) -> String {
        let message = self.to_string();
        match self.place_in(text) {
            Some(place) => place.show(text, None, &message),
            None => message,
        }
    }

    /// Where the mistake is; none if the message says it already, or nothing of it stands in the text.
    pub fn place_in(&self, text: &str) -> Option<Place> {
        let (section, name, fields) = match self {
            DefinitionsError::Unknown { schedule, kind: "target", name, .. } => {
                ("schedules", schedule, vec![("target_service", Some(name))])
            }
            DefinitionsError::Unknown { schedule, kind, name, .. } => {
                ("schedules", schedule, vec![(*kind, Some(name))])
            }
            DefinitionsError::Cycle { schedule, .. } => ("schedules", schedule, vec![("after", None)]),
            DefinitionsError::Task { schedule, .. } => {
                ("schedules", schedule, vec![("execution", None), ("target_service", None)])
            }
            DefinitionsError::Queue { name, .. } => ("queues", name, vec![]),
            DefinitionsError::Calendar { name, .. } => ("calendars", name, vec![("ical", None)]),
            DefinitionsError::TooLarge(_) | DefinitionsError::Shape(_) | DefinitionsError::Queues(_) => {
                return None;
            }
        };
        let section = place::find_key(text, 0..text.len(), section)?;
        let named = place::find_key(text, section..text.len(), name)?;
        let block = named..block_of(text, named);
        let found = fields.iter().find_map(|(field, value)| match value {
            Some(value) => place::find_pair(text, block.clone(), field, value),
            None => place::find_key(text, block.clone(), field),
        });
        Some(Place::at(text, found.unwrap_or(named)))
    }
}

#[cfg(test)]
mod tests;
