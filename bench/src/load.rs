//! Tasks, and schedules by the thousand.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use shared::{
    names::{Name, QueueName},
    run::RunId,
    schedule::Schedule,
};
use streams::Streams;

use crate::target;

/// Definitions written at the same time.
const WRITES_IN_FLIGHT: usize = 512;
/// Submissions whose acknowledgement has not come yet.
const SUBMISSIONS_IN_FLIGHT: usize = 1_000;
/// What a task weighs as JSON, with its schedule's own fields around it.
const TASK_BYTES: usize = 300;

/// What a raw message weighs that is compared with a run: its task alone, without the record and the headers around it.
pub(crate) const MESSAGE_BYTES: usize = TASK_BYTES;

/// A schedule with its name.
pub(crate) type Named = (Name, Schedule);

/// A task of 300 bytes.
pub(crate) fn task(action: &str) -> Value {
    let mut task =
        json!({ "target_service": target::NAME, "action": action, "parameters": { "filling": "" } });
    let empty = task.to_string().len();
    task["parameters"]["filling"] = json!("x".repeat(TASK_BYTES.saturating_sub(empty)));
    task
}

/// A schedule with such a task; `fields` say when, and what else is not as usual.
pub(crate) fn schedule(name: &str, mut fields: Value) -> anyhow::Result<Named> {
    fields["task"] = task("run");
    let name: Name = name.parse()?;
    let schedule: Schedule = serde_json::from_value(fields)?;
    Ok((name, schedule))
}

/// Writes schedules.
pub(crate) async fn write(
    streams: &Streams,
    schedules: impl Iterator<Item = anyhow::Result<Named>>,
) -> anyhow::Result<()> {
    let bucket = &streams.schedules();
    stream::iter(schedules)
        .map(|named| async move {
            let (name, schedule) = named?;
            bucket.apply(&name, &schedule).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(WRITES_IN_FLIGHT)
        .try_collect::<()>()
        .await
}

/// Submits so many runs under a name, with keys that count up, many at once.
pub(crate) async fn submit(
    streams: &Streams,
    queue: &QueueName,
    name: &str,
    action: &str,
    runs: usize,
) -> anyhow::Result<()> {
    let task = &task(action).to_string();
    stream::iter(0..runs)
        .map(|n| async move {
            let run: RunId = format!("{name}.{n}").parse()?;
            streams.submit(queue, &run, task.as_bytes(), None).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(SUBMISSIONS_IN_FLIGHT)
        .try_collect::<()>()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_weighs_what_is_said() {
        let (_, schedule) = schedule("one", json!({ "every": "1s" })).expect("a schedule");
        let bytes = serde_json::to_value(&schedule).expect("json")["task"].to_string().len();
        assert!((TASK_BYTES - 20..TASK_BYTES + 150).contains(&bytes), "{bytes}");
    }
}
