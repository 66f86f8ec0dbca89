//! Where the fleet is and who we are there: flags, then environment, then a context of the `nats` tool.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use shared::clock::SharedClock;
use streams::{ConnectSettings, Namespace, Streams};

use crate::{
    args::GlobalArgs,
    output::{Output, talk},
};

/// Where a server is looked for when nothing else says.
pub const URL_DEFAULT: &str = "nats://127.0.0.1:4222";
/// Where `cronfleet up` keeps its data when it is not told.
pub const DATA_DIR_DEFAULT: &str = ".cronfleet";
/// In that directory: the address of the server that `cronfleet up` runs, in one line.
pub const ADDRESS_FILE: &str = "address";
/// In that directory: the file that `cronfleet up` keeps locked for as long as it lives.
pub const LOCK_FILE: &str = "lock";
/// How long a server on this very machine may take to accept a connection.
const LOCAL_ANSWER_WAIT: Duration = Duration::from_millis(300);

/// The variables of the environment that are read here; empty ones count as absent.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// A context as the `nats` tool writes it; it has more fields, which do not concern us.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ContextFile {
    url: String,
    creds: String,
    nkey: String,
    user: String,
    password: String,
    token: String,
    ca: String,
    cert: String,
    key: String,
}

impl GlobalArgs {
    /// How to reach the fleet. `client` is how the connection shows up at the server.
    pub fn connect_settings(&self, client: &str) -> anyhow::Result<ConnectSettings> {
        resolve(self, &Environment::of_process(), client)
    }

    /// Connects as a verb does: a server that does not answer is an error.
    pub async fn connect(&self) -> anyhow::Result<Streams> {
        let settings = self.connect_settings("cronfleet-cli")?;
        Ok(Streams::connect(&settings, self.clock()).await?)
    }

    /// Connects as a process that stays: it waits for the server.
    pub async fn connect_patiently(&self, client: &str) -> anyhow::Result<Streams> {
        let settings = ConnectSettings { wait_for_server: true, ..self.connect_settings(client)? };
        Ok(Streams::connect(&settings, self.clock()).await?)
    }

    /// Where data is written.
    pub fn output(&self) -> Output {
        Output::new(self.output)
    }

    /// The clock that is handed down.
    pub fn clock(&self) -> SharedClock {
        self.clock.0.clone()
    }
}

fn resolve(global: &GlobalArgs, environment: &Environment, client: &str) -> anyhow::Result<ConnectSettings> {
    let context = match environment.get("NATS_CONTEXT") {
        Some(name) => read_context(&name, environment)?,
        None => ContextFile::default(),
    };
    let text = |variable: &str, field: &str| environment.get(variable).or_else(|| not_empty(field));
    let path = |variable: &str, field: &str| {
        environment
            .path(variable)
            .or_else(|| not_empty(field).map(PathBuf::from))
            .map(|path| expand(path, environment))
    };
    let nkey = text("NATS_NKEY", &context.nkey).map(|text| read_nkey(&text, environment)).transpose()?;
    let url = match global.url.as_deref().and_then(not_empty).or_else(|| not_empty(&context.url)) {
        Some(url) => url,
        None => address_of_up(environment).unwrap_or_else(|| URL_DEFAULT.to_owned()),
    };
    let namespace = match global.namespace.as_deref().and_then(not_empty) {
        Some(namespace) => namespace.parse().context("the namespace (--namespace, CRONFLEET_NAMESPACE)")?,
        None => Namespace::default(),
    };
    let (certificate, key) = (path("NATS_CERT", &context.cert), path("NATS_KEY", &context.key));
    if certificate.is_some() != key.is_some() {
        bail!(
            "a client certificate needs its key, and a key its certificate; set both NATS_CERT and NATS_KEY, or neither"
        );
    }
    Ok(ConnectSettings {
        url,
        namespace,
        client_name: client.to_owned(),
        credentials: path("NATS_CREDS", &context.creds),
        nkey,
        user: text("NATS_USER", &context.user),
        password: text("NATS_PASSWORD", &context.password),
        token: text("NATS_TOKEN", &context.token),
        ca: path("NATS_CA", &context.ca),
        certificate,
        key,
        wait_for_server: false,
    })
}

fn not_empty(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// `~/` as a shell would read it: contexts are written by hand.
fn expand(path: PathBuf, environment: &Environment) -> PathBuf {
    match (path.strip_prefix("~"), environment.path("HOME")) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn read_context(name: &str, environment: &Environment) -> anyhow::Result<ContextFile> {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        bail!(
            "NATS_CONTEXT is {name:?}; it is the name of a context, as `nats context ls` shows it, not a path"
        );
    }
    let config =
        environment.path("XDG_CONFIG_HOME").or_else(|| Some(environment.path("HOME")?.join(".config")));
    let Some(config) = config else {
        bail!("NATS_CONTEXT is {name:?}, but there is no HOME to look for it in")
    };
    let path = config.join("nats/context").join(format!("{name}.json"));
    let explain = || format!("context {name:?} (NATS_CONTEXT): {}", path.display());
    let text = std::fs::read_to_string(&path).with_context(explain)?;
    serde_json::from_str(&text).with_context(explain)
}

/// A seed begins with `S` and is no path; anything else is a file with one, as the `nats` tool has it.
fn read_nkey(text: &str, environment: &Environment) -> anyhow::Result<String> {
    let is_seed = text.starts_with('S') && text.len() > 50 && text.chars().all(|c| c.is_ascii_alphanumeric());
    if is_seed {
        return Ok(text.to_owned());
    }
    let path = expand(PathBuf::from(text), environment);
    let seed =
        std::fs::read_to_string(&path).with_context(|| format!("nkey (NATS_NKEY): {}", path.display()))?;
    Ok(seed.trim().to_owned())
}

/// The address of the `cronfleet up` that runs in this directory, if one does.
fn address_of_up(environment: &Environment) -> Option<String> {
    let directory = environment.path("CRONFLEET_DATA_DIR").unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT));
    let file = directory.join(ADDRESS_FILE);
    let (url, address) = read_address(&file)?;
    if TcpStream::connect_timeout(&address, LOCAL_ANSWER_WAIT).is_ok() {
        return Some(url);
    }
    let is_held = is_held(&directory.join(LOCK_FILE));
    talk(format!("{} says {url}, but {}", file.display(), nobody_there(&url, is_held)));
    is_held.then_some(url)
}

/// Whether the `cronfleet up` of a data directory lives: it holds the lock for as long, and its number is in the file.
///
/// Asked of the kernel's list, not by trying the lock: an `up` that starts in this very moment must not find it taken.
fn is_held(lock: &Path) -> bool {
    let Ok(holder) = std::fs::read_to_string(lock) else { return false };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK  ADVISORY  WRITE 19358 fe:00:10608912 0 EOF`
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"FLOCK")
            && words.get(3) == Some(&"WRITE")
            && words.get(4) == Some(&holder.trim())
    })
}

/// Why nobody listens at the address of an `up`, and what comes of it.
fn nobody_there(url: &str, is_held: bool) -> String {
    if is_held {
        return "its server is not there just now: `cronfleet up` is starting it again; try again in a moment"
            .to_owned();
    }
    let next = if url == URL_DEFAULT { String::new() } else { format!("; trying {URL_DEFAULT}") };
    format!("nobody listens there: `cronfleet up` has ended{next}")
}

/// Only a loopback address is believed: credentials must not go where a file in some directory says.
fn read_address(file: &Path) -> Option<(String, SocketAddr)> {
    let text = std::fs::read_to_string(file).ok()?;
    let url = text.trim();
    let address: SocketAddr = url.strip_prefix("nats://")?.parse().ok()?;
    address.ip().is_loopback().then(|| (url.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn with_url(url: &str) -> GlobalArgs {
        GlobalArgs { url: Some(url.to_owned()), ..GlobalArgs::default() }
    }

    /// A home with the context `prod`; the directory lives as long as the first value.
    fn home(context: &str) -> (tempfile::TempDir, String) {
        let home = tempfile::tempdir().expect("directory");
        let directory = home.path().join(".config/nats/context");
        std::fs::create_dir_all(&directory).expect("directories");
        std::fs::write(directory.join("prod.json"), context).expect("file");
        let path = home.path().display().to_string();
        (home, path)
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_context() {
        let (_home, home) = home(
            r#"{"description":"x","url":"nats://context:1","user":"ctx","password":"secret","ca":"~/ca.pem","nsc":"","color_scheme":""}"#,
        );
        let context = environment(&[("HOME", &home), ("NATS_CONTEXT", "prod"), ("NATS_USER", "env")]);
        let settings = resolve(&GlobalArgs::default(), &context, "test").expect("settings");
        assert_eq!(settings.url, "nats://context:1");
        assert_eq!((settings.user.as_deref(), settings.password.as_deref()), (Some("env"), Some("secret")));
        assert_eq!(settings.ca, Some(Path::new(&home).join("ca.pem")));
        assert_eq!(settings.token, None, "absent in the file");
        let settings = resolve(&with_url("nats://flag:1"), &context, "test").expect("settings");
        assert_eq!(settings.url, "nats://flag:1");
    }

    #[test]
    fn what_is_empty_counts_as_absent() {
        let nowhere = [
            ("CRONFLEET_DATA_DIR", "/nonexistent"),
            ("NATS_CONTEXT", ""),
            ("NATS_USER", ""),
            ("NATS_CREDS", ""),
        ];
        let settings = resolve(&with_url(" "), &environment(&nowhere), "test").expect("settings");
        assert_eq!((settings.url.as_str(), settings.user, settings.credentials), (URL_DEFAULT, None, None));
        assert_eq!(settings.namespace, Namespace::default());
    }

    #[test]
    fn a_running_up_is_found_and_one_that_has_ended_is_not() {
        let data = tempfile::tempdir().expect("directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let url = format!("nats://{}", listener.local_addr().expect("address"));
        std::fs::write(data.path().join(ADDRESS_FILE), format!("{url}\n")).expect("file");
        let data_dir = data.path().display().to_string();
        let variables = environment(&[("CRONFLEET_DATA_DIR", &data_dir)]);
        let found = || resolve(&GlobalArgs::default(), &variables, "test").expect("settings").url;
        assert_eq!(found(), url);
        assert_eq!(
            resolve(&with_url("nats://flag:1"), &variables, "test").expect("settings").url,
            "nats://flag:1"
        );
        drop(listener);
        assert_eq!(found(), URL_DEFAULT);
    }

    #[test]
    fn an_up_whose_server_is_being_started_again_is_not_said_to_have_ended() {
        let data = tempfile::tempdir().expect("directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let url = format!("nats://{}", listener.local_addr().expect("address"));
        drop(listener);
        std::fs::write(data.path().join(ADDRESS_FILE), format!("{url}\n")).expect("file");
        let lock = std::fs::File::create(data.path().join(LOCK_FILE)).expect("lock");
        lock.try_lock().expect("locked");
        std::fs::write(data.path().join(LOCK_FILE), format!("{}\n", std::process::id())).expect("written");
        let data_dir = data.path().display().to_string();
        let variables = environment(&[("CRONFLEET_DATA_DIR", &data_dir)]);
        let found = || resolve(&GlobalArgs::default(), &variables, "test").expect("settings").url;
        assert!(is_held(&data.path().join(LOCK_FILE)));
        assert_eq!(found(), url, "it is where the server comes back");
        drop(lock);
        assert!(!is_held(&data.path().join(LOCK_FILE)));
        assert_eq!(found(), URL_DEFAULT);
    }

    #[test]
    fn who_is_not_there_is_told_apart_and_the_same_address_is_no_other() {
        assert!(nobody_there(URL_DEFAULT, true).contains("starting it again"));
        assert!(nobody_there(URL_DEFAULT, false).ends_with("has ended"));
        assert!(nobody_there("nats://127.0.0.1:4333", false).ends_with(&format!("trying {URL_DEFAULT}")));
    }

    #[test]
    fn an_address_file_cannot_send_credentials_away() {
        let data = tempfile::tempdir().expect("directory");
        let file = data.path().join(ADDRESS_FILE);
        for text in [
            "nats://192.0.2.1:4222",
            "nats://evil.example:4222",
            "tls://127.0.0.1:4222",
            "",
            "127.0.0.1:4222",
        ] {
            std::fs::write(&file, text).expect("file");
            assert_eq!(read_address(&file), None, "{text:?}");
        }
    }

    #[test]
    fn a_setting_that_cannot_be_kept_says_which() {
        let (_home, home) = home("{");
        for (variables, part) in [
            (vec![("HOME", home.as_str()), ("NATS_CONTEXT", "prod")], "prod.json"),
            (vec![("HOME", home.as_str()), ("NATS_CONTEXT", "other")], "other.json"),
            (vec![("NATS_CONTEXT", "../prod")], "not a path"),
            (vec![("NATS_CONTEXT", "prod")], "no HOME"),
            (vec![("NATS_CERT", "c.pem")], "both NATS_CERT and NATS_KEY"),
            (vec![("NATS_NKEY", "/nonexistent/seed")], "NATS_NKEY"),
        ] {
            let error = resolve(&with_url("nats://x"), &environment(&variables), "test").expect_err(part);
            let message = crate::exit::explain(&error);
            assert!(message.contains(part), "{message}");
        }
        let bad = GlobalArgs { namespace: Some("a.b".into()), ..with_url("nats://x") };
        assert!(
            crate::exit::explain(&resolve(&bad, &Environment::default(), "test").expect_err("dot"))
                .contains("try \"a_b\"")
        );
    }

    #[test]
    fn an_nkey_is_a_seed_or_a_file_with_one() {
        let seed = format!("SU{}", "A".repeat(56));
        let variables = environment(&[("NATS_NKEY", &seed)]);
        assert_eq!(
            resolve(&with_url("nats://x"), &variables, "test").expect("seed").nkey,
            Some(seed.clone())
        );
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), format!("{seed}\n")).expect("written");
        let path = file.path().display().to_string();
        let variables = environment(&[("NATS_NKEY", &path)]);
        assert_eq!(resolve(&with_url("nats://x"), &variables, "test").expect("file").nkey, Some(seed));
    }
}
