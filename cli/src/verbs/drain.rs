//! `drain`: the end of a worker, asked for from afar.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use shared::{human_duration::HumanDuration, names::MemberId, suggest::nearest};
use streams::{Streams, drain::DrainRequest, members::WorkerStatus};

use super::{
    apply::patiently,
    lists::{alive_workers, serving},
    machine::person,
    when::utc,
};
use crate::{GlobalArgs, exit::Exit, output::talk};

/// Between two looks at a worker that is stopping.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long it is waited for when nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);

const EXAMPLES: &str = "\
As by a signal to the process: it fetches nothing new, lets its runs finish for as long as its own --drain says, hands the rest \
back without using up an attempt, and ends with exit code 0. Other workers of the same queues begin at once what it hands back.

Who asked is seen in `get workers -o json` until it is gone. What starts its process anew (systemd, `cronfleet up`) starts \
another worker, under another id.

Examples:
  cronfleet get workers
  cronfleet drain worker-node7-1f0c2a9b --wait
  cronfleet get workers -o name | grep node7 | xargs -n1 cronfleet drain";

/// The arguments of `drain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DrainArgs {
    /// The worker, as `get workers` writes it
    #[arg(value_name = "WORKER")]
    pub worker: MemberId,

    /// Hand back what runs at once, instead of letting it finish; also of a worker that is stopping already
    #[arg(long)]
    pub now: bool,

    /// Wait until it is gone
    #[arg(long)]
    pub wait: bool,

    /// With --wait: how long. Then the exit code is 124, and the worker goes on stopping [default: 5m]
    #[arg(long, requires = "wait", value_name = "DURATION")]
    pub timeout: Option<HumanDuration>,
}

/// What was asked of which worker.
#[derive(Debug, Serialize)]
struct Drained {
    id: MemberId,
    running: usize,
    gone: bool,
}

/// Asks a worker to stop.
pub async fn run(args: DrainArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let (id, output) = (args.worker, global.output());
    let workers = alive_workers(&streams).await?;
    let Some(worker) = workers.iter().find(|worker| worker.id == id) else {
        return gone(&streams, &id, &workers).await;
    };
    if worker.draining {
        let by = worker.drained_by.as_ref().map_or_else(String::new, |by| format!(", asked by {by}"));
        talk(format!("{id} is stopping already{by}"));
    }
    let request = DrainRequest { worker: id.clone(), now: args.now, by: person(), at: streams.clock().now() };
    // Repeating it is harmless.
    patiently(streams.clock().as_ref(), || streams.drain(&request)).await?;
    for queue in &worker.queues {
        if serving(&workers, queue) <= usize::from(!worker.draining) {
            talk(format!("warning: no other worker serves queue {queue}; its runs wait for one"));
        }
    }
    let mut drained = Drained { id: id.clone(), running: worker.running.len(), gone: false };
    if args.wait {
        let timeout = args.timeout.map_or(TIMEOUT_DEFAULT, |timeout| timeout.0);
        drained.gone = tokio::select! {
            () = until_gone(&streams, &id) => true,
            () = streams.clock().sleep(timeout) => false,
        };
        if !drained.gone {
            talk(format!("timed out after {}: {id} is still stopping", HumanDuration(timeout)));
        }
    }
    output.one(
        &drained,
        || id.to_string(),
        || {
            let is = if drained.gone {
                "is gone".to_owned()
            } else {
                format!("stops; it has {} runs", drained.running)
            };
            format!("{id} {is}\n")
        },
    )?;
    Ok(if args.wait && !drained.gone { Exit::TimedOut } else { Exit::Done }.into())
}

/// What to say of a worker that is not alive: whether it was asked to stop, or which one may be meant.
async fn gone(streams: &Streams, id: &MemberId, workers: &[WorkerStatus]) -> anyhow::Result<ExitCode> {
    if let Some(request) = streams.drain_asked(id).await? {
        talk(format!("{id} is gone: {} asked it to stop at {}", request.by, utc(request.at)));
        return Ok(Exit::Done.into());
    }
    Err(match nearest(id.as_str(), workers.iter().map(|worker| worker.id.as_str())) {
        Some(near) => anyhow!("no worker {id} is alive; did you mean {near}?"),
        None => anyhow!(
            "no worker {id} is alive: it has ended, or never was; `cronfleet get workers` lists those that are"
        ),
    })
}

async fn until_gone(streams: &Streams, id: &MemberId) {
    let mut said = None;
    loop {
        // A read that failed says nothing, and is made again.
        match streams.members().worker(id).await {
            Ok(None) => return,
            Ok(Some(worker)) if said != Some(worker.running.len()) => {
                said = Some(worker.running.len());
                talk(format!("{id} has {} runs", worker.running.len()));
            }
            _ => {}
        }
        streams.clock().sleep(LOOK_AGAIN).await;
    }
}
