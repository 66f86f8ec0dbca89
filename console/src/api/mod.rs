//! Resources and verbs. One table says what can be asked; HTTP routes, NATS endpoints and the `OpenAPI` document come from it.
//!
//! | file | what |
//! |---|---|
//! | `verb.rs`, `parameter.rs`, `call.rs` | what a verb is, what it takes, what was asked |
//! | `table.rs` | all of them |
//! | `http.rs`, `nats.rs`, `openapi.rs` | the three that come from the table |
//! | `kinds.rs`, `problem.rs` | what is answered when something is wrong |
//! | `schedules/`, `runs/`, `definitions.rs`, `fleet.rs`, `dead.rs`, `events.rs` | the verbs |
//! | `promised.rs` | what an `Idempotency-Key` stands for |
//! | `waiting.rs` | waiting for the end of a run |

pub mod call;
pub mod dead;
pub mod definitions;
pub mod events;
pub mod fleet;
pub mod http;
pub mod kinds;
pub mod nats;
pub mod openapi;
pub mod parameter;
pub mod problem;
pub mod promised;
pub mod runs;
pub mod schedules;
pub mod state;
pub mod table;
pub mod verb;
pub mod waiting;
