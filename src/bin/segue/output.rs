//! Writing to the terminal. A reader that went away (`segue watch | head`) is no reason to panic.

use std::error::Error;
use std::io::Write;

/// What ended a command: printed as one line with its causes.
pub type Failure = Box<dyn Error + Send + Sync>;

/// One line, or several, on stdout.
pub fn out(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// One line, or several, on stderr.
pub fn err(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub fn failure(failure: &(dyn Error + 'static)) {
    err(&format!("segue: {}", chain(failure)));
}

/// An error and its causes in one line; a cause that the error has told already is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// `12345` as `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn tells_each_cause_once() {
        let cause = std::io::Error::other("refused");
        let error = segue::Error::new(segue::ErrorKind::Connect, "no server").with_source(cause);
        assert_eq!(chain(&error), "no server: refused");
    }
}
