//! Everything Cronfleet says to NATS: names, topology, typed stores.
