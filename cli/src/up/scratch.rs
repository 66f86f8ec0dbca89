//! A server of its own for a while, in a folder that goes with it: what `bench` measures on.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use shared::clock::SharedClock;

use super::{data_dir::DataDir, server::Server, talk::Talk};

/// A running server with nothing on it.
pub(crate) struct ScratchServer {
    folder: PathBuf,
    server: Server,
}

impl ScratchServer {
    /// Starts one on a free port.
    pub(crate) async fn start(clock: SharedClock) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("cronfleet-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let data = Arc::new(DataDir::open(&folder)?);
        let server = Server::start(data, None, Talk::new(clock.clone()), clock).await?;
        Ok(Self { folder, server })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.server.address()
    }

    /// Ends it and removes its folder.
    pub(crate) async fn stop(self) {
        self.server.stop().await;
        // In the system's temporary folder: what cannot be removed now is removed with that.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
