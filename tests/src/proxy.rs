//! A network that a spec can cut: what goes in while it is cut comes out when it is mended, as TCP does it.

use std::{net::TcpListener, thread::JoinHandle};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// A way to one server. It works on a thread of its own, so that it goes on while a spec waits for a command.
pub struct Proxy {
    port: u16,
    whole: watch::Sender<bool>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A way to the server at this address (`nats://127.0.0.1:4222`).
    pub fn to(url: &str) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let (whole, is_whole) = watch::channel(true);
        let stop = CancellationToken::new();
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, server, is_whole) => {}
                    () = until.cancelled() => {}
                }
            });
        });
        Self { port, whole, stop, thread: Some(thread) }
    }

    /// Its address, as a server's.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Nothing passes any more, in either direction. Nobody is told.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// All passes again, what was sent meanwhile first.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, server: String, whole: watch::Receiver<bool>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(pass(from_client, to_server, whole.clone()));
        tokio::spawn(pass(from_server, to_client, whole.clone()));
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut whole: watch::Receiver<bool>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        if whole.wait_for(|whole| *whole).await.is_err() || to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}
