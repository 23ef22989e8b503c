//! Random sequences of statements, sent to PostgreSQL: what the classifier says of each from its text has to
//! agree with what the server then says of the transaction, of its own writing, and of the session.
//!
//! Where the classifier may err, it may do so in one direction only. Held against the server, and unsound if
//! it does not hold:
//! - as many statements in a string as the server runs; the status of the transaction after each;
//! - what is said to read, or to do nothing, is given no transaction id;
//! - what refuses to run in a transaction block is known;
//! - what a session would lose with its connection was named: the setting, the channel, or a reason why the
//!   session cannot be carried over. What outlives even a rollback was named so;
//! - COPY is known for what it is, and one statement is one for the extended protocol.
//!
//! Not held against it: that it takes for a writer what writes nothing, for unrestorable what is gone again.
//!
//! `PROPTEST_CASES` says how many sequences (60), `PROPTEST_RNG_SEED` which; a plain run has the same each time.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use segue::session::classify::{Classified, Discard, Effect, StatementKind, classify, split};

use crate::live_server::Server;
use crate::observed::{Connection, Copying, Reply, Way};
use crate::strings::string;

const CASES: u32 = 60;

const SCHEMA: &str = "
    CREATE ROLE other SUPERUSER;
    CREATE TABLE t (id serial PRIMARY KEY, a text);
    INSERT INTO t (a) SELECT g FROM generate_series(1, 9) g;
    CREATE TABLE u (id int, a text);
    CREATE TABLE d (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE SEQUENCE s;
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES (76) RETURNING id';
    CREATE PROCEDURE p() LANGUAGE sql AS 'INSERT INTO u VALUES (78, NULL)';
    CREATE PROCEDURE pc() LANGUAGE plpgsql AS
        'BEGIN INSERT INTO u VALUES (80); COMMIT; INSERT INTO u VALUES (81); END';
    CREATE MATERIALIZED VIEW v AS SELECT 1 AS one;
";

/// The statements of a string, one by one.
fn parts(class: &Classified) -> Vec<Classified> {
    match &class.kind {
        StatementKind::Several(parts) => parts.clone(),
        StatementKind::Empty => Vec::new(),
        _ => vec![class.clone()],
    }
}

fn is_two_phase(part: &Classified) -> bool {
    part.unprotected == Some("two-phase commit")
}

/// The transaction's status behind a statement that has succeeded, as its kind says.
fn behind(status: char, part: &Classified) -> char {
    match &part.kind {
        StatementKind::Begin { .. }
        | StatementKind::Savepoint(_)
        | StatementKind::Release(_)
        | StatementKind::RollbackTo(_) => 'T',
        StatementKind::Commit { chain } | StatementKind::Rollback { chain } => {
            if *chain {
                'T'
            } else {
                'I'
            }
        }
        // COMMIT PREPARED runs outside; PREPARE TRANSACTION ends the transaction that it is in.
        _ if is_two_phase(part) && !part.outside_transaction => 'I',
        _ => status,
    }
}

/// And behind one that has failed.
fn behind_failure(status: char, part: Option<&Classified>) -> char {
    let ends = part.is_some_and(|part| {
        let commits = matches!(part.kind, StatementKind::Commit { .. });
        commits || (is_two_phase(part) && !part.outside_transaction)
    });
    match status {
        'I' => 'I',
        _ if ends => 'I',
        _ => 'E',
    }
}

/// What the classifier has said since the session was last looked at between transactions.
#[derive(Debug, Default)]
struct Said {
    settings: BTreeSet<String>,
    all_settings: bool,
    channels: BTreeSet<String>,
    /// The session cannot be carried over any more.
    unrestorable: bool,
    /// Counts once the transaction commits.
    unrestorable_if_committed: bool,
}

impl Said {
    fn note(&mut self, part: &Classified) {
        match &part.kind {
            StatementKind::Set { name, local: false } => {
                self.settings.insert(name.clone());
            }
            StatementKind::Reset(name) if name != "all" => {
                self.settings.insert(name.clone());
            }
            StatementKind::Reset(_) | StatementKind::Discard(Discard::All) => {
                self.all_settings = true;
            }
            StatementKind::Listen(name) => {
                self.channels.insert(name.clone());
            }
            _ => {}
        }
        self.all_settings |= part.sets_config;
        self.unrestorable_if_committed |= part.unrestorable.is_some();
        self.unrestorable |= part.outlives_rollback();
    }

    fn transaction_ends(&mut self, committed: bool) {
        self.unrestorable |= committed && self.unrestorable_if_committed;
        self.unrestorable_if_committed = false;
    }

    /// Whether something new in the session was announced.
    fn names(&self, thing: &str) -> bool {
        if self.unrestorable {
            return true;
        }
        let (what, name) = thing.split_once(' ').unwrap();
        match what {
            "setting" => {
                let name = name.split_once('=').unwrap().0.to_lowercase();
                let by = |other: &str| self.settings.contains(other);
                self.all_settings
                    || by(&name)
                    || (name.starts_with("default_transaction") && by("session characteristics"))
                    // A session of another role begins with none.
                    || (name == "role" && by("session_authorization"))
            }
            "channel" => self.channels.contains(name),
            _ => false,
        }
    }
}

struct Play<'a> {
    session: &'a mut Connection,
    observer: &'a mut Connection,
    status: char,
    /// The most that the open transaction may have done, by what was said of it.
    effect: Effect,
    said: Said,
    kept: BTreeSet<String>,
    next_id: String,
}

impl Play<'_> {
    /// The next transaction id: it moves on when one that was assigned has ended.
    fn next_id(&mut self) -> String {
        self.observer.value("SELECT pg_snapshot_xmax(pg_current_snapshot())").unwrap()
    }

    fn send(&mut self, sql: &str, extended: bool) -> Result<(), TestCaseError> {
        let class = classify(sql);
        let parts = parts(&class);
        prop_assert_eq!(parts.len(), split(sql).len());
        let copies =
            |part: &Classified| matches!(part.kind, StatementKind::CopyIn | StatementKind::CopyOut);
        let way = match extended && parts.len() == 1 && !parts.iter().any(copies) {
            true if class.prepare => Way::Extended("segue_7"),
            true => Way::Extended(""),
            false => Way::Simple,
        };
        let reply = self.session.ask(sql, way);
        self.check_statements(sql, &parts, &reply, way)?;
        self.check_transaction(sql, &parts, &reply)?;
        if way == Way::Extended("segue_7") && reply.status != 'E' {
            self.session.close("segue_7");
        }
        if reply.status == 'I' {
            self.check_session(sql)?;
        }
        Ok(())
    }

    fn check_statements(
        &self,
        sql: &str,
        parts: &[Classified],
        reply: &Reply,
        way: Way,
    ) -> Result<(), TestCaseError> {
        let done = reply.done.len();
        match &reply.error {
            None => prop_assert_eq!(done, parts.len(), "{}: {:?}", sql, reply),
            // An error of the commit comes behind the last one's command tag.
            Some(_) => prop_assert!(done <= parts.len(), "{}: {:?}", sql, reply),
        }
        let several = "cannot insert multiple commands into a prepared statement";
        if way != Way::Simple {
            prop_assert!(reply.error.as_ref().is_none_or(|(_, text)| text != several), "{}", sql);
        }
        for (part, (_, copying)) in parts.iter().zip(&reply.done) {
            let said = match part.kind {
                StatementKind::CopyIn => Copying::In,
                StatementKind::CopyOut => Copying::Out,
                _ => Copying::No,
            };
            prop_assert_eq!(said, *copying, "{}", sql);
        }
        // 25001 is also what a change of the isolation level is refused with when it comes too late.
        if let (Some(part), Some((code, text))) = (parts.get(done), &reply.error) {
            let refused = code == "25001" && text.ends_with("inside a transaction block");
            prop_assert!(!refused || part.outside_transaction, "{}: {}", sql, text);
        }
        Ok(())
    }

    fn check_transaction(
        &mut self,
        sql: &str,
        parts: &[Classified],
        reply: &Reply,
    ) -> Result<(), TestCaseError> {
        let mut status = self.status;
        let (mut most, before) = (Effect::None, self.effect);
        let mut implicit = status == 'I';
        for (part, (tag, _)) in parts.iter().zip(&reply.done) {
            most = most.max(effect(part));
            self.effect = self.effect.max(effect(part));
            self.said.note(part);
            let was = status;
            status = behind(status, part);
            let ends =
                matches!(part.kind, StatementKind::Commit { .. } | StatementKind::Rollback { .. })
                    || (was != 'I' && status == 'I');
            if ends {
                self.said.transaction_ends(tag != "ROLLBACK");
                self.effect = Effect::None;
                implicit = status == 'I';
            }
        }
        if let Some((code, _)) = &reply.error {
            let failed = parts.get(reply.done.len());
            if let Some(part) = failed {
                most = most.max(effect(part));
                self.effect = self.effect.max(effect(part));
                self.said.unrestorable |= part.outlives_failure();
            }
            // A string that does not parse is refused as a whole, before its first statement.
            let reached = failed.filter(|_| code != "42601");
            status = behind_failure(status, reached);
        }
        prop_assert_eq!(status, reply.status, "{} in {}: {:?}", sql, self.status, reply);
        self.status = status;
        let next_id = self.next_id();
        if most <= Effect::Reads && before <= Effect::Reads {
            prop_assert_eq!(&next_id, &self.next_id, "{} was given a transaction id", sql);
            if status == 'T' {
                let id = "SELECT pg_current_xact_id_if_assigned()";
                prop_assert_eq!(self.session.value(id), None, "{} has a transaction id", sql);
            }
        }
        self.next_id = next_id;
        if status == 'I' {
            let committed = reply.error.is_none();
            self.said.transaction_ends(implicit && committed);
            self.effect = Effect::None;
        }
        Ok(())
    }

    fn check_session(&mut self, sql: &str) -> Result<(), TestCaseError> {
        let kept = self.session.kept();
        for thing in kept.difference(&self.kept) {
            prop_assert!(self.said.names(thing), "{}: {} was not announced", sql, thing);
        }
        self.kept = kept;
        let said = std::mem::take(&mut self.said);
        self.said.unrestorable = said.unrestorable;
        Ok(())
    }
}

/// What a statement may do, as it is held against the server. DISCARD ALL takes a transaction id where there
/// are temporary tables to drop; it is said to do nothing because it may be run as often as one likes.
fn effect(part: &Classified) -> Effect {
    match part.kind {
        StatementKind::Discard(Discard::All) => Effect::MayWrite,
        _ => part.effect,
    }
}

#[test]
fn what_it_says_of_generated_statements_agrees_with_the_server() {
    let server =
        Server::start("-c max_prepared_transactions=4 -c autovacuum=off -c lock_timeout=100ms");
    server.connect().batch_execute(SCHEMA).unwrap();
    let observer = RefCell::new(Connection::open(&server));
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config.failure_persistence = None;
    config.max_shrink_iters = 300;
    let bools = (prop::bool::weighted(0.3), prop::bool::weighted(0.7));
    let sequences = prop::collection::vec((string(), bools), 1..24);
    let verdict = TestRunner::new(config).run(&sequences, |sequence| {
        let mut observer = observer.borrow_mut();
        observer.ask("ROLLBACK PREPARED 'x'", Way::Simple);
        let mut session = Connection::open(&server);
        let kept = session.kept();
        let mut play = Play {
            session: &mut session,
            observer: &mut observer,
            status: 'I',
            effect: Effect::None,
            said: Said::default(),
            kept,
            next_id: String::new(),
        };
        play.next_id = play.next_id();
        for (sql, (extended, recovers)) in &sequence {
            // In a failed transaction most is refused alike.
            if play.status == 'E' && *recovers {
                play.send("ROLLBACK", *extended)?;
            }
            play.send(sql, *extended)?;
        }
        Ok(())
    });
    if let Err(failure) = verdict {
        panic!("{failure}");
    }
}
