//! `probe` (hidden): one question, for health checks in images that have no other tool: an HTTP GET, or whether the fleet
//! has heard lately of a planner or worker of this very machine.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;

use super::machine::host;
use crate::{GlobalArgs, exit::Exit, output::talk};

/// How long connecting, asking and each part of the answer may take.
const WAIT: Duration = Duration::from_secs(5);

/// The arguments of `probe`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ProbeArgs {
    /// What to ask: `http://host:port/path`
    pub url: Option<String>,

    /// Whether a member of this kind on this machine is heard by the fleet: it speaks to NATS, and its heartbeats are
    /// taken. Says nothing of other machines' members
    #[arg(long, value_name = "KIND", value_parser = ["planner", "worker"])]
    pub member: Option<String>,
}

/// Asks; done on 2xx, or if the member is heard.
pub async fn run(args: ProbeArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    if let Some(kind) = args.member {
        return member_is_heard(&kind, global).await;
    }
    let url = args.url.unwrap_or_default();
    let status = tokio::task::spawn_blocking({
        let url = url.clone();
        move || ask(&url)
    });
    let status = status.await?.with_context(|| url.clone())?;
    if (200..300).contains(&status) {
        return Ok(Exit::Done.into());
    }
    talk(format!("{url}: status {status}"));
    Ok(Exit::Error.into())
}

/// A member's id holds the name of its machine, which is the container's own. Silent members age out.
async fn member_is_heard(kind: &str, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let host = host();
    let members = streams.members().list().await?;
    streams.close().await;
    if members.iter().any(|member| member.id().is_of(kind, &host)) {
        return Ok(Exit::Done.into());
    }
    talk(format!("the fleet has not heard of a {kind} on {host} lately; see its log"));
    Ok(Exit::Error.into())
}

fn ask(url: &str) -> anyhow::Result<u16> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("only http:// is asked") };
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        bail!("a URL holds no blanks");
    }
    let with_port = if host.rsplit(']').next().unwrap_or(host).contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut last = None;
    for address in with_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(stream) => return status_of(stream, host, path),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("the host has no address"), Into::into))
}

fn status_of(mut stream: TcpStream, host: &str, path: &str) -> anyhow::Result<u16> {
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cronfleet\r\nConnection: close\r\n\r\n"
    )?;
    // `HTTP/1.1 200`: no more is needed, and no more is believed.
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let head = std::str::from_utf8(&head)?;
    match head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)).and_then(|code| code.parse().ok()) {
        Some(status) => Ok(status),
        None => bail!("the answer is not HTTP: {head:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn served(answer: &'static str) -> anyhow::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let url = format!("http://{}/healthz", listener.local_addr().expect("address"));
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut request, mut part) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut part).expect("a request");
                assert_ne!(read, 0, "{}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&part[..read]);
            }
            stream.write_all(answer.as_bytes()).expect("answered");
            String::from_utf8_lossy(&request).into_owned()
        });
        let status = ask(&url);
        let request = server.join().expect("request");
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        status
    }

    #[test]
    fn a_health_check_is_asked_and_its_status_is_read() {
        assert_eq!(served("HTTP/1.1 204 No Content\r\n\r\n").expect("status"), 204);
        assert_eq!(served("HTTP/1.0 503 Service Unavailable\r\n\r\nno").expect("status"), 503);
        assert!(served("SSH-2.0-OpenSSH_9.6\r\n").is_err());
    }

    #[test]
    fn what_is_no_plain_http_url_is_refused() {
        for url in ["https://a/", "ftp://a/", "http://a b/", "http://a/\r\nX: y", "http://127.0.0.1:1/"] {
            assert!(ask(url).is_err(), "{url}");
        }
    }
}
