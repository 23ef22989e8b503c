//! The rows of the ledger that commits are sealed in: opened ahead of them, and refused now and then.

use super::*;

fn opened() -> Vec<u8> {
    [message(b'1', b""), message(b'2', b""), row("1"), complete("SELECT 1"), ready(b'I')].concat()
}

fn refused() -> Vec<u8> {
    [error("53100"), ready(b'I')].concat()
}

/// A session whose row was refused when it took its link.
fn without_row(ledger_required: bool) -> Play {
    let mut play = Play::start();
    play.session.options.ledger_required = ledger_required;
    play.session.handle_link_lost();
    play.session.seals.unconfirm(true);
    play.link(1, 2);
    assert!(play.sends("segue.open("));
    play.receive(&refused());
    assert!(play.told()[0].starts_with("ProtectionLost"));
    assert!(!play.session.ledger_in_use());
    play
}

/// The disk was full when the next row was due; the session gave the ledger up, and with
/// `ledger=require` refused every write for as long as it stayed on that server (chaos, seed 601).
#[test]
fn a_row_that_cannot_be_opened_for_lack_of_room_is_asked_for_again() {
    let mut play = Play::start();
    for _ in 0..100 {
        play.execute("INSERT INTO t VALUES (1)");
        assert!(!play.sends("segue.open("));
        play.receive(&sealed_insert());
    }
    play.told();
    for _ in 0..2 {
        play.execute("INSERT INTO t VALUES (1)");
        assert!(play.sends("segue.open(") && play.sends("segue_seal"));
        play.receive(&[error("53100"), ready(b'I'), sealed_insert()].concat());
        assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"], "sealed in the row that is there");
        assert!(play.session.ledger_in_use());
    }
}

/// The same where there is no row yet: the write waits for it, and is sealed.
#[test]
fn a_first_row_that_cannot_be_opened_for_lack_of_room_is_asked_for_again() {
    let mut play = without_row(true);
    play.execute("INSERT INTO t VALUES (1)");
    assert!(play.sends("segue.open(") && !play.sends("INSERT"));
    play.receive(&opened());
    assert!(play.sends("INSERT") && play.sends("segue_seal"));
    play.receive(&sealed_insert());
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
    assert!(play.session.ledger_in_use());
}

/// The write went out behind the opening of its row, which was refused. The fast seal found no row and
/// wrote nothing; the link was lost before either reply was heard, and on the next server, whose ledger
/// did not have the row, the write was run again and stood twice (simulation, seed 1080699).
#[test]
fn a_write_whose_row_is_refused_goes_without_a_seal() {
    let mut play = without_row(false);
    play.execute("INSERT INTO t VALUES (1)");
    assert!(play.sends("segue.open(") && !play.sends("INSERT"));
    play.receive(&refused());
    assert!(play.sends("INSERT") && !play.sends("segue_seal"));
    assert!(play.told()[0].starts_with("ProtectionLost"));
    play.fail_over();
    assert_eq!(play.told(), ["error 08007 Unknown", "ready Idle"]);
}

/// Where the opening is lost with its link, nothing was written, and the write is run on the next server.
#[test]
fn a_write_whose_row_is_being_opened_is_not_sent_before() {
    let mut play = without_row(false);
    play.execute("INSERT INTO t VALUES (1)");
    play.move_to(2, 3);
    play.receive(&[no_columns(), complete("SELECT 0"), ready(b'I')].concat());
    assert!(play.sends("segue.open(") && !play.sends("INSERT"));
    play.receive(&opened());
    assert!(play.sends("INSERT") && play.sends("segue_seal"));
    play.receive(&sealed_insert());
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
}

/// With `ledger=require` what cannot be sealed is refused, and hears why of the server where that may pass: an
/// application that waits for room on the disk would not know `LedgerError` (chaos, seed 980).
#[test]
fn a_write_whose_row_is_refused_is_refused_where_the_ledger_is_required() {
    let mut play = without_row(true);
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&refused());
    assert!(!play.sends("INSERT"));
    assert_eq!(play.told()[1..], ["error 53100 NotCommitted", "ready Idle"]);
    play.execute("INSERT INTO t VALUES (2)");
    play.receive(&opened());
    play.receive(&sealed_insert());
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
}

/// A transaction's writes travel with the opening of the row, its COMMIT does not.
#[test]
fn a_commit_waits_for_its_row() {
    for (ledger_required, row_is_opened) in
        [(false, true), (false, false), (true, true), (true, false)]
    {
        let mut play = without_row(ledger_required);
        play.session.begin(BeginOptions::default()).unwrap();
        play.make("INSERT INTO t VALUES (1)", false);
        play.session.commit(false).unwrap();
        play.flush();
        assert!(play.sends("segue.open(") && play.sends("INSERT") && !play.sends("segue_commit"));
        let inserted = [message(b'2', b""), complete("BEGIN"), written()].concat();
        if row_is_opened {
            play.receive(&opened());
            assert!(play.sends("segue_seal") && play.sends("segue_commit"));
            play.receive(&[inserted, committed()].concat());
            assert_eq!(play.told()[4..], ["COMMIT", "ready Idle"]);
            continue;
        }
        play.receive(&refused());
        if !ledger_required {
            assert!(play.sends("segue_commit") && !play.sends("segue_seal"));
            continue;
        }
        assert!(!play.sends("segue_commit"));
        play.receive(&inserted);
        assert!(play.sends("ROLLBACK"));
        play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
        let refused = ["error 53100 NotCommitted", "ready Failed", "error 53100 NotCommitted"];
        assert_eq!(play.told()[3..], [&refused[..], &["ready Idle"]].concat());
    }
}

/// With `ledger=require` a transaction that was sealed nowhere was committed all the same, if only its
/// COMMIT came after the ledger had been refused.
#[test]
fn a_commit_without_a_ledger_is_refused_where_it_is_required() {
    let mut play = without_row(true);
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&refused());
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.told();
    play.session.commit(false).unwrap();
    play.flush();
    assert!(play.sends("ROLLBACK") && !play.sends("segue_commit"));
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(play.told(), ["error 53100 NotCommitted", "ready Idle"]);
}

/// The next server's ledger was without the row of a write in flight, and refused to open one for lack
/// of room: the outcome was told as unknown, though the ledger had just said that it was not committed.
#[test]
fn a_row_is_asked_for_elsewhere_where_something_in_flight_needs_it() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.receive(&[no_columns(), complete("SELECT 0"), ready(b'I')].concat());
    assert!(play.sends("segue.open("));
    play.receive(&error("53100"));
    assert!(play.session.gives_up_link());
    play.move_to(2, 3);
    play.receive(&[no_columns(), complete("SELECT 0"), ready(b'I')].concat());
    play.receive(&opened());
    assert!(play.sends("INSERT") && play.sends("segue_seal"));
}
