//! What the benchmarks share with their tests.

pub mod pure;

/// Whatever ends a benchmark early.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
