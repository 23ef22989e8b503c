//! Cancelling a session's statement from another thread.

use std::sync::{Arc, Mutex, PoisonError};

use super::Inner;
use crate::error::Result;
use crate::link::{self, LinkInfo};

/// Where a session is at present, for those who want to cancel what it is doing.
pub(super) type Whereabouts = Arc<Mutex<Option<(usize, LinkInfo)>>>;

/// Cancels what a session is executing; any thread may use it at any time.
#[derive(Clone)]
pub struct CancelHandle {
    pub(super) inner: Arc<Inner>,
    pub(super) whereabouts: Whereabouts,
}

impl CancelHandle {
    /// Asks the server to cancel the session's statement. The statement may be over by the time
    /// the server hears of it; if not, it fails with SQLSTATE 57014.
    pub fn cancel(&self) -> Result<()> {
        self.inner.check_process()?;
        let at = self.whereabouts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((server, info)) = at else {
            // Between two servers nothing is being executed.
            return Ok(());
        };
        let config = &self.inner.config;
        link::cancel_blocking(config, &config.hosts[server], &info)
    }
}
