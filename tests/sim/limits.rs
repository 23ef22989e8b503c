//! The limits of buffers, measured while the run goes on.

use crate::client::Client;
use crate::run::Result;

/// A request is taken in before it is measured: so much may stand beyond a limit. The model's requests
/// are shorter than this.
const REQUEST: usize = 4096;

/// What the session was told.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub journal: usize,
    pub message: usize,
}

impl Client {
    pub fn check_limits(&self) -> Result {
        let journal = self.session.journal_len();
        // A transaction past its limit loses its protection, and is kept no longer.
        if journal > self.limits.journal + REQUEST {
            return Err(format!(
                "{journal} bytes are kept, and {} are allowed",
                self.limits.journal
            ));
        }
        if self.input.len() > self.limits.message + REQUEST {
            return Err(format!("{} bytes of input are not taken in", self.input.len()));
        }
        // What waits to be sent is what is kept, and what a new link is asked and told ahead of it.
        let output = self.session.output_len();
        if output > self.limits.journal + 8 * REQUEST {
            return Err(format!("{output} bytes wait to be sent"));
        }
        Ok(())
    }
}
