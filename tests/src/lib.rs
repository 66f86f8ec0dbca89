//! A harness with real nats-servers, and specs that read as the promises.
