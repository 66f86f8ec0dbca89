//! The embedded nats-server: found, started on this machine's loopback, kept running, ended last.
//!
//! Promise: it never outlives `up`, however that ends; its guard sees to it. Should it end by itself, it is started
//! again on the same port, and the fleet, which reconnects, goes on where it was.

mod binary;
mod config;
mod orphan;
mod process;

use std::{net::TcpListener, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use shared::{clock::SharedClock, human_duration::HumanDuration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::process::{Process, StartError};
use super::{data_dir::DataDir, supervise::Backoff, talk::Talk};

/// The port NATS clients try when they are told none.
pub(super) const PORT_USUAL: u16 = 4222;
/// Free ports tried, should each be taken by somebody else in the moment between looking and starting.
const PORTS_TRIED_MAX: usize = 5;

/// The embedded server, watched over.
pub(super) struct Server {
    address: String,
    stop: CancellationToken,
    watching: JoinHandle<()>,
}

impl Server {
    /// Starts it and waits until it listens; then leaves its address in the data directory.
    pub(super) async fn start(
        data: Arc<DataDir>,
        port: Option<u16>,
        talk: Talk,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        let binary = binary::find(&clock).await?;
        orphan::end(&data, &talk, &clock).await?;
        let (process, port) = first_start(&binary, &data, port, &talk, &clock).await?;
        let address = format!("nats://{}:{port}", config::HOST);
        data.write_address(&address)?;
        talk.say(format!("nats-server ({}) listens on {address}", binary.display()));
        let stop = CancellationToken::new();
        let keeper = Keeper { binary, data, port, talk, clock, stop: stop.clone() };
        Ok(Self { address, stop, watching: tokio::spawn(keeper.keep(process)) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Ends it and waits until it has ended.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let _ = self.watching.await;
    }
}

async fn first_start(
    binary: &std::path::Path,
    data: &DataDir,
    wanted: Option<u16>,
    talk: &Talk,
    clock: &SharedClock,
) -> anyhow::Result<(Process, u16)> {
    let mut port = wanted.unwrap_or(PORT_USUAL);
    for _ in 0..PORTS_TRIED_MAX {
        // Asked before, because a server that finds its port taken says so only after reading all its streams.
        let started = if is_free(port) {
            Process::start(binary, data, port, clock).await
        } else {
            Err(StartError::PortTaken(port))
        };
        match (started, wanted) {
            (Ok(process), _) => return Ok((process, port)),
            (Err(StartError::PortTaken(_)), None) => {
                let taken = port;
                port = free_port()?;
                talk.say(format!("port {taken} is taken; nats-server takes {port}"));
            }
            (Err(StartError::PortTaken(_)), Some(wanted)) => {
                bail!(
                    "port {wanted} of 127.0.0.1 is taken; stop what listens there, name another port, or leave --port out"
                )
            }
            (Err(StartError::Other(error)), _) => return Err(error),
        }
    }
    bail!("each of {PORTS_TRIED_MAX} ports was taken by somebody else; name a free one with --port")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((config::HOST, port)).is_ok()
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((config::HOST, 0)).context("127.0.0.1 has no free port")?;
    Ok(listener.local_addr().context("127.0.0.1 has no free port")?.port())
}

struct Keeper {
    binary: PathBuf,
    data: Arc<DataDir>,
    port: u16,
    talk: Talk,
    clock: SharedClock,
    stop: CancellationToken,
}

impl Keeper {
    /// Watches the server, starts it again when it ends, and ends it when told to.
    async fn keep(self, process: Process) {
        let mut running = Some(process);
        let mut backoff = Backoff::default();
        let mut started = self.clock.elapsed();
        while !self.stop.is_cancelled() {
            let how = match running.as_mut() {
                Some(process) => tokio::select! {
                    () = self.stop.cancelled() => break,
                    how = process.ends() => format!("ended ({how})"),
                },
                None => "is not running".to_owned(),
            };
            running = None;
            let wait = backoff.after(self.clock.elapsed().saturating_sub(started));
            self.talk.say(format!("nats-server {how}; starting it again in {}", HumanDuration(wait)));
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.clock.sleep(wait) => {}
            }
            started = self.clock.elapsed();
            tokio::select! {
                () = self.stop.cancelled() => break,
                again = self.start_again() => running = again,
            }
        }
        if let Some(process) = running
            && !process.stop(&self.clock).await
        {
            let log = self.data.file(config::LOG);
            self.talk
                .say(format!("nats-server does not end; its guard goes on ending it, see {}", log.display()));
        }
        self.data.remove_address();
    }

    async fn start_again(&self) -> Option<Process> {
        // Its guard may have died and not the server.
        let started = match orphan::end(&self.data, &self.talk, &self.clock).await {
            Ok(()) => Process::start(&self.binary, &self.data, self.port, &self.clock).await,
            Err(error) => Err(error.into()),
        };
        match started {
            Ok(process) => {
                self.talk.say(format!("nats-server is back on port {}", self.port));
                Some(process)
            }
            Err(error) => {
                self.talk.say(format!("nats-server does not start: {error}"));
                None
            }
        }
    }
}
