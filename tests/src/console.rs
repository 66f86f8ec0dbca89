//! A console under test.

use serde_json::Value;

use crate::{
    Fleet, Process, eventually,
    http::{HttpAnswer, HttpRequest},
    nats::free_port,
};

/// A console of a fleet.
pub struct Console {
    /// Where it listens: `127.0.0.1:1234`.
    pub address: String,
    /// Its process.
    pub process: Process,
}

impl Console {
    /// Starts one and waits until it is ready.
    pub async fn start(fleet: &Fleet) -> Self {
        Self::start_with(fleet, &[], &[]).await
    }

    /// Starts one that is told more, and waits until it is ready.
    pub async fn start_with(fleet: &Fleet, arguments: &[&str], variables: &[(&str, String)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let data = fleet.folder().join(format!("console-{}", address.replace(':', "-")));
        let data = data.display().to_string();
        let all = [&["console", "--listen", &address, "--data-dir", &data], arguments].concat();
        let process = fleet.spawn_with("console", &all, variables);
        let console = Self { address, process };
        eventually("a console that is ready", async || {
            if tokio::net::TcpStream::connect(&console.address).await.is_err() {
                return Err(console.process.said());
            }
            let answer = console.get("/readyz").await;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        })
        .await;
        console
    }

    /// GET.
    pub async fn get(&self, target: &str) -> HttpAnswer {
        HttpRequest::new("GET", target).send(&self.address).await
    }

    /// POST of JSON.
    pub async fn post(&self, target: &str, body: &Value) -> HttpAnswer {
        HttpRequest::new("POST", target).json(body).send(&self.address).await
    }

    /// PUT of YAML.
    pub async fn put(&self, target: &str, body: &str) -> HttpAnswer {
        HttpRequest::new("PUT", target).body("application/yaml", body.as_bytes()).send(&self.address).await
    }

    /// Any request.
    pub async fn send(&self, request: HttpRequest) -> HttpAnswer {
        request.send(&self.address).await
    }
}
