//! The cronfleet binary.
