//! A real nats-server, on a free port, with a folder of its own.

use std::{
    io::BufRead as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use shared::clock::SystemClock;
use streams::{ConnectSettings, Streams};
use tempfile::TempDir;

use crate::{Process, repository};

/// A nats-server.
pub struct Nats {
    port: u16,
    folder: TempDir,
    extra: String,
    process: Option<Process>,
}

impl Nats {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts one with more lines in its settings.
    pub async fn start_with(extra: &str) -> Self {
        // Between our letting go of the port and the server's taking it another test may be faster: then again.
        for _ in 0..10 {
            let folder = TempDir::new().expect("a folder");
            let mut nats = Self { port: free_port(), folder, extra: extra.to_owned(), process: None };
            if nats.try_launch().await {
                return nats;
            }
        }
        panic!("no nats-server could be started in ten attempts");
    }

    async fn try_launch(&mut self) -> bool {
        self.launch();
        let give_up = 600;
        for _ in 0..give_up {
            if !self.process.as_mut().is_some_and(Process::is_running) {
                return false;
            }
            if self.connect_settings_answer().await {
                return true;
            }
            crate::wait::for_a_while(Duration::from_millis(50)).await;
        }
        false
    }

    /// What this server calls itself; no other has its folder.
    fn name(&self) -> String {
        let folder = self.folder.path().file_name().unwrap_or_default().to_string_lossy();
        format!("spec-{}", folder.replace(|c: char| !c.is_ascii_alphanumeric(), ""))
    }

    /// Whether it is this server that answers, and not one of another test that was faster to take the port.
    fn is_it(&self) -> bool {
        let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut info = String::new();
        let read = std::io::BufReader::new(stream).read_line(&mut info);
        read.is_ok() && info.contains(&format!("\"{}\"", self.name()))
    }

    async fn connect_settings_answer(&self) -> bool {
        if !self.is_it() {
            return false;
        }
        // With JetStream switched off by a spec the port is all there is to wait for.
        if self.extra.contains("# no jetstream") {
            return std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        }
        Streams::connect(&self.settings("harness"), SystemClock::shared()).await.is_ok()
    }

    fn launch(&mut self) {
        let store = self.folder.path().join("store");
        let jetstream = if self.extra.contains("# no jetstream") {
            String::new()
        } else {
            format!("jetstream {{ store_dir: \"{}\", max_file_store: 64GB }}\n", store.display())
        };
        let settings = format!(
            "listen: 127.0.0.1:{}\nserver_name: {}\n{jetstream}{}\n",
            self.port,
            self.name(),
            self.extra
        );
        let file = self.folder.path().join("nats.conf");
        std::fs::write(&file, settings).expect("settings");
        let mut command = Command::new(server_binary());
        command.arg("-c").arg(&file);
        self.process = Some(Process::start("nats-server", command, self.folder.path()));
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Settings to connect to it.
    pub fn settings(&self, client_name: &str) -> ConnectSettings {
        ConnectSettings { url: self.url(), client_name: client_name.to_owned(), ..ConnectSettings::default() }
    }

    /// A connection to it.
    pub async fn connect(&self) -> Streams {
        Streams::connect(&self.settings("spec"), SystemClock::shared()).await.expect("a connection")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
    }

    /// Starts it again, with the port and the data it had.
    pub async fn restart(&mut self) {
        self.kill();
        // Somebody may have taken the port for a moment.
        for _ in 0..10 {
            if self.try_launch().await {
                return;
            }
        }
        panic!("nats-server does not come back on port {}", self.port);
    }
}

/// Three nats-servers that are one cluster.
pub struct Cluster {
    servers: Vec<Nats>,
}

impl Cluster {
    /// Starts three and waits until streams of three replicas can be made.
    pub async fn start() -> Self {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let all: Vec<String> = routes.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let mut servers = Vec::new();
        for route in &routes {
            let extra = format!(
                "cluster {{ name: spec, listen: \"127.0.0.1:{route}\", routes: [{}] }}",
                all.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ")
            );
            let folder = TempDir::new().expect("a folder");
            let mut nats = Nats { port: free_port(), folder, extra, process: None };
            nats.launch();
            servers.push(nats);
        }
        let cluster = Self { servers };
        crate::eventually("a cluster that takes streams", async || {
            let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await;
            let streams = streams.map_err(|error| error.to_string())?;
            streams.init(streams::topology::Replicas::Three).await.map_err(|error| error.to_string())
        })
        .await;
        cluster
    }

    /// All addresses, separated by commas.
    pub fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// The address of one of the three.
    pub fn url_of(&self, number: usize) -> String {
        self.servers[number].url()
    }

    /// The name of one of the three, as servers call each other.
    pub fn name_of(&self, number: usize) -> String {
        self.servers[number].name()
    }

    /// Settings to connect to it.
    pub fn settings(&self) -> ConnectSettings {
        ConnectSettings { url: self.url(), client_name: "spec".to_owned(), ..ConnectSettings::default() }
    }

    /// A folder of its own.
    pub fn folder(&self) -> &Path {
        self.servers[0].folder()
    }

    /// kill -9 of one of the three.
    pub fn kill(&mut self, number: usize) {
        self.servers[number].kill();
    }

    /// Starts one again.
    pub async fn restart(&mut self, number: usize) {
        self.servers[number].restart().await;
    }
}

/// A port nobody listens on just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The nats-server that `make` found or installed.
pub fn server_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CRONFLEET_NATS_SERVER") {
        return path.into();
    }
    let installed = repository().join(".tools/bin/nats-server");
    if installed.exists() { installed } else { "nats-server".into() }
}
