//! Resources and verbs over HTTP.
