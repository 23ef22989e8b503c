//! The Rust API: joins session, cluster and link.
