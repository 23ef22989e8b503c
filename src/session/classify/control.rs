//! The statements that steer the transaction and the session: COMMIT, SAVEPOINT, SET, LISTEN and
//! their kin.
//!
//! A name that cannot be read must never be guessed: the statement is then named as a reason why
//! the session or its transaction cannot be carried over.

use super::head::{Head, NOTHING};
use super::lexer::Token;
use super::{Classified, Discard, Effect, StatementKind};

pub(in crate::session) const TWO_PHASE: &str = "two-phase commit";
pub(super) const SNAPSHOT: &str = "an exported or imported snapshot";
pub(super) const PREPARE: &str = "PREPARE";
pub(super) const LOAD: &str = "LOAD";
pub(super) const SESSION_LOCK: &str = "a session advisory lock";
pub(super) const SEED: &str = "setseed()";
pub(super) const ORIGIN: &str = "a replication origin";
const SET_SEED: &str = "SET SEED";
/// What a statement does to the session once and for all, whatever becomes of its transaction.
pub(super) const BY_STATEMENT: [&str; 3] = [PREPARE, LOAD, SET_SEED];
/// The same for a function, which has done it even if the statement that calls it fails.
pub(super) const BY_CALL: [&str; 3] = [SESSION_LOCK, SEED, ORIGIN];
const ESCAPED_NAME: &str = "a name written with Unicode escapes (U&\"...\")";

pub(super) fn end(head: &mut Head<'_>, commit: bool) -> Classified {
    if head.accept("prepared") {
        return Classified::new(StatementKind::Other, Effect::MayWrite)
            .outside_transaction()
            .unprotected(TWO_PHASE);
    }
    head.accept_any(&["work", "transaction"]);
    if !commit && head.accept("to") {
        return savepoint(&head.savepoint(), StatementKind::RollbackTo);
    }
    let chain = head.accept("and") && head.accept("chain");
    let kind =
        if commit { StatementKind::Commit { chain } } else { StatementKind::Rollback { chain } };
    Classified::new(kind, Effect::None)
}

pub(super) fn savepoint(name: &Token<'_>, kind: fn(String) -> StatementKind) -> Classified {
    match name.identifier() {
        Some(name) => Classified::new(kind(name), Effect::None),
        None => Classified::new(StatementKind::Other, Effect::None).unprotected(ESCAPED_NAME),
    }
}

pub(super) fn channel(name: &Token<'_>, kind: fn(String) -> StatementKind) -> Classified {
    match name.identifier() {
        Some(name) => Classified::new(kind(name), Effect::None),
        None => Classified::new(StatementKind::Other, Effect::None).unrestorable(ESCAPED_NAME),
    }
}

pub(super) fn deallocate(head: &mut Head<'_>) -> Classified {
    let word = head.next();
    let name = head.peek();
    let name = if word.is("prepare") && name != NOTHING { name } else { word };
    let kind = match name.identifier() {
        _ if name.is("all") => StatementKind::Deallocate(None),
        Some(name) => StatementKind::Deallocate(Some(name)),
        None => StatementKind::Other,
    };
    Classified::new(kind, Effect::None)
}

pub(super) fn discard(what: &Token<'_>) -> Classified {
    let (what, effect) = if what.is("all") {
        (Discard::All, Effect::None)
    } else if what.is("plans") {
        (Discard::Plans, Effect::None)
    } else if what.is("sequences") {
        (Discard::Sequences, Effect::None)
    } else if what.is_any(&["temp", "temporary"]) {
        // Dropping the tables takes a transaction id.
        (Discard::Temp, Effect::MayWrite)
    } else {
        return Classified::new(StatementKind::Other, Effect::MayWrite);
    };
    let class = Classified::new(StatementKind::Discard(what), effect);
    if what.is_all() { class.outside_transaction() } else { class }
}

pub(super) fn set(head: &mut Head<'_>) -> Classified {
    let before_scope = head.0;
    let mut local = head.accept("local");
    let session = !local && head.accept("session");
    let named = |name: &str, local| {
        let kind = StatementKind::Set { name: name.to_owned(), local };
        Classified::new(kind, Effect::None)
    };
    if session && head.accept("characteristics") {
        return named("session characteristics", false);
    }
    if session && head.peek().is("authorization") {
        return named("session_authorization", false);
    }
    if session && matches!(head.peek(), Token::Symbol(b'=' | b'.')) {
        // No setting is called so, but an extension's might be.
        head.0 = before_scope;
    }
    if head.peek().is("session") {
        let mut ahead = Head(head.0);
        if ahead.accept("session") && ahead.accept("authorization") {
            return named("session_authorization", local);
        }
    }
    let first = head.peek();
    let Some(name) = head.setting() else {
        return Classified::new(StatementKind::Other, Effect::None).unrestorable(ESCAPED_NAME);
    };
    let assigns = head.peek() == Token::Symbol(b'=') || head.peek().is("to");
    if matches!(first, Token::Word(_)) && !assigns {
        let name = match name.as_str() {
            "transaction" => {
                let class = named("transaction", true);
                let snapshot = head.peek().is("snapshot");
                return if snapshot { class.unprotected(SNAPSHOT) } else { class };
            }
            "constraints" => return named("constraints", true),
            "time" => "timezone",
            "names" => "client_encoding",
            "schema" => "search_path",
            "xml" => "xmloption",
            other => other,
        };
        return seed_aside(named(name, local));
    }
    // These hold for one transaction at most, however they are set.
    local |= matches!(
        name.as_str(),
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable"
    );
    seed_aside(named(&name, local))
}

/// How far random() had come since SET SEED cannot be restored.
fn seed_aside(class: Classified) -> Classified {
    match &class.kind {
        StatementKind::Set { name, .. } if name == "seed" => class.unrestorable(SET_SEED),
        _ => class,
    }
}

pub(super) fn reset(head: &mut Head<'_>) -> Classified {
    let first = head.peek();
    let Some(name) = head.setting() else {
        return Classified::new(StatementKind::Other, Effect::None).unrestorable(ESCAPED_NAME);
    };
    let name = match (first, name.as_str()) {
        (Token::Word(_), "time") if head.accept("zone") => "timezone".to_owned(),
        (Token::Word(_), "session") if head.accept("authorization") => {
            "session_authorization".to_owned()
        }
        (Token::Word(_), "transaction") => "transaction_isolation".to_owned(),
        _ => name,
    };
    Classified::new(StatementKind::Reset(name), Effect::None)
}
