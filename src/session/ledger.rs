//! The server-side ledger: its schema, and the statements that seal and ask.
