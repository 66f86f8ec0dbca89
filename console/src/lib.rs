//! What people and programs operate a fleet with: an HTTP API, a read model that keeps lists fast, and a live page.
//!
//! Promise: nothing here decides what runs. The ledger and the buckets of definitions do; a console may be stopped, deleted
//! or run several times, and no run notices.
//!
//! | folder | what it does |
//! |---|---|
//! | `api/` | resources and verbs over HTTP |
//! | `read_model/` | the ledger as tables that can be searched, kept in SQLite, disposable |

pub mod api;
pub mod read_model;
