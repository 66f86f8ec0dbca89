//! The work queue: publishing tasks to it, and pulling them from it by credit.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_nats::{
    StatusCode, Subscriber,
    jetstream::{
        consumer::{Consumer, pull},
        response::Response,
    },
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    limits::{PULL_HEARTBEAT, PULL_SILENCE_MAX},
    names::{Name, QueueName},
    run::RunId,
    run_record::RunRecord,
    schedule::Overlap,
    task::Task,
    trace::TraceContext,
};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{missing_or_unavailable, timestamp},
    delivery::Delivery,
    headers::{self, Headers},
    witness,
};

/// A planned run as it travels: its record, so that the first claim needs no read, and its task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DueTask {
    /// The record as the planner made it.
    pub run: Arc<RunRecord>,
    /// What is to be done.
    pub task: Arc<Task>,
}

/// A task that lies in the queue, and so holds its subject: a schedule's lock, or a run's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// The run, if the message says one.
    pub run: Option<RunId>,
    /// The queue, if its subject names one.
    pub queue: Option<QueueName>,
    /// The message's place in the stream.
    pub sequence: u64,
    /// When it was published.
    pub since: shared::Timestamp,
    /// The revision of the record by which it was published, if it says one.
    pub revision: Option<u64>,
    /// The place of the message that it was put back for after a wait for its next attempt, if it says one.
    pub came_by: Option<u64>,
}

impl Holder {
    /// Whether it was published by this version of its run's record, or a later one.
    pub(crate) fn is_as_new_as(&self, revision: u64) -> bool {
        self.revision.is_some_and(|published| published >= revision)
    }
}

/// The subjects of a stream with messages, as its leader tells them, a page of them.
#[derive(Deserialize)]
struct Subjects {
    total: Option<usize>,
    state: SubjectsState,
}

#[derive(Deserialize)]
struct SubjectsState {
    subjects: Option<HashMap<String, u64>>,
}

impl Streams {
    /// Publishes a planned run. Unless runs may overlap the subject is the schedule's lock: [`WriteError::Occupied`]
    /// means that a run of it is queued or running, which may be this very one, published before.
    pub async fn dispatch(
        &self,
        due: &DueTask,
        revision: u64,
        overlap: Overlap,
        trace: Option<TraceContext>,
    ) -> Result<u64, WriteError> {
        let run = &due.run.id;
        let subject = self.due_subject(due, overlap);
        let mut headers =
            Headers::new().with(headers::RUN, &run.to_string())?.with_number(headers::REVISION, revision);
        if let Some(trace) = trace {
            headers = headers.with(headers::TRACEPARENT, &trace.to_string())?;
        }
        self.write(&subject, headers, Bytes::from(serde_json::to_vec(due).unwrap_or_default())).await
    }

    fn due_subject(&self, due: &DueTask, overlap: Overlap) -> String {
        if overlap.is_exclusive() {
            self.names().due_lock(&due.run.queue, &due.run.id.name)
        } else {
            self.names().due(&due.run.queue, &due.run.id)
        }
    }

    /// The newest live run of a schedule, in whatever queue and under whatever overlap it was dispatched; read from
    /// the stream's leader. None: nothing of it is queued or running.
    pub async fn live_run(&self, schedule: &Name) -> Result<Option<Holder>, ReadError> {
        match self.last_on(&self.names().due_of(schedule)).await? {
            // One that waits for its next attempt may do so outside its queue.
            None => self.delayed().parked_run_of(schedule).await,
            holder => Ok(holder),
        }
    }

    /// The schedules of which a planned run is queued, running, or waits for its next attempt, from the streams' leaders.
    /// None: they are too many to be told at once.
    pub async fn live_schedules(&self) -> Result<Option<BTreeSet<Name>>, ReadError> {
        let names = self.names();
        let due = self.subjects_of(&names.tasks_stream(), &names.all_due()).await?;
        let parked = match self.subjects_of(&names.delayed_stream(), &names.parked_all()).await {
            Err(ReadError::Missing { .. }) => Some(Vec::new()),
            parked => parked?,
        };
        let (Some(due), Some(parked)) = (due, parked) else { return Ok(None) };
        let due = due.iter().filter_map(|subject| names.parse_task(subject)?.2.parse().ok());
        let parked = parked.iter().filter_map(|subject| names.parse_parked(subject)?.2.parse().ok());
        Ok(Some(due.chain(parked).collect()))
    }

    /// The subjects of a stream that match and hold something, from its leader. None: more than it tells at once.
    pub(crate) async fn subjects_of(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<Option<Vec<String>>, ReadError> {
        let request = json!({ "subjects_filter": filter });
        let answer: Response<Subjects> = self
            .jetstream()
            .request(format!("STREAM.INFO.{stream}"), &request)
            .await
            .map_err(|error| ReadError::unavailable(stream, error))?;
        let Subjects { total, state } = match answer {
            Response::Ok(subjects) => subjects,
            Response::Err { error } => {
                return Err(missing_or_unavailable(&format!("stream {stream}"), &error));
            }
        };
        let subjects = state.subjects.unwrap_or_default();
        let are_all = total.is_none_or(|total| total <= subjects.len());
        Ok(are_all.then(|| subjects.into_keys().collect()))
    }

    /// Whether a submitted task is still in the queue.
    pub async fn queued(&self, queue: &QueueName, run: &RunId) -> Result<Option<Holder>, ReadError> {
        self.last_on(&self.names().task(queue, run)).await
    }

    /// The task of a run, wherever it lies: under its schedule's lock or its own subject, in whatever queue.
    pub(crate) async fn task_of(&self, run: &RunId) -> Result<Option<Holder>, ReadError> {
        let lock = self.last_on(&self.names().due_locks_of(&run.name)).await?;
        if lock.as_ref().is_some_and(|holder| holder.run.as_ref() == Some(run)) {
            return Ok(lock);
        }
        for subject in self.names().own_subjects_of(run) {
            if let Some(holder) = self.last_on(&subject).await? {
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    pub(crate) async fn last_on(&self, subject: &str) -> Result<Option<Holder>, ReadError> {
        let name = self.names().tasks_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(Holder {
                run: headers::value(Some(&message.headers), headers::RUN).and_then(|text| text.parse().ok()),
                queue: self
                    .names()
                    .parse_task(&message.subject)
                    .and_then(|(_, queue, ..)| queue.parse().ok()),
                sequence: message.sequence,
                since: timestamp(message.time.unix_timestamp_nanos()),
                revision: headers::number(Some(&message.headers), headers::REVISION),
                came_by: headers::number(Some(&message.headers), headers::SEQUENCE),
            })),
            Err(error) => match error.kind() {
                async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(unavailable(&error)),
            },
        }
    }

    /// Removes one message from the queue: only for a run that the ledger says has ended.
    ///
    /// It frees the lock of a run whose worker recorded the end and died before the ack.
    pub async fn remove_finished(&self, sequence: u64) -> Result<(), ReadError> {
        self.remove_message(&self.names().tasks_stream(), sequence).await
    }

    /// Submits an ad-hoc task: what any NATS client does with one publish.
    pub async fn submit(
        &self,
        queue: &QueueName,
        run: &RunId,
        task: &[u8],
        traceparent: Option<&str>,
    ) -> Result<u64, WriteError> {
        self.submit_with(Headers::new(), queue, run, task, traceparent).await
    }

    /// Submits an ad-hoc task that has a record already.
    pub async fn submit_recorded(
        &self,
        queue: &QueueName,
        run: &RunId,
        task: &[u8],
        traceparent: Option<&str>,
    ) -> Result<u64, WriteError> {
        let headers = Headers::new().with_number(headers::RECORDED, 1);
        self.submit_with(headers, queue, run, task, traceparent).await
    }

    /// Submits an ad-hoc task whose run failed and was retried, by this revision of its record.
    pub(crate) async fn submit_retried(
        &self,
        queue: &QueueName,
        run: &RunId,
        task: &[u8],
        revision: u64,
        traceparent: Option<&str>,
    ) -> Result<u64, WriteError> {
        let headers =
            Headers::new().with_number(headers::RECORDED, 1).with_number(headers::REVISION, revision);
        self.submit_with(headers, queue, run, task, traceparent).await
    }

    async fn submit_with(
        &self,
        mut headers: Headers,
        queue: &QueueName,
        run: &RunId,
        task: &[u8],
        traceparent: Option<&str>,
    ) -> Result<u64, WriteError> {
        if let Some(traceparent) = traceparent {
            headers = headers.with(headers::TRACEPARENT, traceparent)?;
        }
        self.write(&self.names().task(queue, run), headers, Bytes::copy_from_slice(task)).await
    }
}

/// What a queue that is being closed waits for its server.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What comes out of a queue.
pub enum Pulled {
    /// A task. One credit is used up.
    Task(Arc<Delivery>),
    /// So many credits came back without a task: ask again.
    Returned(usize),
    /// The pulls are lost, with this explanation; all credits came back. Open the queue anew after a wait.
    Lost(String),
}

/// A queue as it was found by a look; none if it is not there.
pub struct Looked(Option<Consumer<pull::Config>>);

/// A queue, pulled by credit: the server hands out exactly as many tasks as were asked for.
pub struct Queue {
    streams: Streams,
    consumer: Consumer<pull::Config>,
    inbox: String,
    answers: Subscriber,
    outstanding: usize,
    /// When the server was last heard, or first asked after a rest.
    heard_at: Duration,
}

impl Streams {
    /// Opens a queue for pulling. An error if it was never declared.
    pub async fn open_queue(&self, queue: &QueueName) -> Result<Queue, ReadError> {
        let name = self.names().tasks_stream();
        let what = || format!("queue {queue}");
        let stream = self
            .jetstream()
            .get_stream_no_info(&name)
            .await
            .map_err(|error| ReadError::unavailable(what(), error))?;
        let consumer = stream.get_consumer::<pull::Config>(queue.as_str()).await.map_err(|error| {
            if error.to_string().contains("not found") {
                ReadError::Missing { what: what() }
            } else {
                ReadError::unavailable(what(), error)
            }
        })?;
        let inbox = self.client().new_inbox();
        let answers = self
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| ReadError::unavailable(what(), error))?;
        let heard_at = self.clock().elapsed();
        Ok(Queue { streams: self.clone(), consumer, inbox, answers, outstanding: 0, heard_at })
    }
}

impl Queue {
    /// How many tasks were asked for and have not come.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// How long the server waits for a sign of life.
    pub fn ack_wait(&self) -> Duration {
        self.consumer.cached_info().config.ack_wait
    }

    /// Looks at its settings after this time; an `apply` may have changed them. Tasks may be taken meanwhile: the server may
    /// take long to say it, and the acknowledge wait of what lies here has begun.
    pub fn look(&self, after: Duration) -> impl Future<Output = Looked> + Send + use<> {
        let (mut consumer, clock) = (self.consumer.clone(), self.streams.clock().clone());
        async move {
            clock.sleep(after).await;
            match consumer.info().await {
                Err(error) if error.to_string().contains("not found") => Looked(None),
                // What is not known just now stays as it was.
                Ok(_) | Err(_) => Looked(Some(consumer)),
            }
        }
    }

    /// Notes what a look found. Whether the queue is there.
    pub fn note(&mut self, looked: Looked) -> bool {
        let is_there = looked.0.is_some();
        if let Some(consumer) = looked.0 {
            self.consumer = consumer;
        }
        is_there
    }

    /// Asks for so many tasks more. `stand`: how long the server may wait for them; none for one task that is there or not.
    pub async fn ask(&mut self, tasks: usize, stand: Option<Duration>) -> Result<(), ReadError> {
        let batch = match stand {
            Some(stand) => pull::BatchConfig {
                batch: tasks,
                expires: Some(stand),
                // The server refuses one that is longer than half of it; a short pull needs none.
                idle_heartbeat: if stand >= 2 * PULL_HEARTBEAT { PULL_HEARTBEAT } else { Duration::ZERO },
                ..Default::default()
            },
            None => pull::BatchConfig { batch: tasks, no_wait: true, ..Default::default() },
        };
        self.consumer
            .request_batch(batch, self.inbox.clone().into())
            .await
            .map_err(|error| ReadError::unavailable("pull", error))?;
        if self.outstanding == 0 {
            self.heard_at = self.streams.clock().elapsed();
        }
        self.outstanding += tasks;
        Ok(())
    }

    /// The next thing that comes out. Never returns while nothing was asked for and nothing comes.
    pub async fn next(&mut self) -> Pulled {
        loop {
            let clock = self.streams.clock().clone();
            // Counted from the last word of the server, so that being interrupted here does not put it off for ever.
            let patience = (self.heard_at + PULL_SILENCE_MAX).saturating_sub(clock.elapsed());
            // What is there is taken before a timer is made for what is not.
            let message = if let Some(message) = self.answers.next().now_or_never() {
                message
            } else {
                tokio::select! {
                    message = self.answers.next() => message,
                    () = clock.sleep(patience), if self.outstanding > 0 => {
                        return Pulled::Lost(format!("the server was silent for {} s", PULL_SILENCE_MAX.as_secs()));
                    }
                }
            };
            let Some(message) = message else { return Pulled::Lost("the connection is closed".to_owned()) };
            self.heard_at = clock.elapsed();
            match message.status {
                // A heartbeat, or flow control: somebody is there.
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                None | Some(StatusCode::OK) => {
                    self.outstanding = self.outstanding.saturating_sub(1);
                    if let Some(delivery) = Delivery::of(&self.streams, message) {
                        witness::passed("fetched");
                        return Pulled::Task(Arc::new(delivery));
                    }
                    // Nobody can read it, and its credit is used up: it is asked for again.
                    return Pulled::Returned(1);
                }
                Some(status) => return self.ended(status, &message),
            }
        }
    }

    /// Stops asking, and returns what had come already and was not looked at: hand it back.
    pub async fn close(mut self) -> Vec<Delivery> {
        let mut unread = Vec::new();
        let clock = self.streams.clock().clone();
        let give_up = clock.sleep(CLOSE_WAIT_MAX);
        tokio::pin!(give_up);
        if self.answers.drain().await.is_ok() {
            // Without a server the end of the drain never comes; nor does anything to hand back.
            while let Some(message) = tokio::select! {
                message = self.answers.next() => message,
                () = &mut give_up => None,
            } {
                if matches!(message.status, None | Some(StatusCode::OK)) {
                    unread.extend(Delivery::of(&self.streams, message));
                }
            }
        }
        unread
    }

    /// A pull ended before it was filled: its credits come back, or all of them if the consumer is in trouble.
    fn ended(&mut self, status: StatusCode, message: &async_nats::Message) -> Pulled {
        let words = message.description.clone().unwrap_or_default();
        let pending = headers::value(message.headers.as_ref(), "Nats-Pending-Messages");
        let expired = matches!(status, StatusCode::TIMEOUT | StatusCode::NOT_FOUND);
        match pending.and_then(|text| text.parse::<usize>().ok()) {
            Some(credits) if expired => {
                self.outstanding = self.outstanding.saturating_sub(credits);
                Pulled::Returned(credits)
            }
            // The answer to a pull of one that does not stand.
            None if status == StatusCode::NOT_FOUND => {
                self.outstanding = self.outstanding.saturating_sub(1);
                Pulled::Returned(1)
            }
            _ => Pulled::Lost(format!("{status} {words}")),
        }
    }
}
