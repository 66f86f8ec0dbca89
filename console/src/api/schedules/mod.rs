//! Schedules.
//!
//! | file | what |
//! |---|---|
//! | `reading.rs` | lists, one, its next slots |
//! | `writing.rs` | creating, replacing, deleting, and what that would do |
//! | `steering.rs` | trigger, pause, resume, backfill |
//! | `history.rs` | earlier versions, and going back to one |
//! | `preview.rs` | what a definition means, before it is written |

pub mod history;
pub mod preview;
pub mod reading;
pub mod steering;
pub mod writing;

use shared::{
    definitions::{Definitions, DefinitionsError},
    names::Name,
    schedule::Schedule,
};
use streams::operate::{fleet::Fleet, unknown};

use super::{
    call::Call,
    kinds,
    parameter::{Kind, Parameter, path},
    problem::Problem,
    state::Api,
};

/// The schedule that is meant.
pub const NAME: Parameter = path("name", Kind::Name, "The schedule.");

/// What to say of a schedule that is not there.
pub fn no_schedule(api: &Api, name: &Name) -> Problem {
    let names = api.book.names();
    Problem::new(&kinds::UNKNOWN, unknown("schedule", name.as_str(), names.iter().map(Name::as_str)))
        .at("name")
}

/// Refuses a schedule that is not there.
pub async fn check_known(api: &Api, name: &Name) -> Result<(), Problem> {
    // One that cannot be understood is there.
    match api.streams.schedules().get(name).await {
        Ok(Some(_)) | Err(streams::ReadError::Corrupt { .. }) => Ok(()),
        Ok(None) => Err(no_schedule(api, name)),
        Err(error) => Err(error.into()),
    }
}

/// The definition in a call's body, checked against the fleet.
pub async fn definition_of(api: &Api, call: &Call, name: &Name) -> Result<Schedule, Problem> {
    let text = call.body_text()?;
    let schedule = Schedule::parse(name, text).map_err(|error| not_followed(&error, text))?;
    check_references(api, name, &schedule).await?;
    Ok(schedule)
}

/// Refuses a definition that refers to what is not in the fleet.
pub async fn check_references(api: &Api, name: &Name, schedule: &Schedule) -> Result<(), Problem> {
    // Only a schedule that follows another can be on a cycle, so only for those all others are read.
    let fleet = if schedule.after().is_some() {
        Fleet::read(&api.streams).await?.definitions
    } else {
        api.streams.catalog().all().await?
    };
    let one = Definitions { schedules: [(name.clone(), schedule.clone())].into(), ..Definitions::default() };
    one.check_references(&fleet).map_err(|error| not_followed(&error, ""))
}

/// A definition that cannot be followed: where and why.
pub fn not_followed(error: &DefinitionsError, text: &str) -> Problem {
    let kind = if matches!(error, DefinitionsError::TooLarge(_)) {
        &kinds::TOO_LARGE
    } else {
        &kinds::BAD_DEFINITION
    };
    let words = error.explain(text).replace("<input>", "body");
    let problem = Problem::new(kind, words);
    match field_of(error) {
        Some(field) => problem.at(field),
        None => problem,
    }
}

fn field_of(error: &DefinitionsError) -> Option<String> {
    match error {
        DefinitionsError::Unknown { kind: "target", .. } => Some("task.target_service".to_owned()),
        DefinitionsError::Unknown { kind: "schedule", .. } | DefinitionsError::Cycle { .. } => {
            Some("after.schedule".to_owned())
        }
        DefinitionsError::Unknown { kind, .. } => Some((*kind).to_owned()),
        DefinitionsError::Task { .. } => Some("task".to_owned()),
        // The path of fields comes first, as `path: what is wrong`.
        DefinitionsError::Shape(words) => {
            let path = words.lines().next()?.split_once(": ")?.0.rsplit(' ').next()?;
            let is_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-[]".contains(c);
            (!path.is_empty() && path.chars().all(is_path)).then(|| path.to_owned())
        }
        _ => None,
    }
}
