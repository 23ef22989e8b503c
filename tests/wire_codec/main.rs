//! The wire codec against a second one that was written for these tests, after PostgreSQL's documentation of
//! its message formats: what Segue writes, that reads; what that writes, Segue reads, wherever the stream is cut.
//!
//! `PROPTEST_CASES` says how many cases (256), `PROPTEST_RNG_SEED` which; a plain run has the same each time.

mod backend;
mod frontend;
mod reader;
mod replies;

use proptest::test_runner::{Config, RngSeed};

/// The same cases in every run, unless the environment says otherwise.
fn config() -> Config {
    let mut config = Config::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(3);
    }
    config.failure_persistence = None;
    config
}
