//! A planner and workers, each watched over.
//!
//! A queue that is declared while `up` runs gets a worker of its own, so that its runs do not wait for a restart.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use shared::{clock::SharedClock, limits, names::QueueName, queue::QueueShare, suggest::nearest};
use streams::Streams;
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use worker::{
    Stop, Worker, WorkerSettings,
    executors::{SecretsFolder, local::LocalSettings},
};

use super::{supervise::supervise, talk::Talk};

/// How soon a new queue is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// A worker bounds its drain itself; whoever waits longer than this waits for nothing.
const WORKERS_END_WAIT: Duration = Duration::from_secs(40);
const PLANNER_END_WAIT: Duration = Duration::from_secs(15);

/// What planner and workers are told.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) places: u16,
    pub(super) served: Served,
    pub(super) local: LocalSettings,
    /// Where the first of its workers takes in what targets answer later; the targets of all are told of it.
    pub(super) callback_listen: Option<SocketAddr>,
}

/// Which of the declared queues its workers serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    /// Every queue but these.
    AllBut(BTreeSet<QueueName>),
    /// These, as soon as they are declared.
    Only(BTreeSet<QueueName>),
}

impl Served {
    /// By what was asked for: these, if any are named; otherwise all but the others.
    pub(super) fn of(queues: &[QueueName], except: &[QueueName]) -> Self {
        match queues {
            [] => Self::AllBut(except.iter().cloned().collect()),
            queues => Self::Only(queues.iter().cloned().collect()),
        }
    }

    fn includes(&self, queue: &QueueName) -> bool {
        match self {
            Self::AllBut(others) => !others.contains(queue),
            Self::Only(these) => these.contains(queue),
        }
    }

    /// The queues that were named and are not there.
    fn missing<'a>(&'a self, declared: &'a BTreeSet<QueueName>) -> impl Iterator<Item = &'a QueueName> {
        let (Self::AllBut(named) | Self::Only(named)) = self;
        named.difference(declared)
    }
}

/// The running planner and workers.
pub(super) struct Fleet {
    planner: AbortOnDropHandle<()>,
    workers: AbortOnDropHandle<()>,
    planner_stop: CancellationToken,
    talk: Talk,
    clock: SharedClock,
}

impl Fleet {
    /// Starts them. The workers drain and abort with `stop`; the planner is stopped by [`Fleet::stop`].
    pub(super) fn start(settings: Settings, streams: &Streams, talk: &Talk, stop: &Stop) -> Self {
        let clock = streams.clock().clone();
        let planner_stop = CancellationToken::new();
        let planner = {
            let (streams, host, stop) = (streams.clone(), settings.host.clone(), planner_stop.clone());
            let plan = move || {
                let planner =
                    planner::Planner::new(&planner::PlannerSettings { host: host.clone() }, streams.clone());
                let stop = stop.clone();
                async move { Ok(planner.run(stop).await?) }
            };
            supervise("the planner".to_owned(), talk.clone(), clock.clone(), planner_stop.clone(), plan)
        };
        let workers = work(settings, streams.clone(), talk.clone(), stop.clone());
        Self {
            planner: AbortOnDropHandle::new(tokio::spawn(planner)),
            workers: AbortOnDropHandle::new(tokio::spawn(workers)),
            planner_stop,
            talk: talk.clone(),
            clock,
        }
    }

    /// Stops the planner, while the workers, which were told to drain, finish what they have; then waits for these.
    ///
    /// In this order: a slot that comes due meanwhile would be dispatched to nobody, and its run would wait for the
    /// next `up`. Undispatched, it is found in the cursor's gap, and the schedule's policy for missed slots decides.
    pub(super) async fn stop(self) {
        self.planner_stop.cancel();
        if let Some(late) = ends_within(self.planner, PLANNER_END_WAIT, &self.clock).await {
            self.talk.say("the planner does not end; it is dropped, nothing is lost");
            drop(late);
        } else {
            self.talk.say("the planner has stopped");
        }
        if let Some(late) = ends_within(self.workers, WORKERS_END_WAIT, &self.clock).await {
            self.talk.say("the worker does not end; it is dropped, its runs are taken up again later");
            drop(late);
        } else {
            self.talk.say("the worker has stopped");
        }
    }
}

/// Waits for a task; gives it back if it has not ended in time.
async fn ends_within(
    mut task: AbortOnDropHandle<()>,
    wait: Duration,
    clock: &SharedClock,
) -> Option<AbortOnDropHandle<()>> {
    tokio::select! {
        _ = &mut task => None,
        () = clock.sleep(wait) => Some(task),
    }
}

/// Serves every queue that is declared, now or later, and is to be served here, until all workers have drained.
async fn work(settings: Settings, streams: Streams, talk: Talk, stop: Stop) {
    let clock = streams.clock().clone();
    let mut served = BTreeSet::new();
    let mut workers = JoinSet::new();
    let mut is_missing_said = false;
    while !stop.drain.is_cancelled() {
        if let Ok(declared) = streams.catalog().queues().await {
            let declared: BTreeSet<QueueName> =
                declared.into_keys().chain([QueueName::default_queue()]).collect();
            if !std::mem::replace(&mut is_missing_said, true) {
                for queue in settings.served.missing(&declared) {
                    talk.say(missing(queue, &declared));
                }
            }
            let new = declared.difference(&served).filter(|queue| settings.served.includes(queue));
            let new: Vec<QueueName> = new.cloned().collect();
            if !new.is_empty() {
                let names: Vec<&str> = new.iter().map(QueueName::as_str).collect();
                let names = names.join(", ");
                talk.say(format!("a worker serves {names} ({} places)", settings.places));
                served.extend(new.iter().cloned());
                let name = format!("the worker of {names}");
                // Cancelled with `up`, or when somebody drained this worker: then it is not started again.
                let done = stop.drain.child_token();
                let drained = Drained { name: name.clone(), talk: talk.clone(), done: done.clone() };
                let callback_listen = settings.callback_listen.filter(|_| served.len() == new.len());
                let serve =
                    serve((settings.clone(), callback_listen), new, streams.clone(), stop.clone(), drained);
                workers.spawn(supervise(name, talk.clone(), clock.clone(), done, serve));
            }
        }
        tokio::select! {
            () = stop.drain.cancelled() => {}
            () = clock.sleep(LOOK_EVERY) => {}
        }
    }
    while workers.join_next().await.is_some() {}
}

/// A worker that somebody told to stop, and that is not started again.
#[derive(Clone)]
struct Drained {
    name: String,
    talk: Talk,
    done: CancellationToken,
}

impl Drained {
    /// Says so, unless it is `up` itself that stops.
    fn note(&self) {
        if !self.done.is_cancelled() {
            self.talk.say(format!(
                "{} has ended, as somebody asked it to (`cronfleet drain`); the next `up` starts it again",
                self.name
            ));
            self.done.cancel();
        }
    }
}

/// What is said of a queue that was named and is not there: it may be a slip, or be declared in a moment.
fn missing(queue: &QueueName, declared: &BTreeSet<QueueName>) -> String {
    let near = nearest(queue.as_str(), declared.iter().map(QueueName::as_str));
    let meant = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    format!("queue {queue} is not declared yet{meant}")
}

/// What starts one worker, as often as it is needed.
fn serve(
    (settings, callback_listen): (Settings, Option<SocketAddr>),
    queues: Vec<QueueName>,
    streams: Streams,
    stop: Stop,
    drained: Drained,
) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> {
    move || {
        let settings = WorkerSettings {
            host: settings.host.clone(),
            queues: queues.iter().cloned().map(QueueShare::from).collect(),
            places: settings.places,
            drain: limits::DRAIN_DEFAULT,
            local: settings.local.clone(),
            secrets: SecretsFolder::default(),
            callback_listen,
            callback_url: settings.callback_listen.map(|address| format!("http://{address}")),
        };
        let worker = Worker::new(settings, streams.clone());
        // Its own tokens: a worker that gives up cancels them, and the others must not stop with it.
        let stop = Stop { drain: stop.drain.child_token(), abort: stop.abort.child_token() };
        let (own, drained) = (stop.drain.clone(), drained.clone());
        Box::pin(async move {
            worker?.run(stop).await?;
            if own.is_cancelled() {
                drained.note();
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_that_are_named_are_served_or_left_out() {
        let [default, archive] =
            ["default", "archive"].map(|name| name.parse::<QueueName>().expect("a queue"));
        let served = |queues: &[QueueName], except: &[QueueName]| {
            let served = Served::of(queues, except);
            (served.includes(&default), served.includes(&archive))
        };
        assert_eq!(served(&[], &[]), (true, true));
        assert_eq!(served(&[], std::slice::from_ref(&archive)), (true, false));
        assert_eq!(served(std::slice::from_ref(&archive), &[]), (false, true));
        let slip = ["archvie".parse().expect("a queue")];
        let declared = BTreeSet::from([default, archive]);
        let said: Vec<String> =
            Served::of(&[], &slip).missing(&declared).map(|queue| missing(queue, &declared)).collect();
        assert!(said.len() == 1 && said[0].contains("did you mean archive?"), "{said:?}");
    }
}
