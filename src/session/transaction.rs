//! The transaction that a session is in, as the application sees it.

use super::classify::{Classified, Effect, StatementKind};
use super::filing::Filed;
use crate::error::Error;

/// How a transaction is to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BeginOptions {
    /// The statement that begins it, `BEGIN` with its options; empty for a plain BEGIN.
    pub sql: String,
    /// Declared READ ONLY: it is not sealed.
    pub read_only: bool,
}

#[derive(Debug)]
pub(super) enum Transaction {
    /// Each statement is a transaction of its own.
    None,
    /// Begun by the application; BEGIN will travel with the first statement.
    Pending(BeginOptions),
    Open(Open),
    /// It was ended by a failure that the application has been told of, or will be with its next
    /// request; it must be rolled back before anything else.
    Doomed(Error),
}

#[derive(Debug)]
pub(super) struct Open {
    pub begin: BeginOptions,
    /// The most that any of its statements may have done.
    pub effect: Effect,
    /// Why it cannot be replayed.
    pub unprotected: Option<&'static str>,
    /// Why the session cannot be carried to another server once it has committed.
    pub unrestorable: Option<&'static str>,
    /// The same, however it ends.
    pub lasting: Option<&'static str>,
    /// SET TRANSACTION was used: it may be read only by the application's own wish.
    pub sets_mode: bool,
    /// That was done when it may have written already: a seal behind it could not be written.
    pub unsealable: bool,
    /// Savepoints and where the pending settings stood when each was made.
    pub savepoints: Vec<(String, usize)>,
    /// COMMIT AND CHAIN or ROLLBACK AND CHAIN: another of the same kind follows.
    pub chain: bool,
    /// Whether the journal on disk has it.
    pub filed: Filed,
}

impl Open {
    pub fn new(begin: BeginOptions) -> Self {
        Self {
            begin,
            effect: Effect::None,
            unprotected: None,
            unrestorable: None,
            lasting: None,
            sets_mode: false,
            unsealable: false,
            savepoints: Vec::new(),
            chain: false,
            filed: Filed::No,
        }
    }

    /// A statement of it goes on its way.
    pub fn note(&mut self, class: &Classified) {
        if let StatementKind::Several(parts) = &class.kind {
            parts.iter().for_each(|part| self.note(part));
        }
        if matches!(&class.kind, StatementKind::Set { name, .. } if name.starts_with("transaction"))
        {
            self.sets_mode = true;
            self.unsealable |= self.effect > Effect::Reads;
        }
        self.effect = self.effect.max(class.effect);
    }
}
