//! Walks along the words of one statement, for those that tell what it is.
//!
//! Every step moves forward or stays at the end; none looks beyond the statement.

use super::lexer::{Lexer, Token};

/// The words of a statement, one after the other, from its first.
pub(super) struct Head<'a>(pub Lexer<'a>);

/// What stands behind the last token.
pub(super) const NOTHING: Token<'static> = Token::Symbol(0);

impl<'a> Head<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self(Lexer::new(text))
    }

    pub fn next(&mut self) -> Token<'a> {
        self.0.next().unwrap_or(NOTHING)
    }

    pub fn peek(&self) -> Token<'a> {
        Self(self.0).next()
    }

    /// Moves behind `keyword` if it comes next.
    pub fn accept(&mut self, keyword: &str) -> bool {
        self.accept_any(&[keyword])
    }

    pub fn accept_any(&mut self, keywords: &[&str]) -> bool {
        let is_next = self.peek().is_any(keywords);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Whether one of the words to come is `keyword`, without quotes.
    pub fn contains(&self, keyword: &str) -> bool {
        let mut rest = self.0;
        rest.any(|token| token.is(keyword))
    }

    /// Whether `keywords` follow one another somewhere.
    pub fn contains_phrase(&self, keywords: &[&str]) -> bool {
        let mut rest = Self(self.0);
        while rest.peek() != NOTHING {
            let mut here = Self(rest.0);
            if keywords.iter().all(|keyword| here.accept(keyword)) {
                return true;
            }
            rest.next();
        }
        false
    }

    /// Moves behind the parenthesis that closes the one behind which it stands, and gives what is
    /// between them.
    pub fn skip_parenthesis(&mut self) -> &'a [u8] {
        let inside = self.0.rest();
        let start = self.0.position();
        let mut depth = 1_usize;
        loop {
            let len = self.0.position() - start;
            match self.next() {
                Token::Symbol(b'(') => depth += 1,
                Token::Symbol(b')') => depth -= 1,
                NOTHING => return inside,
                _ => {}
            }
            if depth == 0 {
                return inside.get(..len).unwrap_or_default();
            }
        }
    }

    /// The last of READ ONLY and READ WRITE wins.
    pub fn read_only(&mut self) -> bool {
        let mut read_only = false;
        loop {
            match self.next() {
                NOTHING => return read_only,
                token if token.is("read") => {
                    // READ COMMITTED and READ UNCOMMITTED are isolation levels.
                    if self.accept("only") {
                        read_only = true;
                    } else if self.accept("write") {
                        read_only = false;
                    }
                }
                _ => {}
            }
        }
    }

    /// `[SAVEPOINT] name`; `savepoint` is a name, too.
    pub fn savepoint(&mut self) -> Token<'a> {
        let word = self.next();
        let name = self.peek();
        if word.is("savepoint") && name != NOTHING { name } else { word }
    }

    /// The name of a setting, with its dots, in lower case as the server compares it.
    pub fn setting(&mut self) -> Option<String> {
        let mut name = self.next().identifier()?.to_ascii_lowercase();
        while self.peek() == Token::Symbol(b'.') {
            self.next();
            name.push('.');
            name.push_str(&self.next().identifier()?.to_ascii_lowercase());
        }
        Some(name)
    }
}
