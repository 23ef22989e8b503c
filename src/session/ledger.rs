//! The ledger's SQL: what seals, what asks, what installs. See `docs/guarantees.md` for the reasons.
