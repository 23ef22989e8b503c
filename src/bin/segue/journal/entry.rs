//! What stands in a journal, one line each.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use segue::journal::{Fate, Found, FoundKind, Record, Recovered, State};
use serde_json::{Value, json};
use uuid::Uuid;

use super::place::named;
use crate::output::{Failure, grouped};

/// A transaction or a submission.
pub struct Entry {
    pub found: Found,
    pub submission: Option<Uuid>,
    pub began_unix_ms: Option<u64>,
    pub statements: usize,
    session: Option<Session>,
    key: String,
    lane: String,
}

#[derive(Clone)]
struct Session {
    number: u64,
    database: String,
    user: String,
}

/// All of them, in the order in which they began. Sessions count only through what they ran.
pub fn all(recovered: &Recovered) -> Result<Vec<Entry>, Failure> {
    let mut sessions = HashMap::new();
    let mut entries = Vec::new();
    for found in recovered.in_flight() {
        let mut entry = Entry {
            found: found.clone(),
            submission: None,
            began_unix_ms: None,
            statements: 0,
            session: None,
            key: String::new(),
            lane: String::new(),
        };
        let read = recovered.records(found, |record| match record {
            Record::SessionOpened(it) => {
                let (database, user) = (it.database.to_owned(), it.user.to_owned());
                sessions.insert(found.owner, Session { number: found.owner, database, user });
            }
            Record::TransactionBegan(it) => {
                entry.began_unix_ms = Some(it.began_unix_ms);
                entry.session = sessions.get(&it.session).cloned();
            }
            Record::Statement(_) => entry.statements += 1,
            Record::Submission(it) => {
                entry.submission = Some(it.id);
                entry.began_unix_ms = Some(it.submitted_unix_ms);
                entry.statements = it.statements.len();
                (entry.key, entry.lane) = (it.key.to_owned(), it.lane.to_owned());
            }
            _ => {}
        });
        read.map_err(|error| named(&error))?;
        if !matches!(found.what, FoundKind::Session { .. }) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

impl Entry {
    pub fn kind(&self) -> &'static str {
        match self.found.what {
            FoundKind::Submission { .. } => "submission",
            FoundKind::Transaction { autocommit: true, .. } => "autocommit",
            FoundKind::Transaction { .. } => "transaction",
            _ => "unknown",
        }
    }

    /// How far it had come, by the journal alone.
    pub fn state(&self) -> &'static str {
        match &self.found.state {
            State::Dead => "dead letter",
            State::NeverSent | State::Known(Fate::NotCommitted) if self.submission.is_some() => {
                "to be run"
            }
            State::NeverSent => "never sent",
            State::Sent(_) => "sent",
            State::Known(Fate::Committed) => "committed",
            State::Known(Fate::NotCommitted) => "not committed",
            _ => "unknown",
        }
    }

    /// Whether the journal alone says for certain what became of it.
    pub fn is_decided(&self) -> bool {
        match &self.found.state {
            State::Known(Fate::Committed) => true,
            State::NeverSent | State::Known(Fate::NotCommitted) => {
                let transaction = matches!(self.found.what, FoundKind::Transaction { .. });
                transaction && !self.found.doubtful
            }
            _ => false,
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "number": self.found.owner,
            "kind": self.kind(),
            "state": self.state(),
            "doubtful": self.found.doubtful,
            "decided": self.is_decided(),
            "id": self.submission.map(|id| id.to_string()),
            "key": some(&self.key),
            "lane": some(&self.lane),
            "session": self.session.as_ref().map(|it| it.number),
            "database": self.session.as_ref().map(|it| &it.database),
            "user": self.session.as_ref().map(|it| &it.user),
            "began_unix_ms": self.began_unix_ms,
            "statements": self.statements,
            "bytes": self.found.bytes(),
        })
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// For people to read.
pub fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "Nothing is in flight.".to_owned();
    }
    let mut lines = vec![format!(
        "{:>8}  {:<11}  {:<24}  {:>10}  {:>10}  {:>12}  {}",
        "number", "kind", "state", "age", "statements", "bytes", "of"
    )];
    lines.extend(entries.iter().map(|entry| {
        let doubt = if entry.found.doubtful { " (doubtful)" } else { "" };
        let of = match (&entry.session, entry.submission) {
            (Some(session), _) => {
                format!("session {}, {}@{}", session.number, session.user, session.database)
            }
            (None, Some(id)) if entry.key.is_empty() => id.to_string(),
            (None, Some(id)) => format!("{id} ({})", entry.key),
            (None, None) => String::new(),
        };
        let line = format!(
            "{:>8}  {:<11}  {:<24}  {:>10}  {:>10}  {:>12}  {of}",
            entry.found.owner,
            entry.kind(),
            format!("{}{doubt}", entry.state()),
            entry.began_unix_ms.map_or_else(String::new, age),
            entry.statements,
            grouped(entry.found.bytes()),
        );
        line.trim_end().to_owned()
    }));
    lines.join("\n")
}

/// In the largest unit that fits.
pub fn age(since_unix_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().saturating_sub(since_unix_ms / 1000);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", grouped(seconds / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let ago = |seconds: u64| age((now - seconds) * 1000);
        assert!(ago(600).ends_with(" min") && ago(10_000).ends_with(" h"));
        assert!(ago(1_000_000).ends_with(" d") && age(u64::MAX) == "0 s");
    }
}
