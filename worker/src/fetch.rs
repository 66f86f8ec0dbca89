//! Fetching by credit: a worker asks for exactly as many runs as it has free places, so it never holds one that another
//! worker could be at. What is asked for, and from which queue, `credit.rs` says.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use shared::{names::QueueName, queue::QueueShare};
use streams::{
    Streams,
    delivery::Delivery,
    tasks::{Pulled, Queue},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use crate::{
    Stop, WorkerError,
    credit::{Ask, Credit, Event},
    queues,
    serve::Server,
};

/// Waits before a queue that was lost is opened anew: quick at first, never in a hot loop.
const REOPEN_WAIT: Duration = Duration::from_millis(200);
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(5);
/// What has come is taken in so many at once, before it is looked whether we are to stop.
const AT_ONCE_MAX: usize = 64;
/// How often the settings of a queue are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What a queue tells.
enum Told {
    /// It can be asked, over this.
    Opened(UnboundedSender<Ask>),
    /// A run came.
    Came(Arc<Delivery>, Duration),
    /// So many credits came back.
    Returned(usize),
    /// All of its credits came back.
    Lost,
}

/// Fetches from all queues of a worker.
pub(crate) struct Fetch {
    pub(crate) streams: Streams,
    pub(crate) queues: Vec<QueueShare>,
    pub(crate) places: usize,
    pub(crate) server: Server,
}

impl Fetch {
    /// Fetches and serves until it is told to drain; returns when the last run has ended or was handed back. An error, if it had
    /// to stop by itself: then it has told the worker to stop, and handed back what it had all the same.
    pub(crate) async fn run(self, stop: Stop) -> Result<(), WorkerError> {
        let (tell, mut told) = unbounded_channel();
        let mut lines = JoinSet::new();
        for (number, share) in self.queues.iter().enumerate() {
            let line = Line {
                streams: self.streams.clone(),
                queue: share.queue.clone(),
                number,
                server: self.server.clone(),
                tell: tell.clone(),
            };
            lines.spawn(line.run(stop.clone()));
        }
        drop(tell);
        let mut running = JoinSet::new();
        let mut result = self.share(&mut told, &mut running, &mut lines, &stop).await;
        if result.is_err() {
            // The other queues must not go on in a worker that is half dead.
            stop.abort.cancel();
            stop.drain.cancel();
        }
        while let Some(ended) = lines.join_next().await {
            result = result.and(ended.map_err(|panic| line_ended(panic.to_string())));
        }
        // What came and was not looked at goes back at once; nothing of it was spent.
        let mut unread = Vec::new();
        while let Ok((number, event)) = told.try_recv() {
            if let Told::Came(delivery, _) = event {
                unread.push((number, delivery));
            }
        }
        let back = unread.iter().map(|(number, delivery)| {
            self.server.give_back(delivery, &self.queues[*number].queue, Duration::ZERO)
        });
        join_all(back).await;
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
        result
    }

    /// Shares the places among the queues until we are told to stop, or one of them is served by nobody any more.
    async fn share(
        &self,
        told: &mut UnboundedReceiver<(usize, Told)>,
        running: &mut JoinSet<()>,
        lines: &mut JoinSet<()>,
        stop: &Stop,
    ) -> Result<(), WorkerError> {
        let clock = self.streams.clock();
        let mut credit = Credit::new(self.places, self.queues.iter().map(|share| share.weight));
        let mut asks: Vec<Option<UnboundedSender<Ask>>> = self.queues.iter().map(|_| None).collect();
        loop {
            let (now, wake_at) = (clock.elapsed(), credit.wake_at());
            let mut event = tokio::select! {
                () = stop.drain.cancelled() => return Ok(()),
                () = stop.abort.cancelled() => return Ok(()),
                Some(ended) = lines.join_next() => match ended {
                    Err(panic) => return Err(line_ended(panic.to_string())),
                    // It was told to stop, a moment before we were.
                    Ok(()) => continue,
                },
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    report(ended);
                    Event::Ended
                }
                Some(told) = told.recv() => self.heard(told, running, &mut asks, stop),
                () = clock.sleep(wake_at.unwrap_or(now).saturating_sub(now)), if wake_at.is_some() => Event::Woken,
            };
            // What has happened meanwhile is taken in before anything is waited for again.
            for left in (0..AT_ONCE_MAX).rev() {
                for ask in credit.step(event, clock.elapsed()) {
                    if let Some(over) = &asks[ask.queue] {
                        // One that is being lost says so next, and all of its credits are back.
                        let _ = over.send(ask);
                    }
                }
                event = if left == 0 {
                    break;
                } else if let Some(ended) = running.try_join_next() {
                    report(ended);
                    Event::Ended
                } else if let Ok(told) = told.try_recv() {
                    self.heard(told, running, &mut asks, stop)
                } else {
                    break;
                };
            }
        }
    }

    /// What a queue told; a run that came begins.
    fn heard(
        &self,
        (number, told): (usize, Told),
        running: &mut JoinSet<()>,
        asks: &mut [Option<UnboundedSender<Ask>>],
        stop: &Stop,
    ) -> Event {
        match told {
            Told::Opened(over) => {
                asks[number] = Some(over);
                Event::Opened(number)
            }
            Told::Came(delivery, ack_wait) => {
                let left = delivery.left;
                let (server, queue) = (self.server.clone(), self.queues[number].queue.clone());
                // In a box, so that its kilobytes are moved once, and not with each step into the runtime.
                running.spawn(Box::pin(server.serve(delivery, queue, ack_wait, stop.abort.clone())));
                Event::Came(number, left)
            }
            Told::Returned(credits) => Event::Returned(number, credits),
            Told::Lost => Event::Lost(number),
        }
    }
}

/// One queue, pulled by what is asked for.
struct Line {
    streams: Streams,
    queue: QueueName,
    number: usize,
    server: Server,
    tell: UnboundedSender<(usize, Told)>,
}

impl Line {
    async fn run(self, stop: Stop) {
        let mut wait = REOPEN_WAIT;
        while !stop.drain.is_cancelled() && !stop.abort.is_cancelled() {
            match self.streams.open_queue(&self.queue).await {
                Ok(queue) => {
                    let begun = self.streams.clock().elapsed();
                    self.pull(queue, &stop).await;
                    if self.streams.clock().elapsed().saturating_sub(begun) > REOPEN_WAIT_MAX {
                        wait = REOPEN_WAIT;
                    }
                }
                Err(error) => {
                    let why = queues::why_not_opened(&self.streams, &self.queue, error).await;
                    tracing::warn!(queue = %self.queue, "Queue `{}` cannot be opened: {why}", self.queue);
                }
            }
            tokio::select! {
                () = stop.drain.cancelled() => {}
                () = stop.abort.cancelled() => {}
                () = self.streams.clock().sleep(wait) => wait = (wait * 2).min(REOPEN_WAIT_MAX),
            }
        }
    }

    fn say(&self, told: Told) {
        let _ = self.tell.send((self.number, told));
    }

    /// Tells what came out of the queue, and what has come with it. An error if the queue is lost.
    fn take(&self, first: Pulled, queue: &mut Queue) -> Result<(), String> {
        let mut pulled = first;
        for left in (0..AT_ONCE_MAX).rev() {
            match pulled {
                Pulled::Task(delivery) => self.say(Told::Came(delivery, queue.ack_wait())),
                Pulled::Returned(credits) => self.say(Told::Returned(credits)),
                Pulled::Lost(why) => return Err(why),
            }
            pulled = match (left > 0).then(|| queue.next().now_or_never()).flatten() {
                Some(next) => next,
                None => break,
            };
        }
        Ok(())
    }

    /// Pulls until the queue is lost or we are told to stop.
    async fn pull(&self, mut queue: Queue, stop: &Stop) {
        let (over, mut asked) = unbounded_channel();
        self.say(Told::Opened(over));
        let looking = queue.look(LOOK);
        tokio::pin!(looking);
        loop {
            tokio::select! {
                () = stop.drain.cancelled() => break,
                () = stop.abort.cancelled() => break,
                Some(ask) = asked.recv() => if queue.ask(ask.runs, ask.stand).await.is_err() {
                    break;
                },
                pulled = queue.next() => if let Err(why) = self.take(pulled, &mut queue) {
                    tracing::info!(queue = %self.queue, why, "Queue `{}` is opened anew: {why}", self.queue);
                    break;
                },
                looked = &mut looking => {
                    if !queue.note(looked) {
                        tracing::info!(queue = %self.queue, "Queue `{}` is not there any more", self.queue);
                        break;
                    }
                    looking.set(queue.look(LOOK));
                }
            }
        }
        // What came and was not looked at goes back at once.
        let unread = queue.close().await;
        join_all(unread.iter().map(|delivery| self.server.give_back(delivery, &self.queue, Duration::ZERO)))
            .await;
        self.say(Told::Lost);
    }
}

/// A queue that nobody pulls any more would be unserved for ever, while its worker says that it is well.
fn line_ended(detail: String) -> WorkerError {
    WorkerError::Part { part: "fetching from a queue".to_owned(), detail }
}

/// A task that panicked takes its run with it: the run comes out again after the acknowledge wait.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!(%panic, "A run's task ended in a panic: {panic}");
    }
}
