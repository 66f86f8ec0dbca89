//! Schedules as they are listed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use shared::{Timestamp, after::cycles, names::Name, pause::PauseInForce, schedule::Schedule, slot::Slot};

use crate::{ReadError, Streams, schedules::Version};

/// A schedule as it is listed: its definition, and what goes with it, in one object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ScheduleItem {
    /// Its name.
    pub name: Name,
    /// The revision of its definition.
    pub revision: u64,
    /// From when on that is in force.
    pub since: Timestamp,
    /// Its next slot; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// By whom, why and until when it is paused; absent if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseInForce>,
    /// Why its definition cannot be understood, or not be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// The fields of its definition.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
    /// The definition; none if it cannot be understood.
    #[serde(skip)]
    pub definition: Option<Schedule>,
}

impl ScheduleItem {
    /// A version of a schedule; none if it is deleted.
    pub fn of(version: Version, now: Timestamp) -> Option<Self> {
        let (definition, invalid) = match version.definition {
            Ok(Some(schedule)) => (Some(schedule), None),
            Ok(None) => return None,
            Err(reason) => (None, Some(reason)),
        };
        let fields = match definition.as_ref().map(serde_json::to_value) {
            Some(Ok(Value::Object(fields))) => fields,
            _ => Map::new(),
        };
        let next = definition.as_ref().and_then(|schedule| schedule.next_after(now)).map(Slot::instant);
        Some(Self {
            name: version.name,
            revision: version.revision,
            since: version.since,
            next,
            paused: None,
            invalid,
            fields,
            definition,
        })
    }
}

/// Marks schedules that follow, in the end, themselves: only a foreign writer can have put them there, and planners do not
/// follow them.
pub fn mark_cycles(items: &mut [ScheduleItem]) {
    let upstreams: BTreeMap<Name, Name> = items
        .iter()
        .filter_map(|item| Some((item.name.clone(), item.definition.as_ref()?.after()?.schedule.clone())))
        .collect();
    let found = cycles(upstreams.keys(), |at| upstreams.get(at));
    for item in items {
        if let Some(way) = found.get(&item.name) {
            item.invalid = Some(format!("its `after` leads back to itself: {way}"));
        }
    }
}

/// The schedules that are paused now.
pub async fn paused_now(streams: &Streams) -> Result<BTreeMap<Name, PauseInForce>, ReadError> {
    let now = streams.clock().now();
    let said = streams.schedules().pauses().await?.into_iter();
    Ok(said.filter_map(|said| Some((said.name, said.epoch.standing(now)?))).collect())
}
