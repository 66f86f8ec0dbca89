//! HTTP over TLS: whom a worker trusts, what it shows of itself, and under which name it asks.

use std::{path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};
use shared::{clock::SystemClock, run_record::ErrorKind};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};
use tokio_util::sync::CancellationToken;
use worker::executors::{Failure, http::HttpExecutor};

use crate::target::{archive, output, target_with};

/// An authority, and files with its certificate and one that it gave a client.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        let (cert, key) = Self::issue(&issuer, "worker", ExtendedKeyUsagePurpose::ClientAuth);
        std::fs::write(folder.path().join("cert.pem"), cert.pem()).expect("written");
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).expect("written");
        Self { issuer, folder }
    }

    fn issue(
        issuer: &CertifiedIssuer<'static, KeyPair>,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, issuer).expect("a certificate"), key)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A target with a certificate for this name, which asks for one in turn or does not. It answers with the host it was
    /// asked under.
    async fn serve(&self, name: &str, asks_for_certificate: bool) -> (String, JoinHandle<()>) {
        let (cert, key) = Self::issue(&self.issuer, name, ExtendedKeyUsagePurpose::ServerAuth);
        let mut trusted = RootCertStore::empty();
        trusted.add(self.issuer.der().clone()).expect("a certificate");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.expect("protocol versions");
        let builder = if asks_for_certificate {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = builder.with_single_cert(vec![cert.der().clone()], key).expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("https://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let Ok(mut connection) = acceptor.accept(connection).await else { continue };
                let mut asked = vec![0; 8 * 1024];
                let Ok(length) = connection.read(&mut asked).await else { continue };
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                let host = asked.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
                let host = host.split(':').next().unwrap_or_default();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n\"{host}\"",
                    host.len() + 2
                );
                let _ = connection.write_all(answer.as_bytes()).await;
                let _ = connection.shutdown().await;
            }
        });
        (base, serving)
    }
}

async fn ask(base: &str, tls: Value) -> Result<Value, Failure> {
    let executor = HttpExecutor::new(SystemClock::shared()).expect("a client");
    let fields = json!({"tls": tls, "method": "GET"});
    executor.execute(&archive(), &target_with(base, fields), &CancellationToken::new()).await.map(output)
}

#[tokio::test]
async fn a_target_is_trusted_if_its_own_authority_says_so_and_under_the_name_of_its_certificate() {
    let authority = Authority::new();
    let (base, serving) = authority.serve("storage.internal", false).await;
    let ca = authority.file("ca.pem");
    for tls in [json!({}), json!({ "ca": ca }), json!({"server_name": "storage.internal"})] {
        let failure = ask(&base, tls.clone()).await.expect_err("a stranger");
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Unreachable, false), "{tls}");
    }
    let output = ask(&base, json!({"ca": ca, "server_name": "storage.internal"})).await;
    assert_eq!(output, Ok(json!("storage.internal")), "and it is asked under that name");
    serving.abort();
}

#[tokio::test]
async fn a_target_that_asks_for_a_certificate_is_shown_the_workers() {
    let authority = Authority::new();
    let (base, serving) = authority.serve("127.0.0.1", true).await;
    let (ca, cert, key) = (authority.file("ca.pem"), authority.file("cert.pem"), authority.file("key.pem"));
    assert!(ask(&base, json!({ "ca": ca })).await.is_err());
    assert_eq!(ask(&base, json!({"ca": ca, "cert": cert, "key": key})).await, Ok(json!("127.0.0.1")));
    serving.abort();
}

#[tokio::test]
async fn files_that_are_not_there_or_are_no_certificates_are_named() {
    let authority = Authority::new();
    let (missing, garbage) = (authority.file("missing.pem"), authority.file("garbage.pem"));
    std::fs::write(Path::new(&garbage), "no certificate").expect("written");
    for (tls, part) in [
        (json!({ "ca": missing }), "missing.pem cannot be read on this worker"),
        (json!({ "ca": garbage }), "garbage.pem holds no certificate"),
        (json!({"cert": garbage, "key": garbage}), "garbage.pem is not what it should be"),
    ] {
        let failure = ask("https://127.0.0.1:1", tls).await.expect_err(part);
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Request, false), "{part}");
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
}
