//! Submissions that lie in their queues. Their records begin when a worker takes them; whoever asks before that is told so.

use shared::{
    Timestamp,
    names::{Name, QueueName},
    run::RunId,
};

use crate::{ReadError, Streams, names::Origin};

impl Streams {
    /// The queue in which the task of a run lies, and since when, from the stream's leader. None: it lies in none.
    pub async fn queued_since(&self, run: &RunId) -> Result<Option<(QueueName, Timestamp)>, ReadError> {
        let holder = self.task_of(run).await?;
        Ok(holder.and_then(|holder| Some((holder.queue?, holder.since))))
    }

    /// The submissions that lie in their queues, begun or not: all, or those of this name. None: they are too many to be told at
    /// once.
    pub async fn submissions(&self, name: Option<&Name>) -> Result<Option<Vec<RunId>>, ReadError> {
        let names = self.names();
        let subjects = self.subjects_of(&names.tasks_stream(), &names.submissions(name)).await?;
        let run_of = |subject: String| match names.parse_task(&subject)? {
            (Origin::AdHoc, _, name, key) => format!("{name}.{key}").parse().ok(),
            (Origin::Due, ..) => None,
        };
        Ok(subjects.map(|subjects| subjects.into_iter().filter_map(run_of).collect()))
    }
}
