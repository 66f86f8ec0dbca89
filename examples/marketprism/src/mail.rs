//! The outbox. There is no mail server here, so a report is written as a mail and waits in a folder for one.
//!
//! The report itself is referenced by its path (`message/external-body`, RFC 2046 5.2.3), not copied into the mail.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{error::ServiceError, files::write_whole};

/// A mail about one report. Recipients were checked by `Parameters::addresses`; the rest is our own text.
pub(crate) struct Mail<'a> {
    pub(crate) from: &'a str,
    pub(crate) recipients: &'a [String],
    pub(crate) subject: &'a str,
    pub(crate) text: &'a str,
    /// The report, and its media type.
    pub(crate) report: (&'a Path, &'a str),
}

impl Mail<'_> {
    /// Writes `<data_dir>/outbox/<name>.eml`. The same name again replaces it: a repeat is not a second mail.
    pub(crate) fn put(
        &self,
        data_dir: &Path,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<PathBuf, ServiceError> {
        let path = data_dir.join("outbox").join(format!("{name}.eml"));
        write_whole(&path, self.written(name, now).as_bytes())?;
        Ok(path)
    }

    fn written(&self, name: &str, now: DateTime<Utc>) -> String {
        let Mail { from, recipients, subject, text, report: (report, media_type) } = self;
        let (to, date) = (recipients.join(",\r\n "), now.to_rfc2822());
        let file = report.file_name().unwrap_or_default().to_string_lossy();
        // The path is the operator's; inside quotes these would end the header or the text.
        let report: String = report.display().to_string().replace(['"', '\\', '\r', '\n'], "_");
        let text = text.replace('\n', "\r\n");
        format!(
            "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{name}@marketprism>\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"marketprism-report\"\r\n\r\n\
             --marketprism-report\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 8bit\r\n\r\n\
             {text}\r\n\r\nThe report: {report}\r\n\r\n\
             --marketprism-report\r\n\
             Content-Type: message/external-body; access-type=local-file;\r\n name=\"{report}\"\r\n\r\n\
             Content-Type: {media_type}\r\nContent-Disposition: attachment; filename=\"{file}\"\r\n\
             Content-ID: <{name}.report@marketprism>\r\n\r\n\
             --marketprism-report--\r\n"
        )
    }
}

/// What an answer says about a mail in the outbox.
pub(crate) fn not_delivered(mail: &Path, recipients: &[String]) -> Value {
    json!({
        "delivered": false,
        "reason": "there is no mail server here; the mail waits in the outbox",
        "outbox": mail.display().to_string(),
        "recipients": recipients,
    })
}
