//! Any messages of a server that wants the user to authenticate: it must not get the password, and must not
//! be believed in what it has not proven. It may know the client's nonce, and it may know the password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ring::{hmac, pbkdf2};
use segue::Config;
use segue::config::Environment;
use segue::link::fuzzing::authenticate;

const PASSWORD: &str = "correct horse battery staple";
const OPTIONS: [&str; 4] = [
    "sslmode=disable",
    "sslmode=require channel_binding=require",
    "sslmode=disable require_auth=scram-sha-256",
    "sslmode=disable allow_md5_password=on",
];
/// Of the client's, in bytes.
const NONCE_LENGTH: usize = 24;
const SALT: &[u8] = b"grain of salt";

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let there = digit <= chunk.len();
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if there { DIGITS[index] as char } else { '=' });
        }
    }
    text
}

/// A server, as far as it has to remember what was said.
#[derive(Default)]
struct Server {
    /// What it has answered the client's first message with.
    first: String,
    iterations: u32,
    /// It has shown that it knows the password.
    proven: bool,
}

impl Server {
    /// The client's first message without its header `n,,`, and what it has answered behind that.
    fn heard(answers: &[u8]) -> Option<(&str, &[u8])> {
        let at = answers.windows(5).position(|w| w == b"n=,r=")?;
        let (first, behind) = answers[at..].split_at_checked(5 + NONCE_LENGTH)?;
        Some((std::str::from_utf8(first).ok()?, behind))
    }

    /// The client's nonce with more behind it, a salt, a number.
    fn challenge(&mut self, answers: &[u8], body: &[u8]) -> Vec<u8> {
        let Some((client_first, _)) = Self::heard(answers) else { return body.to_vec() };
        self.iterations = u32::from(body.first().copied().unwrap_or(1)).max(1);
        let more = base64(body);
        let (nonce, salt) = (&client_first[5..], base64(SALT));
        self.first = format!("r={nonce}{more},s={salt},i={}", self.iterations);
        self.first.clone().into_bytes()
    }

    /// The signature of one that knows the password.
    fn signature(&mut self, answers: &[u8]) -> Option<Vec<u8>> {
        if self.first.is_empty() {
            return None;
        }
        let (client_first, behind) = Self::heard(answers)?;
        // Behind the next message's tag and length.
        let client_final = std::str::from_utf8(behind.get(5..)?).ok()?;
        let (without_proof, _) = client_final.split_once(",p=")?;
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            self.iterations.try_into().ok()?,
            SALT,
            PASSWORD.as_bytes(),
            &mut salted,
        );
        let sign =
            |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let key = sign(&salted, b"Server Key");
        let all = format!("{client_first},{},{without_proof}", self.first);
        self.proven = true;
        Some(format!("v={}", base64(sign(key.as_ref(), all.as_bytes()).as_ref())).into_bytes())
    }

    /// Whole messages but for what stands in them.
    fn message(&mut self, which: u8, body: &[u8], answers: &[u8]) -> Vec<u8> {
        let (code, content): (u32, Vec<u8>) = match which % 16 {
            0 => (0, body.to_vec()),
            1 => (3, body.to_vec()),
            2 => (5, body.to_vec()),
            3 => (10, [b"SCRAM-SHA-256\0\0", body].concat()),
            4 => (10, [b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", body].concat()),
            5 => (10, body.to_vec()),
            6 => (11, body.to_vec()),
            7 | 8 => (11, self.challenge(answers, body)),
            9 => (12, body.to_vec()),
            10 => (12, format!("v={}", base64(body)).into_bytes()),
            11 => (12, self.signature(answers).unwrap_or_default()),
            12 => (0, Vec::new()),
            13 => (10, b"SCRAM-SHA-256\0\0".to_vec()),
            other => (u32::from(other), body.to_vec()),
        };
        let mut message = vec![b'R'];
        message.extend((content.len() as u32 + 8).to_be_bytes());
        message.extend(code.to_be_bytes());
        message.extend(content);
        message
    }
}

fuzz_target!(|data: &[u8]| {
    let [mode, rest @ ..] = data else { return };
    let option = usize::from(mode % 4);
    let text = format!("host=h user=u dbname=d password='{PASSWORD}' {}", OPTIONS[option]);
    let config = Config::parse_with(&text, &Environment::empty()).expect("a configuration");
    let certificate = (mode & 8 != 0).then_some(rest);
    let encrypted = mode & 16 != 0;
    let mut server = Server::default();
    let mut left = Some(rest);
    let (answers, result) = authenticate(&config, encrypted, certificate, |answers| {
        let rest = left.take()?;
        if mode & 4 != 0 {
            // Any bytes, all at once.
            return Some(rest.to_vec());
        }
        let [which, len, tail @ ..] = rest else { return None };
        let (body, behind) = tail.split_at(usize::from(*len).min(tail.len()));
        left = Some(behind);
        Some(server.message(*which, body, answers))
    });
    let shown = |bytes: &[u8]| bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes());
    assert!(!shown(&answers), "the password was sent");
    match result {
        Ok(Some(method @ ("scram-sha-256" | "SCRAM-SHA-256"))) => {
            assert!(server.proven, "{method}: it has not proven that it knows the password");
            assert_ne!(option, 1, "without channel binding");
        }
        // Nobody guesses a signature; there is no certificate that would give a channel binding.
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
