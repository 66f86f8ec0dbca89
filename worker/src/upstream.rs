//! What a run that follows the end of another is told about it: read from the ledger, where it is kept, and not carried
//! along, so that a task stays as small as it is.

use serde_json::{Value, json};
use shared::{
    after::Upstream,
    run_record::{ErrorKind, RunRecord},
};
use streams::{ReadError, Streams};

use crate::executors::{Failure, UpstreamEnd};

/// What is known of the end that a run follows. Retryable if the ledger cannot be read just now.
pub(crate) async fn end_of(
    streams: &Streams,
    upstream: Option<&Upstream>,
) -> Result<Option<UpstreamEnd>, Failure> {
    let Some(upstream) = upstream else { return Ok(None) };
    match Box::pin(streams.ledger().get(&upstream.run)).await {
        Ok(found) => Ok(Some(told(upstream, found.map(|stored| stored.value)))),
        // A stranger's writing in its place: what the record of this run says of it still counts.
        Err(ReadError::Corrupt { .. }) => Ok(Some(told(upstream, None))),
        Err(error) => Err(Failure::retryable(
            ErrorKind::Internal,
            format!("the record of {}, which this run follows, cannot be read: {error}", upstream.run),
        )),
    }
}

fn told(upstream: &Upstream, record: Option<RunRecord>) -> UpstreamEnd {
    let (output, error) = record.map_or((None, None), |record| (record.output, record.error));
    UpstreamEnd {
        run: upstream.run.clone(),
        status: upstream.status,
        ended_at: upstream.ended_at,
        output,
        error,
    }
}

impl UpstreamEnd {
    /// As it stands in the body of a request.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({ "run": self.run, "status": self.status, "ended_at": self.ended_at });
        if let Some(output) = &self.output {
            body["output"] = output.clone();
        }
        if let Some(error) = &self.error {
            body["error"] = json!(error);
        }
        body
    }
}
