//! Any bytes as what a server sends: cutting them into messages and reading those must not panic, must
//! take no more than there is, and must give the same whether they arrive in one piece or in many.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use segue::wire::error_fields;
use segue::wire::frame::{self, Frame, Status};
use segue::wire::row::{self, Values};

const LIMIT: usize = 1 << 16;

/// What the bytes are cut into, and whether they were refused in the end.
fn frames(pieces: &[&[u8]]) -> (Vec<(u8, Vec<u8>)>, bool) {
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match Frame::take(&mut buf, LIMIT) {
                Ok(Some(frame)) => frames.push((frame.tag(), frame.body().to_vec())),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((at, data)) = data.split_first() else { return };
    let whole = frames(&[data]);
    let (front, back) = data.split_at(data.len() * usize::from(*at) / 256);
    assert_eq!(whole, frames(&[front, back]), "in two pieces");
    let taken: usize = whole.0.iter().map(|(_, body)| body.len() + frame::HEADER).sum();
    assert!(taken <= data.len());

    for (tag, body) in &whole.0 {
        let _ = frame::command_tag(body).map(frame::rows_affected);
        let _ = Status::from_body(body);
        if let Ok(error) = error_fields::parse(body) {
            let _ = (error.to_string(), format!("{error:?}"));
        }
        if row::check(body, None).is_ok() {
            let values = Values::new(body).expect("a row that was checked");
            let bytes: usize = values
                .map(|value| value.expect("a value that was checked").map_or(0, <[u8]>::len))
                .sum();
            assert!(bytes <= body.len());
        }
        let mut message = vec![*tag];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        let mut buf = BytesMut::from(&message[..]);
        if let Ok(Some(frame)) = Frame::take(&mut buf, LIMIT) {
            let _ = frame.parse();
        }
    }
});
