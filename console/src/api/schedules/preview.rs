//! What a definition means, before it is written: in words, with its next slots, and how it differs from what is in force.

use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    Timestamp, calendar::Calendar, closed_day::Coming, names::Name, schedule::Schedule, text_diff::unified,
    words::Language,
};
use streams::operate::fleet::Outcome;

use crate::api::{problem::Problem, state::Api};

/// Slots that are shown ahead.
const SLOTS: usize = 10;

/// A slot that comes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ComingSlot {
    /// The instant, in UTC.
    pub at: Timestamp,
    /// The same in the schedule's zone, RFC 3339 with its offset.
    pub local: String,
    /// `runs`, `moved` (from a closed day), or `closed`: it gets a record that says so, and does not run.
    pub what: &'static str,
}

/// What a definition means.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Preview {
    /// The schedule.
    pub name: Name,
    /// What writing it would do.
    pub change: Outcome,
    /// When it is due, in words.
    pub words: String,
    /// The zone its cron lines are read in.
    pub timezone: String,
    /// Its next slots.
    pub next: Vec<ComingSlot>,
    /// The lines that differ from what is in force, as `diff -u` shows them; empty if none do.
    pub diff: String,
    /// What is worth a second look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What writing this definition would do.
pub async fn preview(
    api: &Api,
    name: &Name,
    schedule: &Schedule,
    language: Language,
) -> Result<Preview, Problem> {
    let (change, before) = match api.streams.schedules().get(name).await {
        Ok(None) => (Outcome::Created, String::new()),
        Ok(Some(stored)) if stored.value == *schedule => (Outcome::Unchanged, as_yaml(schedule)),
        Ok(Some(stored)) => (Outcome::Changed, as_yaml(&stored.value)),
        Err(streams::ReadError::Corrupt { detail, .. }) => {
            (Outcome::Changed, format!("# cannot be understood: {detail}\n"))
        }
        Err(error) => return Err(error.into()),
    };
    let now = api.clock().now();
    let next = slots(api, schedule, now, None, SLOTS).await?;
    Ok(Preview {
        name: name.clone(),
        change,
        words: schedule.in_words(language),
        timezone: schedule.timezone.name().to_owned(),
        diff: unified(&before, &as_yaml(schedule)),
        warnings: warnings(name, schedule, next.is_empty()),
        next,
    })
}

/// What is worth a second look.
pub fn warnings(name: &Name, schedule: &Schedule, has_no_slot: bool) -> Vec<String> {
    let is_over = schedule.after().is_none() && has_no_slot;
    is_over.then(|| format!("schedule {name} has no slot left: it never runs again")).into_iter().collect()
}

/// The slots after an instant, up to another if there is one, at most so many.
pub async fn slots(
    api: &Api,
    schedule: &Schedule,
    from: Timestamp,
    until: Option<Timestamp>,
    count: usize,
) -> Result<Vec<ComingSlot>, Problem> {
    let calendar = match &schedule.calendar {
        Some(calendar) => api.streams.catalog().calendar(calendar).await?,
        None => None,
    };
    Ok(coming(schedule, calendar.as_ref(), from, until, count))
}

fn coming(
    schedule: &Schedule,
    calendar: Option<&Calendar>,
    from: Timestamp,
    until: Option<Timestamp>,
    count: usize,
) -> Vec<ComingSlot> {
    let zone = schedule.timezone;
    let slots = schedule.slots_on(calendar, from).map(|(slot, coming)| (slot.instant(), coming));
    let slots = slots.take_while(|(at, _)| until.is_none_or(|until| *at <= until)).take(count);
    let shown = slots.map(|(at, coming)| ComingSlot {
        at,
        local: at.with_timezone(&zone).to_rfc3339_opts(chrono::SecondsFormat::Secs, false),
        what: match coming {
            Coming::Closed | Coming::Nothing => "closed",
            Coming::MovedFrom(_) => "moved",
            Coming::Here => "runs",
        },
    });
    shown.collect()
}

/// A definition as it stands in a file.
pub fn as_yaml(schedule: &Schedule) -> String {
    serde_saphyr::to_string(schedule).unwrap_or_default()
}
