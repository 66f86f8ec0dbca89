//! The console of `up`: on this machine only, unless a token is set.

use std::{net::SocketAddr, path::Path};

use console::{Console, ConsoleError, ConsoleSettings, settings::LISTEN_DEFAULT};
use streams::Streams;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::talk::Talk;
use crate::verbs::console::token;

/// A console that serves.
pub(super) struct OwnConsole {
    running: JoinHandle<()>,
    stop: CancellationToken,
    talk: Talk,
}

impl OwnConsole {
    /// Starts it where it is told, or at its usual address, or, where that is taken, at a free port.
    pub(super) async fn start(
        listen: Option<SocketAddr>,
        data_dir: &Path,
        streams: &Streams,
        talk: &Talk,
    ) -> anyhow::Result<Self> {
        let usual: SocketAddr = LISTEN_DEFAULT.parse()?;
        let settings = |listen| {
            let data_dir = data_dir.to_owned();
            anyhow::Ok(ConsoleSettings { listen, token: token(None)?, names: Vec::new(), data_dir })
        };
        let console = match Console::new(settings(listen.unwrap_or(usual))?, streams.clone()).await {
            // Somebody else's console, or another `up`.
            Err(ConsoleError::Listen { .. }) if listen.is_none() => {
                Console::new(settings(SocketAddr::new(usual.ip(), 0))?, streams.clone()).await?
            }
            console => console?,
        };
        talk.say(format!("console {}", console.url()));
        let stop = CancellationToken::new();
        let running = tokio::spawn(console.run(stop.clone()));
        Ok(Self { running, stop, talk: talk.clone() })
    }

    /// Stops it; what is under way has a few seconds.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        match self.running.await {
            Ok(()) => self.talk.say("the console has stopped"),
            Err(error) => self.talk.say(format!("the console has ended: {error}")),
        }
    }
}
