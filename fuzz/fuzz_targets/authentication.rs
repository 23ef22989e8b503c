//! Any messages of a server that wants the user to authenticate: it must not get the password, and must not
//! be believed in what it has not proven.

#![no_main]

use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;
use segue::Config;
use segue::config::Environment;
use segue::link::fuzzing::authenticate;

const PASSWORD: &str = "correct horse battery staple";
const OPTIONS: [&str; 4] =
    ["", "channel_binding=require", "require_auth=scram-sha-256", "allow_md5_password=on"];

/// Answers of a server that are whole but for what stands in them.
fn message(which: u8, body: &[u8], out: &mut BytesMut) {
    let code: u32 = match which % 16 {
        0 => 0,
        1 => 3,
        2 => 5,
        3 | 4 => 10,
        5..=7 => 11,
        8..=10 => 12,
        other => u32::from(other),
    };
    let offer: &[u8] = match which {
        3 => b"SCRAM-SHA-256\0\0",
        4 => b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
        _ => b"",
    };
    out.put_u8(b'R');
    out.put_u32((body.len() + offer.len() + 8) as u32);
    out.put_u32(code);
    out.put_slice(offer);
    out.put_slice(body);
}

fuzz_target!(|data: &[u8]| {
    let [mode, rest @ ..] = data else { return };
    let option = usize::from(mode % 4);
    let text =
        format!("host=h user=u dbname=d sslmode=disable password='{PASSWORD}' {}", OPTIONS[option]);
    let config = Config::parse_with(&text, &Environment::empty()).expect("a configuration");
    let mut messages = BytesMut::new();
    if mode & 4 == 0 {
        let mut rest = rest;
        while let [which, len, tail @ ..] = rest {
            let (body, behind) = tail.split_at(usize::from(*len).min(tail.len()));
            message(*which, body, &mut messages);
            rest = behind;
        }
    } else {
        messages.extend_from_slice(rest);
    }
    let certificate = (mode & 8 != 0).then_some(rest);
    let (answers, result) = authenticate(&config, mode & 16 != 0, certificate, &mut messages);
    let shown = |bytes: &[u8]| bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes());
    assert!(!shown(&answers), "the password was sent");
    match result {
        // Nobody guesses the signature that proves that a server knows the password.
        Ok(Some(method)) => match option {
            0 => assert_eq!(method, "trust"),
            3 => assert!(matches!(method, "trust" | "md5"), "{method}"),
            _ => panic!("let in by {method}"),
        },
        Ok(None) => {}
        Err(error) => {
            let text = format!("{error} {error:?}");
            assert!(!shown(text.as_bytes()), "the password is in an error");
        }
    }
});
