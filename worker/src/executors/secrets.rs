//! Secrets that a target's headers ask for: read out of the worker's own surroundings for each request, so that a changed one
//! counts at once, and kept out of whatever is written down.

use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;
use shared::{connection::Secret, limits::HEADER_BYTES_MAX, run_record::ErrorKind};

use super::Failure;

/// Shorter ones are not looked for in answers: they would be found in any text.
const MASKED_BYTES_MIN: usize = 4;

/// Where a worker's secrets are.
#[derive(Debug, Clone)]
pub struct SecretsFolder(PathBuf);

impl Default for SecretsFolder {
    /// Where containers get theirs.
    fn default() -> Self {
        Self("/run/secrets".into())
    }
}

impl From<PathBuf> for SecretsFolder {
    fn from(folder: PathBuf) -> Self {
        Self(folder)
    }
}

/// What must not be written down of one request.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Reads a secret, as the value of this header.
    pub(super) async fn read(
        &mut self,
        header: &str,
        secret: &Secret,
        folder: &SecretsFolder,
    ) -> Result<HeaderValue, Failure> {
        // Another worker may have it: no reason to give the run up.
        let lacking = |what: String| {
            Failure::retryable(ErrorKind::Request, format!("header {header} cannot be sent: {what}"))
        };
        let text = match (&secret.env, &secret.file) {
            (Some(name), _) => std::env::var(name).map_err(|_| {
                lacking(format!("this worker has no variable {name}; set it and restart the worker"))
            })?,
            (None, Some(name)) => of_file(&folder.0.join(name)).await.map_err(lacking)?,
            (None, None) => String::new(),
        };
        let mut value = HeaderValue::from_str(&format!("{}{text}", secret.prefix))
            .map_err(|_| lacking("its secret has a character that no header may have; mend it".to_owned()))?;
        value.set_sensitive(true);
        if text.len() >= MASKED_BYTES_MIN {
            self.0.push(text);
        }
        Ok(value)
    }

    /// A text in which none of them is to be read.
    pub(super) fn masked(&self, text: Vec<u8>) -> Vec<u8> {
        if self.0.is_empty() {
            return text;
        }
        let mut masked = String::from_utf8_lossy(&text).into_owned();
        for secret in self.0.iter().filter(|secret| !secret.is_empty()) {
            masked = masked.replace(secret, "***");
        }
        masked.into_bytes()
    }
}

async fn of_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        format!("{shown} cannot be read ({error}); put it there, or name the folder with --secrets")
    };
    if tokio::fs::metadata(path).await.map_err(unreadable)?.len() > HEADER_BYTES_MAX as u64 {
        return Err(format!("{shown} has more than {HEADER_BYTES_MAX} bytes, which no header should have"));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
