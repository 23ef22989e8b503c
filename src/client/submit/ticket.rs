//! A ticket: what the application holds of a submission, to wait on, poll, or be called back by.
//!
//! It only tells what others have found out; it knows neither queue nor journal.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::client::process;
use crate::error::{Error, ErrorKind, Outcome, Result};

/// What a committed submission has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// How many rows each statement has affected or returned; empty if another attempt has committed
    /// and its reply is lost.
    pub rows: Vec<u64>,
    /// It was found done already: by an attempt whose reply was lost, by an earlier process, or by
    /// another one that has used the same key.
    pub found_done: bool,
}

type Callback = Box<dyn FnOnce(&Result<Executed>) + Send>;

/// A submission that was accepted. Cloning is cheap; any thread may use it. Dropping it changes
/// nothing for the submission.
#[derive(Clone)]
pub struct Ticket(Arc<Shared>);

struct Shared {
    id: Uuid,
    key: Option<Arc<str>>,
    /// In another one, a child of fork(), nobody tells it anything, and its lock may be held for ever.
    process: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<Executed>>,
    callbacks: Vec<Callback>,
}

impl Ticket {
    pub(super) fn new(id: Uuid, key: Option<Arc<str>>) -> Self {
        Self::of_process(process::id(), id, key)
    }

    fn of_process(process: u32, id: Uuid, key: Option<Arc<str>>) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { id, key, process, state, changed }))
    }

    /// Under this id it is found again: by [`Client::ticket`](crate::Client::ticket), and in the
    /// server's table `segue.submission` once it is committed.
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// The key that the application gave it.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What has become of it: `None` while that is not known. An error whose outcome is
    /// [`NotCommitted`](crate::Outcome::NotCommitted) means that it is a dead letter now.
    pub fn poll(&self) -> Result<Option<Executed>> {
        self.check_process()?;
        self.lock().outcome.clone().transpose()
    }

    /// As [`poll`](Self::poll), but waits for at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Executed>> {
        self.check_process()?;
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone().map(Some);
            }
            state = match deadline {
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let waited = self.0.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Calls `callback` once its outcome is known: here and now if it is, else on a thread of the
    /// client's, which must not be blocked. In a child of fork() it is told [`ErrorKind::Forked`].
    pub fn on_done(&self, callback: impl FnOnce(&Result<Executed>) + Send + 'static) {
        if let Err(forked) = self.check_process() {
            return callback(&Err(forked));
        }
        let known = {
            let mut state = self.lock();
            match &state.outcome {
                Some(outcome) => outcome.clone(),
                None => {
                    state.callbacks.push(Box::new(callback));
                    return;
                }
            }
        };
        callback(&known);
    }

    /// Tells everybody who waits. Callbacks run here, so no lock may be held.
    pub(super) fn tell(&self, outcome: Result<Executed>) {
        let callbacks = {
            let mut state = self.lock();
            state.outcome = Some(outcome.clone());
            std::mem::take(&mut state.callbacks)
        };
        self.0.changed.notify_all();
        for callback in callbacks {
            // A callback that panics must not take the thread with it that runs submissions.
            let called = std::panic::AssertUnwindSafe(|| callback(&outcome));
            if std::panic::catch_unwind(called).is_err() {
                tracing::error!(id = %self.0.id, "a callback of a ticket has panicked");
            }
        }
    }

    /// Its dead letter is run again.
    pub(super) fn reopen(&self) {
        self.lock().outcome = None;
    }

    /// Says so unless the outcome is known.
    pub(super) fn give_up(&self, error: Error) {
        if self.lock().outcome.is_none() {
            self.tell(Err(error));
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.0.process == process::id() {
            return Ok(());
        }
        let message = "the ticket was made before fork(): what becomes of the submission is known to the \
                       parent process";
        Err(Error::new(ErrorKind::Forked, message).with_outcome(Outcome::Unknown))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.0.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn everybody_hears_of_the_outcome() {
        let ticket = Ticket::new(Uuid::nil(), None);
        assert_eq!(ticket.poll().unwrap(), None);
        assert_eq!(ticket.wait(Duration::from_millis(1)).unwrap(), None);
        let (sender, receiver) = channel();
        let early = sender.clone();
        ticket.on_done(move |outcome| early.send(outcome.is_ok()).unwrap());
        let waiting = ticket.clone();
        let waiter = std::thread::spawn(move || waiting.wait(Duration::MAX).unwrap());
        let done = Executed { rows: vec![1], found_done: false };
        ticket.tell(Ok(done.clone()));
        assert_eq!(waiter.join().unwrap(), Some(done));
        ticket.on_done(move |outcome| sender.send(outcome.is_ok()).unwrap());
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [true, true]);
    }

    /// As a child of fork() has it, of whose lock another thread may have been in possession.
    #[test]
    fn a_ticket_of_another_process_tells_so_and_does_not_wait() {
        let ticket = Ticket::of_process(process::id() + 1, Uuid::nil(), None);
        let held = ticket.lock();
        for told in [ticket.poll(), ticket.wait(Duration::MAX)] {
            let error = told.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Forked, Outcome::Unknown));
        }
        let (sender, receiver) = channel();
        ticket.on_done(move |outcome| sender.send(outcome.clone()).unwrap());
        assert_eq!(receiver.recv().unwrap().unwrap_err().kind(), ErrorKind::Forked);
        drop(held);
    }

    #[test]
    fn a_dead_letter_can_be_waited_for_again() {
        let ticket = Ticket::new(Uuid::nil(), None);
        ticket.tell(Err(Error::new(ErrorKind::TransactionFailed, "no")));
        assert!(ticket.poll().is_err());
        ticket.reopen();
        assert_eq!(ticket.poll().unwrap(), None);
        ticket.tell(Ok(Executed { rows: Vec::new(), found_done: true }));
        assert!(ticket.poll().unwrap().is_some_and(|done| done.found_done));
    }
}
