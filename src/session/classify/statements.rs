//! Tells by the first words of one statement what it is and what it does to data and session.
//!
//! What is not known here must come out as a statement that may write.

use super::control::{
    LOAD, ORIGIN, PREPARE, SEED, SESSION_LOCK, SNAPSHOT, TWO_PHASE, channel, deallocate, discard,
    end, reset, savepoint, set,
};
use super::head::{Head, NOTHING};
use super::lexer::{Lexer, Token, fold};
use super::scan::{Scan, Verb, scan, starts_temporary};
use super::{Classified, Effect, StatementKind};

const TEMPORARY: &str = "a temporary table, view, sequence or function";

/// Reads off its text what one statement does.
pub(super) fn classify_one(found: &Scan<'_>) -> Classified {
    use Effect::{MayWrite, Reads, Writes};
    use StatementKind::Other;
    if found.is_unterminated {
        return Classified::new(Other, MayWrite);
    }
    let mut head = Head::new(found.text);
    let mut verb = head.next();
    while verb == Token::Symbol(b'(') {
        verb = head.next();
    }
    let Token::Word(word) = verb else {
        return Classified::new(Other, MayWrite);
    };
    let mut buffer = [0; 63];
    match fold(word, &mut buffer).unwrap_or_default() {
        b"select" | b"values" | b"table" => query(found, Some(Verb::Reading)),
        b"with" => query(found, found.main_verb),
        b"insert" | b"update" | b"delete" | b"merge" => query(found, Some(Verb::Modifying)),
        b"begin" | b"start" => {
            Classified::new(StatementKind::Begin { read_only: head.read_only() }, Effect::None)
        }
        b"commit" | b"end" => end(&mut head, true),
        b"rollback" | b"abort" => end(&mut head, false),
        b"savepoint" => savepoint(&head.peek(), StatementKind::Savepoint),
        b"release" => savepoint(&head.savepoint(), StatementKind::Release),
        b"prepare" if head.accept("transaction") => {
            Classified::new(Other, MayWrite).unprotected(TWO_PHASE)
        }
        b"prepare" => Classified::new(Other, Effect::None).unrestorable(PREPARE),
        b"execute" => with_calls(Classified::new(Other, MayWrite), found),
        b"deallocate" => deallocate(&mut head),
        b"set" => set(&mut head),
        b"reset" => reset(&mut head),
        b"show" => Classified::new(Other, Reads),
        b"explain" => explain(&mut head),
        b"fetch" | b"move" => Classified::new(Other, Reads),
        b"close" => Classified::new(Other, Effect::None),
        b"declare" => declare(&mut head, found),
        b"listen" => channel(&head.peek(), StatementKind::Listen),
        b"unlisten" if head.peek() == Token::Symbol(b'*') => {
            Classified::new(StatementKind::Unlisten("*".to_owned()), Effect::None)
        }
        b"unlisten" => channel(&head.peek(), StatementKind::Unlisten),
        b"discard" => discard(&head.peek()),
        b"copy" => copy(&mut head),
        b"call" => with_calls(Classified::new(Other, MayWrite).outside_transaction(), found),
        b"do" => Classified::new(Other, MayWrite).outside_transaction(),
        b"load" => Classified::new(Other, Effect::None).unrestorable(LOAD),
        b"vacuum" => Classified::new(Other, MayWrite).outside_transaction(),
        b"reindex" => reindex(&mut head),
        b"cluster" => cluster(&mut head),
        b"create" => create(&mut head, found),
        b"alter" => alter(&mut head),
        b"drop" => drop_object(&mut head),
        b"truncate" | b"grant" | b"revoke" | b"comment" | b"refresh" | b"import" | b"security"
        | b"reassign" => Classified::new(Other, Writes),
        _ => Classified::new(Other, MayWrite),
    }
}

/// What SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES and TABLE do, with or without WITH.
fn query(found: &Scan<'_>, verb: Option<Verb>) -> Classified {
    let modifies = verb == Some(Verb::Modifying);
    let makes_table = found.into && !modifies;
    let doubtful = found.may_write
        || found.locks_rows
        || found.sets_config
        || found.sets_config_locally
        || verb.is_none();
    let effect = if modifies || makes_table || found.modifying_with {
        Effect::Writes
    } else if doubtful {
        Effect::MayWrite
    } else {
        Effect::Reads
    };
    let mut class = Classified::new(StatementKind::Other, effect);
    class.prepare = !makes_table;
    if makes_table && found.into_temporary {
        class.unrestorable = Some(TEMPORARY);
    }
    with_calls(class, found)
}

/// Adds what the statement's calls do to the session.
fn with_calls(mut class: Classified, found: &Scan<'_>) -> Classified {
    if found.sets_config {
        // The setting is restored by running the statement again: it must do nothing else.
        let does_more = found.may_write || found.locks_rows || class.effect == Effect::Writes;
        class.sets_config = !does_more;
        if does_more {
            class = class.unrestorable("set_config() in a statement that may write");
        }
    }
    if found.locks_session {
        class = class.unrestorable(SESSION_LOCK);
    } else if found.seeds_random {
        class = class.unrestorable(SEED);
    } else if found.sets_origin {
        class = class.unrestorable(ORIGIN);
    }
    if found.exports_snapshot {
        class = class.unprotected(SNAPSHOT);
    }
    class
}

fn explain(head: &mut Head<'_>) -> Classified {
    let mut analyze = false;
    if head.peek() == Token::Symbol(b'(') {
        // Either options or the query itself in parentheses.
        let mut ahead = Head(head.0);
        ahead.next();
        let begins_query = ahead.peek() == Token::Symbol(b'(')
            || ahead.peek().is_any(&["select", "with", "values", "table"]);
        if !begins_query {
            let options = Head::new(ahead.skip_parenthesis());
            // Between quotes they are options just the same.
            let mut tokens = options.0;
            analyze = tokens.any(|token| {
                token.identifier_is("analyze")
                    || token.identifier_is("analyse")
                    || token == Token::UnicodeQuoted
            });
            head.0 = ahead.0;
        }
    } else {
        analyze = head.accept_any(&["analyze", "analyse"]);
        head.accept("verbose");
    }
    if !analyze {
        return Classified::new(StatementKind::Other, Effect::Reads);
    }
    let mut class = executed_inside(head.0.rest());
    class.effect = class.effect.max(Effect::Reads);
    class
}

/// What a statement does that another one executes: COPY (...), EXPLAIN ANALYZE.
fn executed_inside(text: &[u8]) -> Classified {
    let (found, _) = scan(text);
    let first = Head::new(text).next();
    // Neither may stand inside the other or itself, and so the recursion ends.
    if first.is_any(&["explain", "copy"]) {
        return Classified::new(StatementKind::Other, Effect::MayWrite);
    }
    let class = classify_one(&found);
    Classified { kind: StatementKind::Other, prepare: false, ..class }
}

fn declare(head: &mut Head<'_>, found: &Scan<'_>) -> Classified {
    let cursor = Head(head.0);
    while !matches!(head.next(), token if token == NOTHING || token.is("for")) {}
    let holds = {
        let query = head.0.position();
        let mut options = cursor.0;
        let mut last = NOTHING;
        let mut holds = false;
        while options.position() < query {
            let Some(token) = options.next() else { break };
            holds |= token.is("hold") && last.is("with");
            last = token;
        }
        holds
    };
    let verb = match head.peek() {
        token if token.is("with") => found.main_verb,
        token if token == Token::Symbol(b'(') || token.is_any(&["select", "values", "table"]) => {
            Some(Verb::Reading)
        }
        _ => None,
    };
    let mut class = query(found, verb);
    class.prepare = false;
    // What its query calls outlives more than the cursor does.
    if holds && class.unrestorable.is_none() {
        class = class.unrestorable("a cursor WITH HOLD");
    }
    class
}

fn copy(head: &mut Head<'_>) -> Classified {
    let mut class = if head.peek() == Token::Symbol(b'(') {
        head.next();
        executed_inside(head.skip_parenthesis())
    } else {
        Classified::new(StatementKind::Other, Effect::Reads)
    };
    loop {
        match head.next() {
            NOTHING => return Classified::new(StatementKind::Other, Effect::MayWrite),
            Token::Symbol(b'(') => {
                head.skip_parenthesis();
            }
            token if token.is("from") => {
                let stdin = head.peek().is_any(&["stdin", "stdout"]);
                let kind = if stdin { StatementKind::CopyIn } else { StatementKind::Other };
                return Classified::new(kind, Effect::Writes);
            }
            token if token.is("to") => {
                if head.peek().is_any(&["stdin", "stdout"]) {
                    class.kind = StatementKind::CopyOut;
                } else {
                    // It writes a file on the server, or runs a program there.
                    class.effect = class.effect.max(Effect::MayWrite);
                }
                return class;
            }
            _ => {}
        }
    }
}

fn create(head: &mut Head<'_>, found: &Scan<'_>) -> Classified {
    let class = Classified::new(StatementKind::Other, Effect::Writes);
    if head.accept("or") {
        head.accept("replace");
    }
    let temporary = starts_temporary(head.0) || in_temporary_schema(head.0);
    head.accept("unique");
    let object = head.next();
    if object.is_any(&["database", "tablespace", "subscription"])
        || (object.is("index") && head.accept("concurrently"))
    {
        return class.outside_transaction();
    }
    let class = if temporary && !head.contains_phrase(&["on", "commit", "drop"]) {
        class.unrestorable(TEMPORARY)
    } else {
        class
    };
    // The query of CREATE TABLE AS is executed; that of a view or a rule is only kept.
    let executes = object.is_any(&["table", "temp", "temporary", "unlogged", "local", "global"])
        || object.is("materialized");
    if executes { with_calls(class, found) } else { class }
}

/// Whether some name is qualified with `pg_temp`.
fn in_temporary_schema(tokens: Lexer<'_>) -> bool {
    let mut last = NOTHING;
    for token in tokens {
        if token == Token::Symbol(b'.') && last.identifier_is("pg_temp") {
            return true;
        }
        last = token;
    }
    false
}

fn alter(head: &mut Head<'_>) -> Classified {
    let writes = Classified::new(StatementKind::Other, Effect::Writes);
    let object = head.next();
    if object.is("system") {
        return Classified::new(StatementKind::Other, Effect::MayWrite).outside_transaction();
    }
    let alone = object.is("subscription")
        || (object.is("database") && head.contains_phrase(&["set", "tablespace"]))
        || (object.is("table") && head.contains("detach") && head.contains("concurrently"));
    if alone { writes.outside_transaction() } else { writes }
}

fn drop_object(head: &mut Head<'_>) -> Classified {
    let class = Classified::new(StatementKind::Other, Effect::Writes);
    let object = head.next();
    let alone = object.is_any(&["database", "tablespace", "subscription"])
        || (object.is("index") && head.peek().is("concurrently"));
    if alone { class.outside_transaction() } else { class }
}

fn reindex(head: &mut Head<'_>) -> Classified {
    // Allowed in READ ONLY transactions, and so not among what surely writes there.
    let class = Classified::new(StatementKind::Other, Effect::MayWrite);
    let concurrently = head.contains("concurrently");
    if head.peek() == Token::Symbol(b'(') {
        head.next();
        head.skip_parenthesis();
    }
    let many = head.peek().is_any(&["database", "system", "schema"]);
    if concurrently || many { class.outside_transaction() } else { class }
}

fn cluster(head: &mut Head<'_>) -> Classified {
    let class = Classified::new(StatementKind::Other, Effect::MayWrite);
    if head.peek() == Token::Symbol(b'(') {
        head.next();
        head.skip_parenthesis();
    }
    head.accept("verbose");
    if head.peek() == NOTHING { class.outside_transaction() } else { class }
}
