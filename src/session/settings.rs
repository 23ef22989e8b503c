//! What a session has to be given again on a new link: settings and LISTEN, in the order in which
//! they were made, and only those whose transaction committed.

use bytes::Bytes;

use super::classify::{Classified, StatementKind};
use crate::mutation::{self, Mutation};

/// One thing to restore: the very bytes that made it, without the Sync.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// What a later statement of the same key replaces; `None` for what can only be repeated.
    key: Option<String>,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Change {
    Put(Entry),
    Remove(String),
    RemovePrefix(&'static str),
    RemoveAll,
}

#[derive(Debug, Default)]
pub(super) struct Settings {
    committed: Vec<Entry>,
    /// Changes of the open transaction; its savepoints hold lengths of this list.
    pending: Vec<Change>,
}

impl Settings {
    /// Takes note of a statement that has succeeded inside a transaction or as one of its own.
    /// `bytes` are its Parse, Bind and Execute.
    pub fn note(&mut self, class: &Classified, bytes: &[u8]) {
        let put =
            |key: Option<String>| Change::Put(Entry { key, bytes: Bytes::copy_from_slice(bytes) });
        let change = match &class.kind {
            StatementKind::Set { name, local: false } => put(Some(format!("set {name}"))),
            StatementKind::Reset(name) if name.eq_ignore_ascii_case("all") => {
                Change::RemovePrefix("set ")
            }
            // What a function has set may be this very setting: RESET has to follow it.
            StatementKind::Reset(name) if self.has_unnamed() => put(Some(format!("set {name}"))),
            StatementKind::Reset(name) => Change::Remove(format!("set {name}")),
            StatementKind::Listen(channel) => put(Some(format!("listen {channel}"))),
            StatementKind::Unlisten(channel) if channel == "*" => Change::RemovePrefix("listen "),
            StatementKind::Unlisten(channel) => Change::Remove(format!("listen {channel}")),
            StatementKind::Discard(what) if what.is_all() => Change::RemoveAll,
            _ if class.sets_config => put(None),
            _ => return,
        };
        self.pending.push(change);
    }

    /// Whether something was set through a function, which hides its name.
    fn has_unnamed(&self) -> bool {
        let pending = |change: &Change| matches!(change, Change::Put(Entry { key: None, .. }));
        self.committed.iter().any(|entry| entry.key.is_none()) || self.pending.iter().any(pending)
    }

    /// Whether the open transaction, or the statement in hand, has changed anything.
    pub fn are_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Where the list of pending changes stands, for [`roll_back_to`](Self::roll_back_to).
    pub fn mark(&self) -> usize {
        self.pending.len()
    }

    pub fn roll_back_to(&mut self, mark: usize) {
        self.pending.truncate(mark);
    }

    pub fn roll_back(&mut self) {
        if mutation::on(Mutation::SettingsOutliveRollback) {
            return self.commit();
        }
        self.pending.clear();
    }

    pub fn commit(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Put(entry) => {
                    self.committed.retain(|old| match &entry.key {
                        Some(key) => old.key.as_ref() != Some(key),
                        None => old.bytes != entry.bytes,
                    });
                    let first = mutation::on(Mutation::SettingsReordered);
                    let at = if first { 0 } else { self.committed.len() };
                    self.committed.insert(at, entry);
                }
                Change::Remove(key) => self.committed.retain(|old| old.key.as_ref() != Some(&key)),
                Change::RemovePrefix(prefix) => self.committed.retain(|old| {
                    // What was set through a function has no key; RESET ALL undoes it as well.
                    old.key.as_ref().map_or(prefix != "set ", |key| !key.starts_with(prefix))
                }),
                Change::RemoveAll => self.committed.clear(),
            }
        }
    }

    /// Whether the application has set `name` itself.
    pub fn contains(&self, name: &str) -> bool {
        let is = |key: &str| key.strip_prefix("set ") == Some(name);
        self.committed.iter().any(|entry| entry.key.as_deref().is_some_and(is))
            || self.pending.iter().any(
                |change| matches!(change, Change::Put(Entry { key: Some(key), .. }) if is(key)),
            )
    }

    /// What to send on a new link, in order.
    pub fn restorable(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.committed.iter().map(|entry| &entry.bytes)
    }
}
