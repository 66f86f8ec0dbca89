//! What the four services have in common, whatever brings the request.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tracing::{info, warn};

use crate::{error::ServiceError, parameters::Parameters};

/// One target service. Blocking inside: `SQLite` and files are; [`answer`] keeps them off the async threads.
pub(crate) trait Service: Send + Sync + 'static {
    /// The name the schedules use.
    fn name(&self) -> &'static str;
    /// Does one action. An unknown one is a 404, see [`ServiceError::unknown_action`].
    fn act(&self, action: &str, parameters: Parameters) -> Result<Value, ServiceError>;
    /// Could an action succeed now? What `/healthz` answers.
    fn check(&self) -> Result<(), ServiceError>;
}

/// Does the action and adds to its answer how long it took.
///
/// A caller that stops waiting does not stop the work: it ends on its own, and a repeat is harmless.
pub(crate) async fn answer<S: Service>(
    service: Arc<S>,
    action: String,
    parameters: Parameters,
) -> Result<Value, ServiceError> {
    blocking(move || {
        let started = elapsed();
        let result = service.act(&action, parameters);
        let took_ms = elapsed().saturating_sub(started).as_millis() as u64;
        let name = service.name();
        match result {
            Ok(mut answer) => {
                info!(service = name, action, took_ms, "{name} did {action} in {took_ms} ms");
                answer["took_ms"] = json!(took_ms);
                Ok(answer)
            }
            Err(error) => {
                warn!(
                    service = name,
                    action,
                    took_ms,
                    code = error.code,
                    "{name} refused {action:?}: {error}"
                );
                Err(error)
            }
        }
    })
    .await
}

/// Runs blocking work where it may block. A panic in it becomes a 500.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ServiceError::internal(format!("the service failed: {error}"))),
    }
}

/// Time since boot, for measuring: it counts suspension and never goes back.
pub(crate) fn elapsed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
