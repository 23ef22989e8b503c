//! Splits SQL into tokens exactly where PostgreSQL's own scanner does, without copying any of it.
//!
//! It assumes `standard_conforming_strings = on`, PostgreSQL's default: with it off, a backslash in
//! an ordinary string means something else to the server than it does here.
//! It must never panic, whatever the bytes; every token covers at least one of them.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an identifier without quotes.
    Word(&'a [u8]),
    /// What stands between double quotes, with `""` still doubled.
    Quoted(&'a [u8]),
    /// `U&"..."`, whose escapes are not looked into.
    UnicodeQuoted,
    /// A constant in any of the ways to quote one; what stands between the quotes.
    String(&'a [u8]),
    Number,
    Parameter,
    /// `::`
    TypeCast,
    /// Any other single byte: a parenthesis, a comma, part of an operator.
    Symbol(u8),
    /// A string, identifier or comment that never ends: the server will refuse the statement.
    Unterminated,
}

impl Token<'_> {
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    pub fn is_any(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }

    /// The identifier that it is, folded and cut off as the server does it.
    pub fn identifier(&self) -> Option<String> {
        match self {
            Token::Word(word) => Some(cut_off(String::from_utf8_lossy(word).to_ascii_lowercase())),
            Token::Quoted(inner) => {
                Some(cut_off(String::from_utf8_lossy(inner).replace("\"\"", "\"")))
            }
            _ => None,
        }
    }
}

/// NAMEDATALEN is 64: longer identifiers lose what follows, whole characters at a time.
fn cut_off(mut name: String) -> String {
    const LEN_MAX: usize = 63;
    if name.len() > LEN_MAX {
        let mut end = LEN_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name
}

/// Folds a word into `buffer`; `None` for one too long to be any that matters.
pub(super) fn fold<'b>(word: &[u8], buffer: &'b mut [u8; 63]) -> Option<&'b [u8]> {
    let folded = buffer.get_mut(..word.len())?;
    folded.copy_from_slice(word);
    folded.make_ascii_lowercase();
    Some(folded)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn byte(&self, ahead: usize) -> u8 {
        // NUL cannot be part of a statement, so it can stand for the end.
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.sql.get(start..end).unwrap_or_default()
    }

    fn skip_bytes(&mut self, keep: impl Fn(u8) -> bool) {
        while self.at < self.sql.len() && keep(self.byte(0)) {
            self.at += 1;
        }
    }

    /// Skips white space and comments; `false` if a comment never ends.
    fn skip_blank(&mut self) -> bool {
        loop {
            self.skip_bytes(is_space);
            match (self.byte(0), self.byte(1)) {
                (b'-', b'-') => self.skip_bytes(|byte| !matches!(byte, b'\n' | b'\r')),
                (b'/', b'*') => {
                    if !self.skip_nested_comment() {
                        return false;
                    }
                }
                _ => return true,
            }
        }
    }

    fn skip_nested_comment(&mut self) -> bool {
        let mut depth = 0_usize;
        while self.at < self.sql.len() {
            match (self.byte(0), self.byte(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return true;
                    }
                }
                _ => self.at += 1,
            }
        }
        false
    }

    fn unterminated(&mut self) -> Token<'a> {
        self.at = self.sql.len();
        Token::Unterminated
    }

    /// Reads up to the closing quote; the opening one is at the present place.
    fn quoted(&mut self, backslashes: bool) -> Option<&'a [u8]> {
        let quote = self.byte(0);
        self.at += 1;
        let start = self.at;
        while self.at < self.sql.len() {
            let byte = self.byte(0);
            if byte == b'\\' && backslashes {
                self.at += 2;
            } else if byte != quote {
                self.at += 1;
            } else if self.byte(1) == quote {
                self.at += 2;
            } else {
                let inner = self.slice(start, self.at);
                self.at += 1;
                return Some(inner);
            }
        }
        None
    }

    fn string(&mut self, backslashes: bool) -> Token<'a> {
        let Some(inner) = self.quoted(backslashes) else {
            return self.unterminated();
        };
        // A constant goes on behind a line break, and backslashes keep their meaning there.
        while backslashes && self.continues_on_another_line() {
            if self.quoted(true).is_none() {
                return self.unterminated();
            }
        }
        Token::String(inner)
    }

    /// Moves to the quote that continues a constant, if there is one.
    fn continues_on_another_line(&mut self) -> bool {
        let mut ahead = *self;
        let mut line_break = false;
        loop {
            match (ahead.byte(0), ahead.byte(1)) {
                (b'\n' | b'\r', _) => {
                    line_break = true;
                    ahead.at += 1;
                }
                (b'-', b'-') => ahead.skip_bytes(|byte| !matches!(byte, b'\n' | b'\r')),
                (b'\'', _) if line_break => {
                    *self = ahead;
                    return true;
                }
                (byte, _) if is_space(byte) => ahead.at += 1,
                _ => return false,
            }
        }
    }

    /// `$1`, `$$...$$`, `$tag$...$tag$`, or a stray dollar.
    fn dollar(&mut self) -> Token<'a> {
        if self.byte(1).is_ascii_digit() {
            self.at += 1;
            self.skip_bytes(|byte| byte.is_ascii_digit());
            return Token::Parameter;
        }
        let start = self.at;
        let mut end = start + 1;
        if is_word_start(self.byte(1)) {
            while self.sql.get(end).is_some_and(|byte| is_word(*byte) && *byte != b'$') {
                end += 1;
            }
        }
        if self.sql.get(end) != Some(&b'$') {
            self.at += 1;
            return Token::Symbol(b'$');
        }
        let tag = self.slice(start, end + 1);
        let body = end + 1;
        let found = self.slice(body, self.sql.len()).windows(tag.len()).position(|w| w == tag);
        let Some(len) = found else {
            return self.unterminated();
        };
        self.at = body + len + tag.len();
        Token::String(self.slice(body, body + len))
    }

    fn number(&mut self) -> Token<'a> {
        let digits = |byte: u8| byte.is_ascii_digit() || byte == b'_';
        if self.byte(0) == b'0' && matches!(self.byte(1) | 0x20, b'x' | b'o' | b'b') {
            self.at += 2;
            self.skip_bytes(|byte| byte.is_ascii_hexdigit() || byte == b'_');
            return Token::Number;
        }
        self.skip_bytes(digits);
        if self.byte(0) == b'.' {
            self.at += 1;
            self.skip_bytes(digits);
        }
        let sign = usize::from(matches!(self.byte(1), b'+' | b'-'));
        if self.byte(0) | 0x20 == b'e' && self.byte(1 + sign).is_ascii_digit() {
            self.at += 1 + sign;
            self.skip_bytes(digits);
        }
        Token::Number
    }

    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        self.skip_bytes(is_word);
        Token::Word(self.slice(start, self.at))
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if !self.skip_blank() {
            return Some(self.unterminated());
        }
        if self.at >= self.sql.len() {
            return None;
        }
        let token = match (self.byte(0), self.byte(1)) {
            (b'\'', _) => self.string(false),
            (b'"', _) => match self.quoted(false) {
                Some(inner) => Token::Quoted(inner),
                None => self.unterminated(),
            },
            (b'e' | b'E', b'\'') => {
                self.at += 1;
                self.string(true)
            }
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', b'\'') => {
                self.at += 1;
                self.string(false)
            }
            (b'u' | b'U', b'&') if matches!(self.byte(2), b'\'' | b'"') => {
                self.at += 2;
                let identifier = self.byte(0) == b'"';
                match self.quoted(false) {
                    None => self.unterminated(),
                    Some(_) if identifier => Token::UnicodeQuoted,
                    Some(inner) => Token::String(inner),
                }
            }
            (b'$', _) => self.dollar(),
            (b'0'..=b'9', _) | (b'.', b'0'..=b'9') => self.number(),
            (b':', b':') => {
                self.at += 2;
                Token::TypeCast
            }
            (byte, _) if is_word_start(byte) => self.word(),
            (byte, _) => {
                self.at += 1;
                Token::Symbol(byte)
            }
        };
        // An escape at the very end may have stepped over it.
        self.at = self.at.min(self.sql.len());
        Some(token)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<Token<'_>> {
        Lexer::new(sql.as_bytes()).collect()
    }

    #[test]
    fn a_semicolon_within_quotes_of_any_kind_is_none() {
        for sql in [
            "'a;''b'",
            "E'a\\';'",
            "e'a'\n '\\';'",
            "U&'a;'",
            "b'0;'",
            "x';'",
            "n';'",
            "$$;'$$",
            "$a$;$$;$a$",
        ] {
            let tokens = words(sql);
            assert!(matches!(tokens[..], [Token::String(_)]), "{sql}: {tokens:?}");
        }
        assert_eq!(words("\"a;\"\"b\""), [Token::Quoted(b"a;\"\"b")]);
        assert_eq!(words("U&\"a;\""), [Token::UnicodeQuoted]);
    }

    #[test]
    fn comments_nest_and_end_operators() {
        assert_eq!(
            words("a/* ; /* ; */ ; */-- ; \n+--;"),
            [Token::Word(b"a"), Token::Symbol(b'+')]
        );
        assert_eq!(words("/* /* */"), [Token::Unterminated]);
    }

    #[test]
    fn a_backslash_means_nothing_in_an_ordinary_string() {
        assert_eq!(words(r"'\' x"), [Token::String(b"\\"), Token::Word(b"x")]);
        assert_eq!(words("'a\\'\n'b"), [Token::String(b"a\\"), Token::Unterminated]);
    }

    #[test]
    fn numbers_and_parameters_do_not_swallow_what_follows() {
        let number = Token::Number;
        assert_eq!(words("1.5e-3 .5 0xfF 1_000"), [number, number, number, number]);
        assert_eq!(words("$1::a$b"), [Token::Parameter, Token::TypeCast, Token::Word(b"a$b")]);
    }

    #[test]
    fn identifiers_fold_and_are_cut_off_as_on_the_server() {
        assert_eq!(Token::Word("ÄbC".as_bytes()).identifier().unwrap(), "Äbc");
        assert_eq!(Token::Quoted(b"a\"\"B").identifier().unwrap(), "a\"B");
        assert_eq!(Token::Word("é".repeat(40).as_bytes()).identifier().unwrap(), "é".repeat(31));
    }
}
