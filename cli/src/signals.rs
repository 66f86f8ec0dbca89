//! Being asked to stop, in stages: the first signal drains, the second hands back at once, the third ends the process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// How far the process has been asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    /// Asked once: begin nothing new, finish what is running.
    pub drain: CancellationToken,
    /// Asked twice: hand back what is running, now.
    pub abort: CancellationToken,
}

/// Listens for SIGTERM and SIGINT from now on. Call it once, inside the runtime.
pub fn listen() -> std::io::Result<Stages> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stages = Stages::default();
    let heard = stages.clone();
    tokio::spawn(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::info!(
            signal = name,
            "Stopping: {name} was received; a second one hands running work back at once"
        );
        heard.drain.cancel();
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "Handing running work back: {name} was received again");
        heard.abort.cancel();
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::error!(signal = name, "Ending at once: {name} was received a third time");
        std::process::exit(Exit::Error as i32);
    });
    Ok(stages)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
