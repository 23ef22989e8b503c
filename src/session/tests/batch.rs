//! Statements that an open transaction is given without waiting, and that share one Sync.

use super::*;

const SYNC: &[u8] = b"S\0\0\0\x04";

fn syncs(play: &Play) -> usize {
    play.sent.windows(SYNC.len()).filter(|window| *window == SYNC).count()
}

fn inserted() -> Vec<u8> {
    [no_columns(), complete("INSERT 0 1")].concat()
}

/// Three statements that are on their way together.
fn three() -> Play {
    let mut play = Play::start();
    play.begin_and_read();
    let insert = play.statement("INSERT INTO t VALUES (1)");
    for _ in 1..=3 {
        play.make_of(&insert, false);
    }
    play.flush();
    assert_eq!(syncs(&play), 1);
    play
}

#[test]
fn each_is_told_as_it_is_answered() {
    let mut play = three();
    play.receive(&inserted());
    assert_eq!(play.told(), ["INSERT 0 1", "ready Open"]);
    play.receive(&[inserted(), inserted()].concat());
    assert_eq!(play.told(), ["INSERT 0 1", "ready Open", "INSERT 0 1"]);
    play.receive(&ready(b'T'));
    assert_eq!(play.told(), ["ready Open"]);
    play.session.commit(false).unwrap();
    play.flush();
    play.receive(&committed());
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
}

#[test]
fn what_is_behind_a_failing_one_is_told_that_the_transaction_has_failed() {
    let mut play = three();
    play.receive(&[inserted(), no_columns(), error("23505")].concat());
    assert_eq!(
        play.told(),
        ["INSERT 0 1", "ready Open", "error 23505 NotCommitted", "ready Failed"]
    );
    play.receive(&ready(b'E'));
    assert_eq!(play.told(), ["error 25P02 NotCommitted", "ready Failed"]);
    play.session.rollback(false).unwrap();
    play.flush();
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(play.told(), ["ROLLBACK", "ready Idle"]);
}

#[test]
fn a_statement_that_does_not_parse_is_the_first_of_its_batch() {
    let mut play = three();
    play.receive(&error("42601"));
    assert_eq!(
        play.told(),
        ["error 42601 NotCommitted", "ready Failed", "error 25P02 NotCommitted", "ready Failed"]
    );
    play.receive(&ready(b'E'));
    assert_eq!(play.told(), ["error 25P02 NotCommitted", "ready Failed"]);
}

#[test]
fn each_has_a_sync_of_its_own_when_it_is_run_again() {
    let mut play = three();
    play.receive(&inserted());
    play.told();
    play.fail_over();
    // The question to the ledger, the transaction's first statement, and the three.
    assert_eq!(syncs(&play), 5);
    let look = play.look(0, 0);
    play.receive(&[look, begun_and_read("a"), written(), written(), written()].concat());
    assert_eq!(
        play.told(),
        ["replay of 2", "replayed", "INSERT 0 1", "ready Open", "INSERT 0 1", "ready Open"]
    );
}

/// A transaction that has failed is run again to its end as well: what the server says then of each
/// statement by itself is what was told for those it had passed over.
#[test]
fn what_was_told_of_those_passed_over_is_what_the_server_says_of_each() {
    let mut play = three();
    play.receive(&[no_columns(), error("23505"), ready(b'E')].concat());
    play.told();
    play.fail_over();
    let look = play.look(0, 0);
    let failed = |code: &str| [error(code), ready(b'E')].concat();
    let again = [
        look,
        begun_and_read("a"),
        no_columns(),
        failed("23505"),
        failed("25P02"),
        failed("25P02"),
    ];
    play.receive(&again.concat());
    assert_eq!(play.told(), ["replay of 4", "replayed"]);
}

#[test]
fn a_savepoint_and_what_mends_a_transaction_share_no_sync() {
    let mut play = Play::start();
    play.begin_and_read();
    for sql in ["INSERT INTO t VALUES (1)", "SAVEPOINT a", "SELECT 1", "ROLLBACK TO a"] {
        play.make(sql, false);
    }
    play.flush();
    assert_eq!(syncs(&play), 4);
}

/// A statement that was passed over together with the Close of one that had made room for it left that
/// one prepared, and its next Parse failed with 42P05 (simulation, seed 567). COMMIT shares nothing.
#[test]
fn a_statement_that_has_to_be_parsed_begins_a_batch_and_commit_is_in_none() {
    let mut play = Play::start();
    play.begin_and_read();
    let insert = play.statement("INSERT INTO t VALUES (1)");
    for _ in 1..=3 {
        play.make_of(&insert, false);
    }
    let other = play.statement("INSERT INTO t VALUES (2)");
    play.make_of(&other, false);
    play.make_of(&other, false);
    play.session.commit(false).unwrap();
    play.flush();
    assert_eq!(syncs(&play), 3);
    let (batch, end) = ([inserted(), inserted(), written()], [inserted(), written(), committed()]);
    play.receive(&[batch.concat(), end.concat()].concat());
    let told = play.told();
    assert_eq!(told.last().map(String::as_str), Some("ready Idle"), "{told:?}");
}

/// While more is about to be requested, what there is goes out without the Sync that it may share.
#[test]
fn a_sync_that_may_be_shared_is_owed_until_nothing_follows() {
    let mut play = Play::start();
    play.begin_and_read();
    let insert = play.statement("INSERT INTO t VALUES (1)");
    for _ in 1..=3 {
        play.make_of(&insert, false);
        play.sent = play.session.output_so_far().to_vec();
        play.session.handle_sent();
        assert!(play.sends("segue_") && syncs(&play) == 0);
    }
    play.flush();
    assert_eq!(play.sent, SYNC);
    play.receive(&[inserted(), inserted(), inserted(), ready(b'T')].concat());
    assert_eq!(play.told().iter().filter(|told| *told == "ready Open").count(), 3);
}

/// The seal and COMMIT behind a statement that has failed: the server passes over both, and the
/// transaction is rolled back.
#[test]
fn a_commit_sent_behind_a_failing_statement_rolls_back() {
    let mut play = three();
    play.session.commit(false).unwrap();
    play.flush();
    assert!(play.sends("segue_seal") && play.sends("segue_commit"));
    play.receive(&[inserted(), error("23505"), ready(b'E')].concat());
    play.receive(&[error("25P02"), ready(b'E')].concat());
    assert_eq!(play.told().last().map(String::as_str), Some("ready Failed"));
    assert!(play.sends("ROLLBACK"));
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(play.told(), ["error 25P02 NotCommitted", "ready Idle"]);
    assert_eq!(play.session.status(), Status::Idle);
}

#[test]
fn several_sets_of_parameters_are_one_request_with_one_seal() {
    let mut play = Play::start();
    let statement = play.statement("INSERT INTO t VALUES (1)");
    let set: &dyn Parameters = &NoParameters;
    play.session.execute_sets(&statement, &[set, set, set]).unwrap();
    play.flush();
    assert!(play.sends("segue_seal") && !play.sends("segue_begin"));
    let repeated = [message(b'2', b""), complete("INSERT 0 1")].concat();
    play.receive(&[no_columns(), complete("INSERT 0 1"), repeated.clone()].concat());
    // The first of three was answered, and the second: all are run again, once.
    play.fail_over();
    play.receive_look(0, 0);
    let seal = [message(b'2', b""), complete("UPDATE 1")].concat();
    let all = [no_columns(), complete("INSERT 0 1"), repeated.clone(), repeated, seal].concat();
    play.receive(&[all, ready(b'I')].concat());
    let told = play.told();
    assert_eq!(told.iter().filter(|event| *event == "restarted").count(), 1, "{told:?}");
    let after = told.iter().position(|event| event == "restarted").unwrap();
    assert_eq!(told[after + 1..], ["INSERT 0 1", "INSERT 0 1", "INSERT 0 1", "ready Idle"]);
    let begin = play.statement("BEGIN");
    assert!(play.session.execute_sets(&begin, &[set]).is_err());
    assert!(play.session.execute_sets(&statement, &[]).is_err());
}
