//! The pipe against answers written by hand: what each of them means, and what is sent in reply.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use crate::client::Submission;
use crate::client::submit::pipe::{Answer, Fate, Pipe};
use crate::client::submit::queue::Job;
use crate::client::submit::submission::Payload;

pub fn payload(statements: usize) -> Payload {
    let mut it = Submission::new();
    for number in 0..statements {
        it = it.statement(&format!("INSERT INTO t VALUES ({number})"), &[]).unwrap();
    }
    it.into_payload(0).unwrap()
}

pub fn job(number: u64) -> Job {
    Job { number, after: None, solo: false, suspect: false, condemned: false }
}

fn message(tag: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).unwrap());
    out.put_slice(body);
}

/// A server's answers: `1` ParseComplete, `2` BindComplete, `C` a command of one row, `R` ROLLBACK or
/// COMMIT, `Z` idle, `T` in a transaction, `F` in a failed one, or the SQLSTATE of an error.
pub fn answers(script: &str) -> BytesMut {
    let mut out = BytesMut::new();
    for word in script.split_whitespace() {
        match word {
            "1" => message(b'1', b"", &mut out),
            "2" => message(b'2', b"", &mut out),
            "C" => message(b'C', b"INSERT 0 1\0", &mut out),
            "R" => message(b'C', b"COMMIT\0", &mut out),
            "Z" => message(b'Z', b"I", &mut out),
            "T" => message(b'Z', b"T", &mut out),
            "F" => message(b'Z', b"E", &mut out),
            code => {
                let body = format!("SERROR\0C{code}\0Mno\0\0");
                message(b'E', body.as_bytes(), &mut out);
            }
        }
    }
    out
}

/// What one submission of two statements comes to.
fn fate(script: &str, alone: bool) -> (Fate, Vec<u8>) {
    let mut pipe = Pipe::new(0, 1 << 20);
    let mut out = BytesMut::new();
    assert!(pipe.push(&Job { solo: alone, ..job(7) }, &payload(2), false, &mut out));
    let (mut replies, mut told) = (BytesMut::new(), Vec::new());
    pipe.feed(&mut answers(script), &mut replies, &mut told).unwrap();
    assert!(pipe.is_empty());
    assert_eq!(pipe.jobs(), 0);
    assert_eq!(told.len(), 1);
    match told.pop() {
        Some(Answer::Job(7, fate)) => (fate, replies.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_each_answer_means() {
    let done = "2 C 1 2 C 1 2 C Z";
    assert!(matches!(fate(done, false).0, Fate::Committed(rows) if rows == [1, 1]));
    assert!(matches!(fate("2 23505 Z", false).0, Fate::FoundDone));
    assert!(matches!(fate("2 SG003 Z", false).0, Fate::OutOfOrder));
    assert!(matches!(fate("42P01 Z", false).0, Fate::NoClaim(_)));
    assert!(matches!(fate("2 25006 Z", false).0, Fate::NoClaim(_)));
    // The same words mean something else where the application's statements say them.
    let failed = |script| match fate(script, false).0 {
        Fate::Failed { statement, error } => (statement, error.code.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed("2 C 1 2 23505 Z"), (0, "23505".to_owned()));
    assert_eq!(failed("2 C 1 2 C 1 SG003 Z"), (1, "SG003".to_owned()));
    assert_eq!(failed("2 C 1 2 C 1 2 C 23503 Z"), (1, "23503".to_owned()), "deferred");
    assert_eq!(failed("2 40001 Z"), (0, "40001".to_owned()), "a conflict of the claim's");
}

#[test]
fn what_travels_alone_is_ended_by_what_is_found() {
    let contains =
        |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|it| it == word.as_bytes());
    let (it, sent) = fate("1 2 R 2 C 1 2 C 1 2 C T 1 2 R Z", true);
    assert!(matches!(it, Fate::Committed(rows) if rows == [1, 1]));
    assert!(contains(&sent, "COMMIT"));
    let (it, sent) = fate("1 2 R 2 23505 F 1 2 R Z", true);
    assert!(matches!(it, Fate::FoundDone));
    assert!(contains(&sent, "ROLLBACK"));
    let (it, _) = fate("1 2 R 2 C 1 2 C 1 2 C T 23503 Z", true);
    assert!(matches!(it, Fate::Failed { statement: 1, .. }), "COMMIT is refused");
}

/// The statements of one that may crash the server are sent once its claim is answered, if at all.
#[test]
fn the_claim_of_a_suspect_goes_ahead() {
    const CLAIMED: &str = "1 2 R 1 2 R 2 C T";
    let sent = |out: &BytesMut, word: &str| out.windows(word.len()).any(|it| it == word.as_bytes());
    let begin = |condemned| {
        let mut pipe = Pipe::new(8, 1 << 20);
        let mut out = BytesMut::new();
        let suspect = Job { solo: true, suspect: true, condemned, ..job(7) };
        assert!(pipe.push(&suspect, &payload(2), false, &mut out));
        assert!(sent(&out, "BEGIN") && !sent(&out, "INSERT"), "nothing of it is sent yet");
        assert!(pipe.is_alone());
        assert_eq!((pipe.unanswered(), pipe.exposed()), (vec![7], None));
        (pipe, BytesMut::new(), Vec::new())
    };
    let (mut pipe, mut out, mut told) = begin(false);
    pipe.feed(&mut answers(CLAIMED), &mut out, &mut told).unwrap();
    assert!(matches!(told[..], [Answer::Claimed(7)]) && sent(&out, "INSERT"));
    assert_eq!((pipe.unanswered(), pipe.exposed()), (vec![7], Some(7)));
    pipe.feed(&mut answers("1 2 C 1 2 C T"), &mut out, &mut told).unwrap();
    assert!(sent(&out, "COMMIT"));
    assert_eq!(pipe.exposed(), Some(7), "a deferred trigger may yet crash");
    pipe.feed(&mut answers("1 2 R Z"), &mut out, &mut told).unwrap();
    assert!(matches!(&told[1..], [Answer::Job(7, Fate::Committed(rows))] if rows == &[1, 1]));
    assert!(pipe.is_empty() && pipe.jobs() == 0 && pipe.exposed().is_none());

    let (mut pipe, mut out, mut told) = begin(true);
    pipe.feed(&mut answers(CLAIMED), &mut out, &mut told).unwrap();
    assert!(matches!(told[..], [Answer::Claimed(7)]));
    assert!(sent(&out, "ROLLBACK") && !sent(&out, "INSERT"), "it is asked for, and not run");
    pipe.feed(&mut answers("1 2 R Z"), &mut out, &mut told).unwrap();
    assert!(matches!(told[1..], [Answer::Job(7, Fate::Crashes)]) && pipe.jobs() == 0);

    for condemned in [false, true] {
        let (mut pipe, mut out, mut told) = begin(condemned);
        pipe.feed(&mut answers("1 2 R 1 2 R 2 23505 F 1 2 R Z"), &mut out, &mut told).unwrap();
        assert!(
            matches!(told[..], [Answer::Job(7, Fate::FoundDone)]),
            "done by an earlier attempt"
        );
        assert!(!sent(&out, "INSERT") && pipe.jobs() == 0);
    }
}

#[test]
fn what_a_server_says_of_its_end_is_heard() {
    let notice = |code: &str, severity: &str, tag: u8| {
        let mut out = BytesMut::new();
        message(tag, format!("S{severity}\0C{code}\0Mno\0\0").as_bytes(), &mut out);
        out
    };
    let words = |mut fed: BytesMut, mut left: BytesMut| {
        let mut pipe = Pipe::new(0, 1 << 20);
        assert!(pipe.push(&job(7), &payload(1), false, &mut BytesMut::new()));
        pipe.feed(&mut fed, &mut BytesMut::new(), &mut Vec::new()).unwrap();
        pipe.last_words(&mut left).map(|words| words.code)
    };
    let crash = notice("57P02", "WARNING", b'N');
    assert_eq!(words(crash.clone(), BytesMut::new()).as_deref(), Some("57P02"));
    assert_eq!(words(BytesMut::new(), crash).as_deref(), Some("57P02"));
    let panic = notice("53100", "PANIC", b'E');
    assert_eq!(words(panic, BytesMut::new()).as_deref(), Some("53100"));
    // What is said of a statement, or besides, is not said of an end.
    let error = notice("23505", "ERROR", b'E');
    assert_eq!(words(error, notice("01000", "WARNING", b'N')), None);
}

#[test]
fn an_expectation_that_is_not_met_rolls_back() {
    let mut pipe = Pipe::new(0, 1 << 20);
    let it = Submission::new().statement("DELETE FROM t", &[]).unwrap().expect_rows(2..=3);
    let (mut out, mut told) = (BytesMut::new(), Vec::new());
    let alone = Job { solo: true, ..job(1) };
    assert!(pipe.push(&alone, &it.into_payload(0).unwrap(), false, &mut out));
    assert!(pipe.is_alone());
    out.clear();
    pipe.feed(&mut answers("1 2 R 2 C 1 2 C T"), &mut out, &mut told).unwrap();
    assert!(told.is_empty() && pipe.is_alone(), "nothing is said before it is rolled back");
    assert!(out.windows(8).any(|it| it == b"ROLLBACK"));
    pipe.feed(&mut answers("1 2 R Z"), &mut out, &mut told).unwrap();
    assert!(matches!(told[..], [Answer::Job(1, Fate::Unmet { statement: 0, rows: 1 })]));
}

/// The failure to prepare a statement ahead is nobody's: its submission says what is wrong with it.
#[test]
fn statements_are_prepared_once_and_again_after_a_failure() {
    let mut pipe = Pipe::new(8, 1 << 20);
    let it = payload(1);
    let count = |out: &BytesMut| out.windows(9).filter(|it| it == b"\0INSERT I").count();
    let (mut out, mut told) = (BytesMut::new(), Vec::new());
    assert!(pipe.push(&job(1), &it, false, &mut out) && pipe.push(&job(2), &it, false, &mut out));
    assert_eq!(count(&out), 1);
    assert_eq!(pipe.unanswered(), [1, 2]);
    let script = "42P01 Z 2 C 26000 Z 2 C 26000 Z";
    pipe.feed(&mut answers(script), &mut out, &mut told).unwrap();
    assert_eq!(told.len(), 2);
    out.clear();
    assert!(pipe.push(&job(1), &it, true, &mut out));
    assert!(pipe.push(&job(2), &it, false, &mut out));
    assert_eq!(count(&out), 2, "without a name, and under one again");
}

#[test]
fn what_nobody_asked_for_ends_the_link() {
    for script in ["C", "Z", "42P01", "2 C Z"] {
        let mut pipe = Pipe::new(0, 1 << 20);
        if script == "2 C Z" {
            // The claim alone, and no result of the statements.
            assert!(pipe.push(&job(1), &payload(2), false, &mut BytesMut::new()));
        }
        let (mut out, mut told) = (BytesMut::new(), Vec::new());
        assert!(pipe.feed(&mut answers(script), &mut out, &mut told).is_err(), "{script}");
        assert!(told.is_empty());
    }
}

proptest! {
    /// However the bytes are cut into pieces, and whatever they are, they mean the same or are refused.
    #[test]
    fn bytes_in_any_pieces(cuts in prop::collection::vec(1..40usize, 1..20), noise in prop::option::of((0..90usize, any::<u8>()))) {
        let script = "42P01 Z 2 C 26000 Z 2 C 1 2 C 1 2 C Z";
        let mut bytes = answers(script);
        if let Some((at, byte)) = noise {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let told = |pieces: &[usize]| {
            let mut pipe = Pipe::new(1, 1 << 20);
            let (mut out, mut told) = (BytesMut::new(), Vec::new());
            assert!(pipe.push(&job(1), &payload(1), false, &mut out));
            assert!(pipe.push(&job(2), &payload(2), true, &mut out));
            let (mut input, mut rest) = (BytesMut::new(), bytes.clone());
            let mut refused = false;
            for piece in pieces.iter().cycle() {
                if rest.is_empty() || refused {
                    break;
                }
                input.extend_from_slice(&rest.split_to((*piece).min(rest.len())));
                refused = pipe.feed(&mut input, &mut out, &mut told).is_err();
            }
            (refused, format!("{told:?}"))
        };
        prop_assert_eq!(told(&cuts), told(&[usize::MAX]));
    }
}
