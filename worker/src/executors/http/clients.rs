//! The HTTP clients of a worker: one for all targets with nothing special, and one for each other way to connect, so that
//! every target keeps its connections from one attempt to the next.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, Once, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use shared::{
    clock::SharedClock,
    connection::TlsSettings,
    limits::{CONNECT_TIMEOUT_DEFAULT, HTTP_CLIENT_KEPT, HTTP_CLIENTS_MAX, PEM_BYTES_MAX},
    run_record::ErrorKind,
    target::Target,
};

use super::HttpSetupError;
use crate::executors::{Failure, answer::with_causes};

/// How long an idle connection is kept: less than common servers keep theirs (5 s), so that a request is not sent
/// into a connection that its other end is just closing.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How often a silent connection is checked, so that a target whose machine is gone is noticed before the timeout.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// All clients. Clones share them.
#[derive(Clone)]
pub(super) struct Clients {
    usual: Client,
    others: Arc<Mutex<HashMap<Way, Made>>>,
    clock: SharedClock,
}

/// What connections differ in.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Way {
    tls: TlsSettings,
    connect_timeout: Duration,
    /// The host to connect to, if requests name another one.
    host: Option<String>,
}

struct Made {
    client: Client,
    at: Duration,
}

impl Clients {
    pub(super) fn new(clock: SharedClock) -> Result<Self, HttpSetupError> {
        install_crypto();
        let usual = match settings(CONNECT_TIMEOUT_DEFAULT).build() {
            Ok(client) => client,
            // A machine or container without CA certificates can still reach targets over http://.
            Err(error) => {
                let client = settings(CONNECT_TIMEOUT_DEFAULT).tls_certs_only([]).build();
                let client = client.map_err(|_| HttpSetupError(with_causes(&error)))?;
                tracing::warn!(
                    error = %with_causes(&error),
                    "No CA certificates: every https:// target will be refused; install ca-certificates or set SSL_CERT_FILE"
                );
                client
            }
        };
        Ok(Self { usual, others: Arc::default(), clock })
    }

    /// The client that shows no certificate and trusts whom the machine trusts.
    pub(super) fn usual(&self) -> &Client {
        &self.usual
    }

    /// The client for this target, and the URL to hand it: its host is the name of the target's certificate.
    pub(super) async fn of(&self, target: &Target, url: Url) -> Result<(Client, Url), Failure> {
        let (url, host) = named(url, &target.tls);
        let way = Way { tls: target.tls.clone(), connect_timeout: target.connect_timeout, host };
        if way.tls == TlsSettings::default() && way.connect_timeout == CONNECT_TIMEOUT_DEFAULT {
            return Ok((self.usual.clone(), url));
        }
        if let Some(client) = self.made(&way) {
            return Ok((client, url));
        }
        let client = make(&way).await.map_err(|words| Failure::retryable(ErrorKind::Request, words))?;
        self.keep(way, client.clone());
        Ok((client, url))
    }

    fn made(&self, way: &Way) -> Option<Client> {
        let now = self.clock.elapsed();
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others
            .get(way)
            .filter(|made| now.saturating_sub(made.at) < HTTP_CLIENT_KEPT)
            .map(|made| made.client.clone())
    }

    fn keep(&self, way: Way, client: Client) {
        let at = self.clock.elapsed();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() >= HTTP_CLIENTS_MAX && !others.contains_key(&way) {
            // The oldest is made again when it is asked for; requests on it go on.
            let oldest = others.iter().min_by_key(|(_, made)| made.at).map(|(way, _)| way.clone());
            oldest.map(|way| others.remove(&way));
        }
        others.insert(way, Made { client, at });
    }
}

/// The URL as requests name it, and the host to connect to if that is another.
fn named(mut url: Url, tls: &TlsSettings) -> (Url, Option<String>) {
    let Some(name) = &tls.server_name else { return (url, None) };
    let host = url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
    match url.set_host(Some(name)) {
        Ok(()) => (url, host),
        Err(_) => (url, None),
    }
}

/// rustls asks for one provider per process; async-nats may have installed the same one already.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that one is installed: whoever was first has decided.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn settings(connect_timeout: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("cronfleet/", env!("CARGO_PKG_VERSION")))
        // Followed by us, where they are allowed: what goes along depends on where they lead.
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .gzip(true)
        // The features are off; these lines hold when another crate turns them on.
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE_MAX)
        .tcp_keepalive(KEEPALIVE)
}

async fn make(way: &Way) -> Result<Client, String> {
    let mut builder = settings(way.connect_timeout);
    let unfit = |path: &str, error: &reqwest::Error| {
        format!("tls: {path} is not what it should be ({}); it is a PEM file", with_causes(error))
    };
    if let Some(path) = &way.tls.ca {
        let trusted = Certificate::from_pem_bundle(&pem(path).await?).map_err(|error| unfit(path, &error))?;
        if trusted.is_empty() {
            return Err(format!(
                "tls: {path} holds no certificate; it is a PEM file with those that are trusted"
            ));
        }
        builder = builder.tls_certs_only(trusted);
    }
    if let (Some(cert), Some(key)) = (&way.tls.cert, &way.tls.key) {
        let both = [pem(cert).await?, b"\n".to_vec(), pem(key).await?].concat();
        builder = builder.identity(Identity::from_pem(&both).map_err(|error| unfit(cert, &error))?);
    }
    if let Some(host) = &way.host {
        builder = builder.dns_resolver(Arc::new(Always(host.clone())));
    }
    builder.build().map_err(|error| format!("tls: {}", with_causes(&error)))
}

async fn pem(path: &str) -> Result<Vec<u8>, String> {
    let unreadable =
        |error: std::io::Error| format!("tls: {path} cannot be read on this worker ({error}); put it there");
    if tokio::fs::metadata(path).await.map_err(unreadable)?.len() > PEM_BYTES_MAX as u64 {
        return Err(format!("tls: {path} has more than {PEM_BYTES_MAX} bytes; it is a PEM file"));
    }
    tokio::fs::read(path).await.map_err(unreadable)
}

/// Resolves every name to where this host is.
struct Always(String);

impl Resolve for Always {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port is that of the URL.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
