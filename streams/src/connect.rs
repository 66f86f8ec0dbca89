//! Connecting, and refusing servers that cannot keep the promises.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, jetstream};
use shared::{clock::SharedClock, known_timings::KnownTimings};

use crate::{Inner, Names, Namespace, Streams, link::Link, said::Said};

/// The oldest server that is supported: earlier ones lose per-subject limits under load and refuse schedules wrongly.
pub const SERVER_VERSION_MIN: (u32, u32, u32) = (2, 14, 5);

/// Between two attempts to reach a server again.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// How to reach NATS. The usual `NATS_*` variables fill it; see the command line's help.
#[derive(Clone, Default)]
pub struct ConnectSettings {
    /// Server addresses, separated by commas.
    pub url: String,
    /// The prefix of all names of the fleet.
    pub namespace: Namespace,
    /// How this connection shows up at the server.
    pub client_name: String,
    /// A file with user credentials.
    pub credentials: Option<PathBuf>,
    /// An nkey seed.
    pub nkey: Option<String>,
    /// A user, with a password.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// Certificates of authorities to trust.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, with its key.
    pub certificate: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key: Option<PathBuf>,
    /// Go on trying when no server answers at first; otherwise that is an error.
    pub wait_for_server: bool,
}

impl fmt::Debug for ConnectSettings {
    /// Without what must not get into a log: of secrets only whether they are there. The address may hold some, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |value: &Option<String>| value.as_ref().map(|_| "…");
        f.debug_struct("ConnectSettings")
            .field("namespace", &self.namespace)
            .field("client_name", &self.client_name)
            .field("credentials", &self.credentials)
            .field("nkey", &secret(&self.nkey))
            .field("user", &self.user)
            .field("password", &secret(&self.password))
            .field("token", &secret(&self.token))
            .field("ca", &self.ca)
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .field("wait_for_server", &self.wait_for_server)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers, or not with what we know.
    #[error(
        "cannot connect to NATS at {url}: {detail}; is the server running, and are the credentials right?"
    )]
    Unreachable {
        /// The addresses tried.
        url: String,
        /// The client's words.
        detail: String,
    },
    /// A server too old.
    #[error(
        "nats-server at {url} is {found}; {min_major}.{min_minor}.{min_patch} or newer is needed: upgrade it",
        min_major = SERVER_VERSION_MIN.0, min_minor = SERVER_VERSION_MIN.1, min_patch = SERVER_VERSION_MIN.2
    )]
    TooOld {
        /// The addresses tried.
        url: String,
        /// Its version.
        found: String,
    },
    /// A server without `JetStream`, or an account without.
    #[error(
        "nats-server at {url} has no JetStream for this account ({detail}); start it with `-js`, or enable JetStream for the account"
    )]
    NoJetStream {
        /// The addresses tried.
        url: String,
        /// The server's words.
        detail: String,
    },
    /// A certificate or credentials file that cannot be read.
    #[error("{what} {path}: {source}")]
    File {
        /// What the file was for.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A user without a password.
    #[error("a user is given without a password; set both NATS_USER and NATS_PASSWORD, or neither")]
    HalfUser,
}

impl Streams {
    /// Connects and checks that the server can keep the promises.
    pub async fn connect(settings: &ConnectSettings, clock: SharedClock) -> Result<Self, ConnectError> {
        let link = Link::default();
        let client = connect_client(settings, &link, &clock).await?;
        check_version(&settings.url, &client.server_info().version)?;
        let jetstream = jetstream::new(client.clone());
        jetstream.query_account().await.map_err(|error| ConnectError::NoJetStream {
            url: shown(&settings.url),
            detail: error.to_string(),
        })?;
        let names = Names::new(settings.namespace.clone());
        let timings = KnownTimings::default();
        Ok(Self { inner: Arc::new(Inner { client, jetstream, names, clock, timings, link }) })
    }
}

async fn connect_client(
    settings: &ConnectSettings,
    link: &Link,
    clock: &SharedClock,
) -> Result<Client, ConnectError> {
    let (link, clock) = (link.clone(), clock.clone());
    let (said, addresses) = (Said::default(), shown(&settings.url));
    let mut options = ConnectOptions::new()
        .name(&settings.client_name)
        .custom_inbox_prefix(format!("_INBOX_{}", settings.namespace))
        .reconnect_delay_callback(|attempt| {
            // Quick at first: a restarted server is back within a second. Never a hot loop.
            Duration::from_millis(50 * (attempt as u64).min(40)).min(RECONNECT_WAIT_MAX)
        })
        .event_callback(move |event| {
            let now = clock.elapsed();
            link.note(&event, now);
            said.say(&event, &addresses, now);
            std::future::ready(())
        });
    if settings.wait_for_server {
        options = options.retry_on_initial_connect();
    }
    if let Some(path) = &settings.credentials {
        options = options.credentials_file(path).await.map_err(|source| ConnectError::File {
            what: "credentials",
            path: path.clone(),
            source,
        })?;
    }
    if let Some(seed) = &settings.nkey {
        options = options.nkey(seed.clone());
    }
    options = match (&settings.user, &settings.password) {
        (Some(user), Some(password)) => options.user_and_password(user.clone(), password.clone()),
        (None, None) => options,
        _ => return Err(ConnectError::HalfUser),
    };
    if let Some(token) = &settings.token {
        options = options.token(token.clone());
    }
    if let Some(path) = &settings.ca {
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let servers: Vec<&str> = settings.url.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    let unreachable = |detail: String| ConnectError::Unreachable { url: shown(&settings.url), detail };
    let client = options.connect(servers).await.map_err(|error| unreachable(error.to_string()))?;
    if settings.wait_for_server {
        // `retry_on_initial_connect` returns at once; a flush returns when there is somebody to talk to.
        client.flush().await.map_err(|error| unreachable(error.to_string()))?;
    }
    Ok(client)
}

/// Addresses without the passwords that may be in them. A password may hold commas, and an address may lack its scheme: so
/// whatever stands before an `@` is hidden, at worst with an address that had no password.
fn shown(url: &str) -> String {
    let mut parts = url.split('@').peekable();
    let mut shown = String::new();
    while let Some(part) = parts.next() {
        let is_first = shown.is_empty();
        // After an `@` comes a host, and after its comma the next address.
        let (host, next) = if is_first { ("", part) } else { part.split_once(',').unwrap_or((part, "")) };
        let comma = if is_first || next.is_empty() { "" } else { "," };
        let hidden = match (parts.peek(), next.find("://")) {
            (None, _) => next.to_owned(),
            (Some(_), Some(at)) => format!("{}***@", &next[..at + 3]),
            (Some(_), None) => "***@".to_owned(),
        };
        shown = format!("{shown}{host}{comma}{hidden}");
    }
    shown
}

fn check_version(url: &str, found: &str) -> Result<(), ConnectError> {
    let numbers: Vec<u32> = found
        .split(['.', '-', '+'])
        .take(3)
        .map(|part| part.parse().unwrap_or(0))
        .chain(std::iter::repeat(0))
        .take(3)
        .collect();
    if (numbers[0], numbers[1], numbers[2]) < SERVER_VERSION_MIN {
        return Err(ConnectError::TooOld { url: shown(url), found: found.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_printed_tell_no_secret() {
        let secret = || Some("s3cret".to_owned());
        let settings = ConnectSettings {
            url: "nats://me:s3cret@127.0.0.1".to_owned(),
            nkey: secret(),
            password: secret(),
            token: secret(),
            ..ConnectSettings::default()
        };
        let printed = format!("{settings:?}");
        assert!(!printed.contains("s3cret") && printed.contains("password: Some"), "{printed}");
    }

    #[test]
    fn servers_too_old_are_refused_and_newer_ones_are_not() {
        for (version, ok) in [
            ("2.14.4", false),
            ("2.14.5", true),
            ("2.15.0-RC.1", true),
            ("2.15.1", true),
            ("3.0.0", true),
            ("2.9.25", false),
            ("", false),
        ] {
            assert_eq!(check_version("nats://x", version).is_ok(), ok, "{version}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        for (url, expected) in [
            ("nats://a:secret@h:4222,nats://b:4222", "nats://***@h:4222,nats://b:4222"),
            ("nats://b:4222,tls://c:4222", "nats://b:4222,tls://c:4222"),
            ("a:secret@h:4222", "***@h:4222"),
            ("nats://a:se,cret@h:4222", "nats://***@h:4222"),
            ("nats://b:4222,nats://a:secret@h:4222,a:secret@i", "nats://***@h:4222,***@i"),
            ("nats://a:secret@h,nats://a:secret@i,nats://c", "nats://***@h,nats://***@i,nats://c"),
            ("", ""),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
