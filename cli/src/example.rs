//! The services of the examples, run alone: `cronfleet example marketprism SERVICE --listen ADDR --data-dir DIR`.
//!
//! For `docker-compose.yml`; `cronfleet up --example` runs them all in its own process.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{Router, http::StatusCode, routing::get};
use marketprism::{Collector, SERVICES};
use shared::clock::{SharedClock, SystemClock};
use streams::{Bytes, Streams, responder::ServiceError};
use tokio_util::sync::CancellationToken;

use crate::{GlobalArgs, exit::Exit, signals};

pub(crate) const MARKETPRISM: &str = "marketprism";
/// The service that is asked over NATS.
pub(crate) const COLLECTOR: &str = "market-data-collector";
/// The subjects it answers on begin so.
pub(crate) const COLLECTOR_SUBJECT: &str = "svc.market-data-collector";

/// The market is invented from this number: the same everywhere, so that people see the same figures.
const SEED: u64 = 20_261_101;
/// Requests under way when it is told to stop have this long; a repeat finds what they did.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// A service that is asked over HTTP.
pub(crate) struct HttpService {
    /// Its name, as the schedules use it.
    pub(crate) name: &'static str,
    /// The port it has if that is free.
    pub(crate) port: u16,
    open: fn(&marketprism::Settings) -> anyhow::Result<Router>,
}

/// The services that are asked over HTTP.
pub(crate) const HTTP_SERVICES: [HttpService; 3] = [
    HttpService { name: "data-storage-service", port: 9101, open: marketprism::data_storage_router },
    HttpService { name: "monitoring-service", port: 9102, open: marketprism::monitoring_router },
    HttpService { name: "api-gateway-service", port: 9103, open: marketprism::api_gateway_router },
];

impl HttpService {
    /// Opens its data; what it answers with.
    pub(crate) async fn router(&self, settings: &marketprism::Settings) -> anyhow::Result<Router> {
        let (open, settings) = (self.open, settings.clone());
        tokio::task::spawn_blocking(move || open(&settings)).await?
    }
}

/// What the example's services are told.
pub(crate) fn settings(data_dir: PathBuf, clock: SharedClock) -> marketprism::Settings {
    marketprism::Settings { data_dir, seed: SEED, now: std::sync::Arc::new(move || clock.now()) }
}

/// Serves HTTP until it is told to stop and what was under way is done, or has had its time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let out_of_time = async {
        stop.cancelled().await;
        SystemClock::shared().sleep(STOP_WAIT).await;
    };
    tokio::select! {
        ended = serving => Ok(ended?),
        () = out_of_time => Ok(()),
    }
}

/// Answers requests to the collector over NATS until it is told to stop.
pub(crate) async fn collect(
    streams: &Streams,
    settings: marketprism::Settings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let collector = tokio::task::spawn_blocking(move || Collector::open(&settings)).await??;
    let answer = move |action: String, body: Bytes| {
        let collector = collector.clone();
        async move {
            match collector.handle(&action, &body).await {
                Ok(answer) => Ok(Bytes::from(answer.to_string())),
                Err(error) => Err(ServiceError { code: error.code, message: error.message }),
            }
        }
    };
    Ok(streams.respond(COLLECTOR, COLLECTOR_SUBJECT, answer, stop).await?)
}

/// Run one service of an example alone, until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cronfleet example marketprism data-storage-service --listen 0.0.0.0:9101 --data-dir /data"
)]
pub struct ExampleArgs {
    /// The example.
    #[arg(value_name = "EXAMPLE", value_parser = [MARKETPRISM])]
    example: String,
    /// The service.
    #[arg(value_name = "SERVICE", value_parser = SERVICES)]
    service: String,
    /// Where it listens. The collector, which is asked over NATS, answers its health check there.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where its data is; created and filled if it is absent.
    #[arg(long, value_name = "DIR", env = "CRONFLEET_DATA_DIR")]
    data_dir: PathBuf,
}

/// Runs the service until SIGTERM or ctrl-C.
pub async fn run(args: ExampleArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let stop = signals::listen()?.drain;
    let settings = settings(args.data_dir.clone(), global.clock());
    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("{} cannot be listened on", args.listen))?;
    let seeded = settings.clone();
    tokio::task::spawn_blocking(move || marketprism::seed_if_empty(&seeded)).await??;

    if let Some(service) = HTTP_SERVICES.iter().find(|service| service.name == args.service) {
        let router = service.router(&settings).await?;
        tracing::info!("{} listens on http://{}", service.name, listener.local_addr()?);
        serve(listener, router, stop).await?;
        return Ok(Exit::Done.into());
    }
    if args.service != COLLECTOR {
        bail!("{} is a service without a server; known are {}", args.service, SERVICES.join(", "));
    }
    let streams = tokio::select! {
        streams = global.connect_patiently(COLLECTOR) => streams?,
        () = stop.cancelled() => return Ok(Exit::Done.into()),
    };
    let health = health(streams.clone());
    tracing::info!("{COLLECTOR} answers on {COLLECTOR_SUBJECT}.<action>");
    let result = tokio::select! {
        result = collect(&streams, settings, stop.clone()) => result,
        result = serve(listener, health, stop.child_token()), if !stop.is_cancelled() => result,
    };
    streams.close().await;
    result.map(|()| Exit::Done.into())
}

/// Healthy means: whoever asks over NATS gets an answer.
fn health(streams: Streams) -> Router {
    let answer = move || async move {
        if streams.is_connected() {
            (StatusCode::OK, "{\"status\":\"ok\"}")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "{\"error\":\"no connection to NATS\"}")
        }
    };
    Router::new().route("/healthz", get(answer))
}
