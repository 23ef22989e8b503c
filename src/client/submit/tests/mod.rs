//! Tests of the pure parts. Whether it is exactly once is for real servers to say: `tests/live_submit`.

mod carrier;
mod pipe;
mod queue;
mod store;
mod told;
