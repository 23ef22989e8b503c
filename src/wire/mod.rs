//! PostgreSQL's protocol as pure bytes <-> messages, on the `postgres-protocol` crate.
