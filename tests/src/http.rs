//! An HTTP client of a few lines: it sends exactly what a spec says, also what no decent client would.

use std::{fmt::Write as _, time::Duration};

use serde_json::Value;
use shared::clock::{Clock, SystemClock};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(100);

/// A request under construction.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// Path and query, as they are sent.
    pub target: String,
    /// Headers; `Host` and `Content-Length` are added if they are not there.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// Headers, lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl HttpRequest {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// The same with a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with a body of JSON.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().as_bytes())
    }

    /// The same with a body.
    #[must_use]
    pub fn body(mut self, kind: &str, body: &[u8]) -> Self {
        body.clone_into(&mut self.body);
        self.header("Content-Type", kind)
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// Sends it to `host:port`, and reads the whole answer.
    pub async fn send(self, address: &str) -> HttpAnswer {
        let what = format!("{} {}", self.method, self.target.chars().take(200).collect::<String>());
        tokio::select! {
            answer = self.exchange(address) => answer,
            () = SystemClock.sleep(PATIENCE) => panic!("no answer to {what} within {PATIENCE:?}"),
        }
    }

    async fn write(&self, address: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !self.has("host") {
            let _ = write!(head, "Host: {address}\r\n");
        }
        if !self.has("content-length") && (!self.body.is_empty() || self.method != "GET") {
            let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        }
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(b"\r\n").await.expect("sent");
        // Who is refused early may find the connection closed while it still sends.
        let _ = stream.write_all(&self.body).await;
        stream
    }

    async fn exchange(self, address: &str) -> HttpAnswer {
        let mut stream = self.write(address).await;
        let mut bytes = Vec::new();
        // A reset after the answer is no loss.
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {self:?}: {text:?}"));
        let answer = HttpAnswer { body: body.to_owned(), ..head_of(head) };
        if answer.header("transfer-encoding") == Some("chunked") {
            return HttpAnswer { body: without_chunks(body), ..answer };
        }
        answer
    }

    /// Sends it, and reads the head of the answer: the body is read as it comes.
    pub async fn follow(self, address: &str) -> (HttpAnswer, Lines) {
        let stream = self.write(address).await;
        let mut lines = Lines { reader: BufReader::new(stream) };
        let mut head = String::new();
        loop {
            let line = lines.raw().await;
            if line.is_empty() {
                break;
            }
            let _ = write!(head, "{line}\r\n");
        }
        (head_of(&head), lines)
    }
}

fn head_of(head: &str) -> HttpAnswer {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    HttpAnswer { status: status.expect("a status"), headers, body: String::new() }
}

fn without_chunks(body: &str) -> String {
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        whole += after.get(..length).unwrap_or_default();
        rest = after.get(length + 2..).unwrap_or_default();
    }
    whole
}

impl HttpAnswer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as JSON, if the status is this one.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem, which is of this status and this kind.
    pub fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        problem
    }
}

/// A body that is read as it comes, line by line.
pub struct Lines {
    reader: BufReader<TcpStream>,
}

impl Lines {
    async fn raw(&mut self) -> String {
        let mut line = String::new();
        let read = async {
            self.reader.read_line(&mut line).await.expect("a line");
        };
        tokio::select! {
            () = read => {}
            () = SystemClock.sleep(PATIENCE) => panic!("no line within {PATIENCE:?}"),
        }
        assert!(!line.is_empty(), "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next server-sent event: its id, its kind, its data.
    pub async fn event(&mut self) -> (Option<String>, String, Value) {
        let (mut id, mut kind) = (None, String::new());
        loop {
            let line = self.raw().await;
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut kind);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (id, kind, serde_json::from_str(text).expect("JSON"));
            }
        }
    }
}
