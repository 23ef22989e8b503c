//! A network namespace for a server. Only what a cluster needs to know of one stands here yet;
//! making one follows.

/// A network of its own for a server.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    address: String,
}

impl Namespace {
    /// The name that `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that a server inside listens on.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}
