//! "Unknown; did you mean …?", for everything that has a name.

use anyhow::anyhow;
use shared::names::{QueueName, TargetName};
use streams::Streams;

/// The error for a name that is not there, with the nearest one that is.
pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> anyhow::Error {
    anyhow!(streams::operate::unknown(kind, name, known))
}

/// What is to be said of a queue or a target by which a list was filtered, and which nobody has declared; nothing if it was.
pub async fn slip(
    streams: &Streams,
    queue: Option<&QueueName>,
    target: Option<&TargetName>,
) -> anyhow::Result<Option<String>> {
    if queue.is_none() && target.is_none() {
        return Ok(None);
    }
    let declared = streams.catalog().all().await?;
    if let Some(queue) = queue.filter(|queue| !declared.queues.contains_key(*queue)) {
        let known = declared.queues.keys().map(QueueName::as_str);
        return Ok(Some(unknown("queue", queue.as_str(), known).to_string()));
    }
    let target = target.filter(|target| !declared.targets.contains_key(*target));
    let known = declared.targets.keys().map(TargetName::as_str);
    Ok(target.map(|target| unknown("target", target.as_str(), known).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_gets_the_name_that_was_meant() {
        let known = ["daily_data_archive", "nightly_vacuum"];
        assert!(
            unknown("schedule", "dayly_data_archive", known)
                .to_string()
                .ends_with("did you mean \"daily_data_archive\"?")
        );
        assert!(unknown("schedule", "x", known).to_string().contains("get schedules"));
        assert!(unknown("schedule", "x", []).to_string().contains("apply -f"));
    }
}
