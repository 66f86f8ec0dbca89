//! Waiting for the end of a run, where a caller prefers that.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;
use shared::{run::RunId, run_record::RunRecord};
use streams::operate::wait;

use super::{
    call::Call,
    problem::Problem,
    state::Api,
    verb::{Answer, AnswerOf, schema_of},
};

/// What is answered before a run has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Accepted {
    /// The run's id.
    pub id: String,
}

/// 200 with the record, or 202 with the id.
pub const ANSWERS: [AnswerOf; 2] = [
    AnswerOf { status: 200, means: "The run has ended; its record", schema: Some(schema_of::<RunRecord>) },
    AnswerOf {
        status: 202,
        means: "It is asked for; `Location` is where it is found",
        schema: Some(schema_of::<Accepted>),
    },
];

/// Asks for a run, and waits for its end as long as was preferred.
pub async fn asked(
    api: &Arc<Api>,
    call: &mut Call,
    run: &RunId,
    ask: impl Future<Output = Result<(), Problem>>,
) -> Result<Answer, Problem> {
    let accepted = || Answer::with(202, Accepted { id: run.to_string() }).located(place_of(run));
    let Some(wait) = call.wait()? else {
        ask.await?;
        return Ok(accepted());
    };
    // Listen before asking, so that not even the first change is missed.
    let results = api.streams.results_of(run).await?;
    ask.await?;
    // Who waits does not keep others from being answered.
    drop(call.place.take());
    let Ok(_waiting) = api.waits.try_acquire() else { return Ok(accepted()) };
    Ok(match end_within(api, run, results, wait).await {
        Some(record) => Answer { has_waited: true, ..Answer::ok(record).located(place_of(run)) },
        None => accepted(),
    })
}

async fn end_within(
    api: &Api,
    run: &RunId,
    results: impl futures::Stream<Item = RunRecord> + Unpin,
    wait: Duration,
) -> Option<RunRecord> {
    let ended_already = api.streams.ledger().get(run).await.ok().flatten();
    if let Some(stored) = ended_already.filter(|stored| stored.value.status.is_final()) {
        return Some(stored.value);
    }
    tokio::select! {
        record = wait::for_end(&api.streams, run, results, |_| {}) => Some(record),
        () = api.clock().sleep(wait) => None,
        () = api.stop.cancelled() => None,
    }
}

/// Where a run is found.
pub fn place_of(run: &RunId) -> String {
    format!("/api/v1/runs/{run}")
}
