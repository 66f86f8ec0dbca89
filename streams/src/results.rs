//! Results: every change of a run's state, as any subscriber gets it.

use futures::{Stream, StreamExt};
use shared::{names::Name, run::RunId, run_record::RunRecord};

use crate::{ReadError, Streams};

impl Streams {
    /// Every change of state from now on, of all runs or of one name's.
    ///
    /// What cannot be understood (a newer version's record) is left out.
    pub async fn results(
        &self,
        name: Option<&Name>,
    ) -> Result<impl Stream<Item = RunRecord> + Send + Unpin + use<>, ReadError> {
        self.results_on(self.names().results(name)).await
    }

    /// Every change of one run from now on.
    pub async fn results_of(
        &self,
        run: &RunId,
    ) -> Result<impl Stream<Item = RunRecord> + Send + Unpin + use<>, ReadError> {
        self.results_on(self.names().result(run)).await
    }

    async fn results_on(
        &self,
        subject: String,
    ) -> Result<impl Stream<Item = RunRecord> + Send + Unpin + use<>, ReadError> {
        let messages = self
            .client()
            .subscribe(subject.clone())
            .await
            .map_err(|error| ReadError::unavailable(subject.clone(), error))?;
        // The subscription counts from when the server has it, so that what is asked for next cannot be missed.
        self.client().flush().await.map_err(|error| ReadError::unavailable(subject, error))?;
        Ok(Box::pin(
            messages.filter_map(|message| async move { serde_json::from_slice(&message.payload).ok() }),
        ))
    }
}
