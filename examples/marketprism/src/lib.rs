//! The example's target services: real databases, real reports.
