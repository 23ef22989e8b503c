//! A session is told the same of a reply, in whatever pieces that arrives.

use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use segue::session::{Event, Execute, NoParameters, Session, Statement};

use crate::backend::Message;
use crate::config;
use crate::frontend::live_session;

/// A reply to a statement of `columns` columns, with what may come between at any place.
fn reply() -> impl Strategy<Value = Vec<Message>> {
    let value = prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..20));
    let aside = prop::option::weighted(
        0.2,
        prop_oneof![
            Just(Message::Setting("a".to_owned(), "b".to_owned())),
            Just(Message::Notification(7, "c".to_owned(), "payload".to_owned())),
            Just(Message::Complaint(false, vec![(b'V', "NOTICE".to_owned())])),
        ],
    );
    let end = prop_oneof![
        3 => Just(Message::Complete("SELECT 5".to_owned())),
        1 => Just(Message::Complaint(
            true,
            vec![(b'V', "ERROR".to_owned()), (b'C', "22012".to_owned())],
        )),
    ];
    (0_usize..4)
        .prop_flat_map(move |columns| {
            let row = prop::collection::vec(value.clone(), columns);
            let rows = prop::collection::vec((row, aside.clone()), 0..6);
            (Just(columns), rows, end.clone())
        })
        .prop_map(|(columns, rows, end)| {
            let described = Message::description(columns);
            let mut reply = vec![Message::Brief(b'1'), Message::Parameters(Vec::new()), described];
            reply.push(Message::Brief(b'2'));
            for (row, aside) in rows {
                if columns > 0 {
                    reply.push(Message::Row(row));
                }
                reply.extend(aside);
            }
            reply.extend([end, Message::Ready(b'I')]);
            reply
        })
}

fn asking() -> Session {
    let mut session = live_session();
    let statement = Arc::new(Statement::new(100, "SELECT 1", &[], true).unwrap());
    session
        .execute(Execute {
            statement: &statement,
            parameters: &NoParameters,
            text_results: false,
            streamed: false,
        })
        .unwrap();
    session.output();
    session.handle_sent();
    session
}

fn told(session: &mut Session, told: &mut Vec<String>) {
    while let Some(event) = session.poll_event() {
        told.push(match event {
            Event::Error(error) => format!("{error:?}"),
            other => format!("{other:?}"),
        });
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_reply_is_told_alike_in_whatever_pieces_it_arrives(reply in reply()) {
        let mut stream = BytesMut::new();
        reply.iter().for_each(|message| message.write(&mut stream));
        let mut whole = Vec::new();
        let mut session = asking();
        session.handle_input(&mut stream.clone()).unwrap();
        told(&mut session, &mut whole);
        prop_assert!(whole.last().is_some_and(|last| last == "Ready(Idle)"), "{:?}", whole);
        let rows = reply.iter().filter(|message| matches!(message, Message::Row(_))).count();
        let told_rows = whole.iter().filter(|told| told.starts_with("Row(")).count();
        prop_assert_eq!(rows, told_rows);

        for cut in 0..=stream.len() {
            let mut pieces = Vec::new();
            let mut session = asking();
            let mut input = BytesMut::from(&stream[..cut]);
            session.handle_input(&mut input).unwrap();
            told(&mut session, &mut pieces);
            input.extend_from_slice(&stream[cut..]);
            session.handle_input(&mut input).unwrap();
            told(&mut session, &mut pieces);
            prop_assert_eq!(&pieces, &whole, "cut at {}", cut);
        }
    }
}
