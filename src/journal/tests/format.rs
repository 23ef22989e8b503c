//! Records, frames and headers: there and back, and what comes of any other bytes.

use std::borrow::Cow;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::faulty::Faulty;
use crate::journal::crypt::{Cipher, Key};
use crate::journal::frame::{self, FRAME_BYTES, Frame, Meta};
use crate::journal::header::{End, HEADER_BYTES, Header, HeaderError, Secrets};
use crate::journal::segment::{name_of, number_of};
use crate::journal::{
    Checkpoint, DeadLetter, Expect, Fate, Form, Kind, Origin, OutcomeKnown, Param, Reason, Record,
    Seal, Seen, Statement, Submission, SubmissionOutcome, Submitted, TransactionBegan, read,
};

fn there_and_back(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let decoded = Record::decode(record.kind(), record.kind().version(), &bytes);
    assert!(decoded.as_ref() == Ok(record), "{record:?}");
    bytes
}

/// One of each kind.
fn examples() -> Vec<Record<'static>> {
    let row = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);
    vec![
        super::script_session(),
        Record::TransactionBegan(TransactionBegan {
            session: 1,
            began_unix_ms: 2,
            autocommit: false,
            read_only: true,
            begin: "BEGIN READ ONLY",
        }),
        Record::Statement(Statement {
            form: Form::Simple,
            sql: "SELECT 'secret'",
            param_oids: Cow::Borrowed(&[23, 0]),
            request: b"Bsecret",
        }),
        Record::StatementData(b"dsecret"),
        Record::Seen(Seen { statement: 1, count: 2, digest: 3 }),
        Record::CommitSent(Seal { row, number: 1, guarded: true }),
        Record::OutcomeKnown(OutcomeKnown {
            fate: Fate::NotCommitted,
            at_unix_ms: 1,
            sqlstate: "23505",
        }),
        Record::Ended,
        Record::Submission(Submission {
            id: row,
            lane: "lane",
            key: "key",
            submitted_unix_ms: 1,
            blocks_lane: true,
            statements: vec![Submitted {
                sql: "SELECT 'secret'",
                params: vec![Param { oid: 25, format: 0, value: Some(b"secret") }],
                expect: Expect::Rows { min: 1, max: 2 },
            }],
        }),
        Record::SubmissionOutcome(SubmissionOutcome {
            fate: Fate::Committed,
            at_unix_ms: 1,
            affected: Cow::Borrowed(&[1, 2]),
            sqlstate: "",
            message: "secret",
        }),
        Record::DeadLetter(DeadLetter {
            at_unix_ms: 1,
            statement: 2,
            origin: Origin::Server,
            fields: vec![(b'C', "23514"), (b'M', "secret"), (b'D', "secret"), (b'n', "s_check")],
        }),
        Record::Checkpoint(Checkpoint {
            next_owner: 1,
            live_owners: 2,
            live_bytes: 3,
            at_unix_ms: 4,
        }),
        Record::Doubted,
        Record::Timeline(7),
    ]
}

#[test]
fn each_kind_comes_back() {
    let kinds: Vec<u8> = examples()
        .iter()
        .map(|record| {
            there_and_back(record);
            record.kind() as u8
        })
        .collect();
    let all: Vec<u8> = (0..=u8::MAX).filter(|byte| Kind::of(*byte).is_some()).collect();
    assert_eq!(kinds, all);
}

/// What an earlier version of Segue has written of a dead letter.
#[test]
fn the_first_version_of_a_dead_letter_is_read() {
    let first = |sqlstate: &str, message: &str, detail: &str| {
        let mut bytes = vec![7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        for text in [sqlstate, message, detail] {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    };
    let bytes = first("23505", "ERROR: duplicate", "Key (id)=(1)");
    let Ok(Record::DeadLetter(it)) = Record::decode(Kind::DeadLetter, 1, &bytes) else {
        panic!("not read");
    };
    assert_eq!((it.at_unix_ms, it.statement, it.origin), (7, 2, Origin::Server));
    let expected = [(b'V', "ERROR"), (b'C', "23505"), (b'M', "duplicate"), (b'D', "Key (id)=(1)")];
    assert_eq!(it.fields, expected);
    assert_eq!(it.field(b'H'), None);
    let bytes = first("25P02", "3 rows", "");
    let Ok(Record::DeadLetter(it)) = Record::decode(Kind::DeadLetter, 1, &bytes) else {
        panic!("not read");
    };
    assert_eq!((it.origin, it.field(b'D')), (Origin::Unmet, None));
    for version in [0, 2, 3] {
        assert!(Record::decode(Kind::DeadLetter, version, &bytes).is_err());
    }
}

/// Of every kind but raw data, any prefix, and anything behind it, is refused.
#[test]
fn what_is_shorter_or_longer_is_refused() {
    for record in examples() {
        if record.kind() == Kind::StatementData {
            continue;
        }
        let mut bytes = there_and_back(&record);
        for len in 0..bytes.len() {
            assert!(
                Record::decode(record.kind(), record.kind().version(), &bytes[..len]).is_err(),
                "{record:?} {len}"
            );
        }
        bytes.push(0);
        assert!(
            Record::decode(record.kind(), record.kind().version(), &bytes).is_err(),
            "{record:?}"
        );
    }
}

#[test]
fn nothing_shows_statements_parameters_or_keys() {
    for record in examples() {
        let shown = format!("{record:?}");
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
        if let Record::Submission(submission) = &record {
            assert!(!format!("{submission:?} {:?}", submission.statements).contains("secret"));
        }
        if let Record::Statement(statement) = &record {
            assert!(!format!("{statement:?}").contains("secret"));
        }
    }
    assert_eq!(format!("{:?}", Key::new([7; 32])), "***");
}

/// The layout is what docs/journal.md says, to the byte.
#[test]
fn the_layout_is_the_documented_one() {
    let mut bytes = Vec::new();
    Record::CommitSent(Seal { row: Uuid::from_u128(1), number: 0x0203, guarded: true })
        .encode(&mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 2, 0, 0, 0, 0, 0, 0, 1]);
    let mut out = Vec::new();
    let meta = Meta { kind: 6, version: 1, owner: 0x0a0b, ordinal: 5, synced: 8192 };
    frame::write(&mut out, 8192, &meta, &bytes, &secrets(None, 1)).unwrap();
    assert_eq!(out.len(), 40 + 32);
    assert_eq!(out[..8], [25, 0, 0, 0, 6, 1, 0, 0]);
    assert_eq!(out[8..24], [0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 4, 0, 0]);
    assert_eq!(out[40..65], bytes);
    assert_eq!(out[65..], [0; 7]);
    let (front, _) = header(None, 0x0102).encode(None).unwrap();
    assert_eq!(front.len(), HEADER_BYTES);
    assert_eq!(front[..16], *b"SEGUEJNL\x01\0\0\x01\0\x02\0\0");
    assert_eq!(front[16..32], [3; 16]);
    assert_eq!(front[64..72], [2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(front[96..112], [7, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]);
}

fn header(cipher: Option<Cipher>, number: u64) -> Header {
    Header {
        file_id: [3; 16],
        journal_id: Uuid::from_u128(1),
        number,
        next_owner: 9,
        system_identifier: 10,
        client: Uuid::from_u128(2),
        created_unix_ms: 11,
        cipher,
        ends: vec![End { number: 7, at: 8192 }, End { number: 8, at: 8200 }],
    }
}

fn secrets(cipher: Option<Cipher>, number: u64) -> Secrets {
    header(cipher, number).encode(Some(&Key::new([1; 32]))).unwrap().1
}

#[test]
fn a_header_comes_back_and_tells_a_wrong_key_from_damage() {
    for cipher in [None, Some(Cipher::Aes256Gcm), Some(Cipher::ChaCha20Poly1305)] {
        let header = header(cipher, 12);
        let key = Key::new([1; 32]);
        let (bytes, _) = header.encode(Some(&key)).unwrap();
        let (decoded, check) = Header::decode(&bytes).unwrap();
        assert_eq!(decoded, header);
        let other = Key::new([2; 32]);
        let unlock = |key| decoded.unlock(check, key).map(|_| ());
        if cipher.is_some() {
            assert_eq!(unlock(Some(&key)), Ok(()));
            assert_eq!(unlock(Some(&other)), Err(HeaderError::WrongKey));
            assert_eq!(unlock(None), Err(HeaderError::KeyNeeded));
        } else {
            assert_eq!(unlock(None), Ok(()));
            assert_eq!(unlock(Some(&key)), Err(HeaderError::NotEncrypted));
        }
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Header::decode(&bytes).unwrap_err();
            let magic = bit < 64;
            assert_eq!(error == HeaderError::NotAJournal, magic);
            assert_eq!(error == HeaderError::Damaged, !magic);
        }
        assert!(Header::decode(&bytes[..HEADER_BYTES - 1]).is_err());
    }
}

/// A header that was changed, its checksum made to fit: what is sealed under it does not open.
#[test]
fn a_forged_header_opens_nothing() {
    use xxhash_rust::xxh3::xxh3_64;
    let key = Key::new([1; 32]);
    let (mut bytes, _) = header(Some(Cipher::Aes256Gcm), 12).encode(Some(&key)).unwrap();
    bytes[64] = 13;
    let checksum = xxh3_64(&bytes[..248]);
    bytes[248..].copy_from_slice(&checksum.to_le_bytes());
    let (forged, check) = Header::decode(&bytes).unwrap();
    assert_eq!(forged.number, 13);
    assert_eq!(forged.unlock(check, Some(&key)).unwrap_err(), HeaderError::WrongKey);
}

#[test]
fn a_key_is_hexadecimal() {
    let text = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    let key = Key::from_hex(text).unwrap();
    assert!(key != Key::new([0; 32]));
    for bad in ["", "00", &text[1..], &format!("{text}0"), &text.replace('1', "g"), &"é".repeat(32)]
    {
        assert!(Key::from_hex(bad).is_none());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    for (content, good) in [
        (format!("{text}\n").into_bytes(), true),
        (vec![9; 32], true),
        (vec![9; 31], false),
        (vec![9; 33], false),
        (format!("{text}\n00").into_bytes(), false),
        (Vec::new(), false),
    ] {
        std::fs::write(&path, &content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        match Key::from_file(&path) {
            Ok(_) => assert!(good, "{content:?}"),
            Err(error) => assert!(!good && error.reason() == Reason::BadKey, "{error}"),
        }
    }
    assert_eq!(Key::from_file(&dir.path().join("none")).unwrap_err().reason(), Reason::BadKey);
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(Key::from_file(&path).unwrap_err().reason(), Reason::Permissions);
}

#[test]
fn names_of_segments_come_back() {
    for number in [0, 1, u64::MAX] {
        assert_eq!(number_of(&name_of(number)), Some(number));
    }
    for name in ["lock", "segment-1.journal", "segment-000000000000000G.journal", "x"] {
        assert_eq!(number_of(name), None);
    }
    assert_eq!(number_of(&format!("{}.damaged", name_of(1))), None);
}

fn ciphers() -> impl Strategy<Value = Option<Cipher>> {
    prop_oneof![Just(None), Just(Some(Cipher::Aes256Gcm)), Just(Some(Cipher::ChaCha20Poly1305))]
}

proptest! {
    #[test]
    fn submissions_come_back(
        lane in ".{0,20}",
        key in ".{0,20}",
        blocks_lane: bool,
        statements in vec(
            (
                ".{0,40}",
                vec((any::<u32>(), any::<u16>(), option::of(vec(any::<u8>(), 0..40))), 0..4),
                option::of(any::<(u64, u64)>()),
            ),
            0..5,
        ),
    ) {
        let statements = statements
            .iter()
            .map(|(sql, params, expect)| Submitted {
                sql,
                params: params
                    .iter()
                    .map(|(oid, format, value)| Param {
                        oid: *oid,
                        format: *format,
                        value: value.as_deref(),
                    })
                    .collect(),
                expect: expect.map_or(Expect::Nothing, |(min, max)| Expect::Rows { min, max }),
            })
            .collect();
        there_and_back(&Record::Submission(Submission {
            id: Uuid::from_u128(7),
            lane: &lane,
            key: &key,
            submitted_unix_ms: 1,
            blocks_lane,
            statements,
        }));
    }

    #[test]
    fn statements_come_back(
        sql in ".{0,80}",
        oids in vec(any::<u32>(), 0..9),
        request in vec(any::<u8>(), 0..200),
    ) {
        there_and_back(&Record::Statement(Statement {
            form: Form::Extended,
            sql: &sql,
            param_oids: oids.into(),
            request: &request,
        }));
    }

    #[test]
    fn no_bytes_make_a_record_panic(kind in 0u8..20, bytes in vec(any::<u8>(), 0..300)) {
        if let Some(kind) = Kind::of(kind) {
            for version in 0..4 {
                let _ = Record::decode(kind, version, &bytes);
            }
        }
    }

    #[test]
    fn frames_come_back(
        cipher in ciphers(),
        payload in vec(any::<u8>(), 0..200),
        owner: u64,
        ordinal: u32,
        place in 0u64..1 << 40,
    ) {
        let position = place * 8;
        let secrets = secrets(cipher, 1);
        let meta = Meta { kind: 3, version: 1, owner, ordinal, synced: 16 };
        let mut out = vec![1, 2, 3];
        frame::write(&mut out, position, &meta, &payload, &secrets).unwrap();
        let bytes = &out[3..];
        prop_assert_eq!(bytes.len(), frame::frame_bytes(payload.len(), cipher.is_some()));
        let head: &[u8; FRAME_BYTES] = bytes.first_chunk().unwrap();
        let frame = Frame::read(head, position, &secrets).unwrap();
        prop_assert_eq!((frame.owner, frame.ordinal, frame.synced), (owner, ordinal, 16));
        let body = &bytes[FRAME_BYTES..];
        prop_assert!(frame.is_whole(body, position, &secrets));
        let mut scratch = Vec::new();
        let opened = frame.payload(head, body, position, &secrets, &mut scratch);
        prop_assert_eq!(opened, Some(&payload[..]));
        prop_assert!(cipher.is_none() || payload.len() < 8 || !body.starts_with(&payload));
        // Somewhere else it is none.
        prop_assert!(Frame::read(head, position + 8, &secrets).is_none());
    }

    /// Whatever stands in the files: no panic, and nothing that was not written.
    #[test]
    fn no_bytes_make_a_reader_panic(
        content in vec(any::<u8>(), 0..9000),
        with_header: bool,
        number in 0u64..3,
    ) {
        let mut content = content;
        if with_header {
            let (bytes, _) = header(None, number).encode(None).unwrap();
            content.resize(content.len().max(8192 + 300), 0);
            content[..HEADER_BYTES].copy_from_slice(&bytes);
        }
        let files = [(name_of(number), content)].into_iter().collect();
        if let Ok(recovered) = read(Arc::new(Faulty::of(&files)), None) {
            prop_assert_eq!(recovered.in_flight().count(), 0);
        }
    }

    /// Frames whose checksums fit, whatever stands in them: no panic, no records of nobody, and all that
    /// cannot be understood is told.
    #[test]
    fn no_frames_make_a_reader_panic(
        frames in vec((0u8..16, 0u64..4, 0u32..6, vec(any::<u8>(), 0..60)), 0..30),
        tail in vec(any::<u8>(), 0..200),
    ) {
        use crate::journal::fuzzing;
        let mut content = fuzzing::header(1);
        content.resize(8192, 0);
        for (kind, owner, ordinal, payload) in &frames {
            let position = content.len() as u64;
            content.extend(fuzzing::frame(position, *kind, *owner, *ordinal, payload));
        }
        content.extend(tail);
        let files = [(name_of(1), content)].into_iter().collect();
        let recovered = read(Arc::new(Faulty::of(&files)), None).unwrap();
        prop_assert_eq!(recovered.report().records, frames.len() as u64);
        for found in recovered.in_flight() {
            prop_assert!(frames.iter().any(|(_, owner, ..)| *owner == found.owner));
            recovered.records(found, |record| drop(format!("{record:?}"))).unwrap();
        }
    }
}
