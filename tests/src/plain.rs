//! A NATS client in sixty lines of the public protocol, to show that none of ours is needed
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).

use std::time::Duration;

use shared::clock::{Clock, SystemClock};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A connection that speaks the protocol by hand.
pub struct PlainClient {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainMessage {
    /// Its subject.
    pub subject: String,
    /// Where an answer is expected; none if none is.
    pub reply: Option<String>,
    /// Its headers, as they stand on the wire; the first line may hold a status.
    pub headers: String,
    /// Its body.
    pub payload: String,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl PlainClient {
    /// Connects to `nats://host:port`.
    pub async fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("nats://");
        let (reader, writer) = TcpStream::connect(address).await.expect("a connection").into_split();
        let mut client = Self { reader: BufReader::new(reader), writer };
        client.send("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n").await;
        while client.line().await != "PONG" {}
        client
    }

    async fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.expect("sent");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.expect("a line");
        line.trim_end().to_owned()
    }

    /// Subscribes, and returns when the server has it.
    pub async fn subscribe(&mut self, subject: &str) {
        self.send(&format!("SUB {subject} 1\r\nPING\r\n")).await;
        while self.line().await != "PONG" {}
    }

    /// Publishes with a reply subject of its own, and returns what the server answered.
    pub async fn request(&mut self, subject: &str, payload: &[u8]) -> PlainMessage {
        self.send("SUB answers.here 9\r\n").await;
        self.send(&format!("PUB {subject} answers.here {}\r\n", payload.len())).await;
        self.writer.write_all(payload).await.expect("sent");
        self.send("\r\n").await;
        let answer = self.next().await;
        self.send("UNSUB 9\r\n").await;
        answer
    }

    /// As [`PlainClient::request`], with one header.
    pub async fn request_with(
        &mut self,
        subject: &str,
        header: (&str, &str),
        payload: &[u8],
    ) -> PlainMessage {
        let headers = format!("NATS/1.0\r\n{}: {}\r\n\r\n", header.0, header.1);
        self.send("SUB answers.here 9\r\n").await;
        let whole = headers.len() + payload.len();
        self.send(&format!("HPUB {subject} answers.here {} {whole}\r\n{headers}", headers.len())).await;
        self.writer.write_all(payload).await.expect("sent");
        self.send("\r\n").await;
        let answer = self.next().await;
        self.send("UNSUB 9\r\n").await;
        answer
    }

    /// Answers a message, with these headers and nothing else.
    pub async fn answer(&mut self, message: &PlainMessage, headers: &[(&str, &str)]) {
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let lines = lines.concat();
        let (headers, reply) =
            (format!("NATS/1.0\r\n{lines}\r\n"), message.reply.as_deref().expect("a reply subject"));
        let length = headers.len();
        self.send(&format!("HPUB {reply} {length} {length}\r\n{headers}\r\n")).await;
    }

    /// The next message.
    pub async fn next(&mut self) -> PlainMessage {
        tokio::select! {
            message = self.read() => message,
            () = SystemClock.sleep(PATIENCE) => panic!("no message within {PATIENCE:?}"),
        }
    }

    async fn read(&mut self) -> PlainMessage {
        loop {
            let line = self.line().await;
            let words: Vec<&str> = line.split_whitespace().collect();
            let lengths = match words.as_slice() {
                ["PING"] => {
                    self.send("PONG\r\n").await;
                    continue;
                }
                ["MSG", _, _, length] | ["MSG", _, _, _, length] => (0, *length),
                ["HMSG", _, _, headers, length] | ["HMSG", _, _, _, headers, length] => {
                    (headers.parse().expect("a length"), *length)
                }
                _ => continue,
            };
            let subject = words[1].to_owned();
            // The subject, its subscription, perhaps a reply subject, and one or two lengths.
            let lengths_count = if words[0] == "HMSG" { 2 } else { 1 };
            let reply = (words.len() == 4 + lengths_count).then(|| words[3].to_owned());
            let length: usize = lengths.1.parse().expect("a length");
            let mut bytes = vec![0; length + 2];
            self.reader.read_exact(&mut bytes).await.expect("a message");
            bytes.truncate(length);
            let payload = bytes.split_off(lengths.0);
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            return PlainMessage { subject, reply, headers: text(bytes), payload: text(payload) };
        }
    }
}
