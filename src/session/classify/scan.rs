//! Reads one statement to its end and gathers what any of its tokens can mean for the session:
//! calls, row locks, INTO, data-modifying WITH.
//!
//! It knows no grammar beyond the last few tokens. Where those leave a doubt it must take the
//! reading that does more: an alias with columns that passes for a call costs two microseconds.

use super::functions::{is_keyword, is_session_lock, only_reads};
use super::lexer::{Lexer, Token, fold};

/// What one statement contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scan<'a> {
    /// The statement, without its semicolon.
    pub text: &'a [u8],
    pub is_empty: bool,
    /// The server will refuse it.
    pub is_unterminated: bool,
    /// It calls something that is not known to only read, `set_config` aside; or it may modify
    /// data in a place that only the grammar could tell.
    pub may_write: bool,
    /// It calls `set_config`, and not with `true` for its last argument.
    pub sets_config: bool,
    pub sets_config_locally: bool,
    pub locks_rows: bool,
    pub locks_session: bool,
    pub seeds_random: bool,
    pub exports_snapshot: bool,
    pub sets_origin: bool,
    /// INTO at the outermost level.
    pub into: bool,
    pub into_temporary: bool,
    /// A WITH clause that modifies data.
    pub modifying_with: bool,
    /// The statement that a leading WITH belongs to, if it can be told.
    pub main_verb: Option<Verb>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Reading,
    Modifying,
}

impl Verb {
    fn of(token: &Token<'_>) -> Option<Self> {
        if token.is_any(&["select", "values", "table"]) {
            Some(Self::Reading)
        } else if token.is_any(&["insert", "update", "delete", "merge"]) {
            Some(Self::Modifying)
        } else {
            None
        }
    }
}

/// Parentheses, and for the innermost 64 whether what they close ends an operand that a function's
/// name can no longer follow.
#[derive(Default)]
struct Parentheses {
    depth: usize,
    are_calls: u64,
}

impl Parentheses {
    fn open(&mut self, is_call: bool) {
        self.depth += 1;
        self.are_calls = self.are_calls << 1 | u64::from(is_call);
    }

    fn close(&mut self) -> bool {
        let was_call = self.depth > 0 && self.are_calls & 1 == 1;
        self.depth = self.depth.saturating_sub(1);
        self.are_calls >>= 1;
        was_call
    }
}

const NOTHING: Token<'static> = Token::Symbol(0);

/// Reads the first statement of `sql`, up to its semicolon or the end.
pub(super) fn scan(sql: &[u8]) -> (Scan<'_>, &[u8]) {
    let mut lexer = Lexer::new(sql);
    let mut found = Scan { is_empty: true, ..Scan::default() };
    // The last four tokens, the latest first; and whether the latest closes a call.
    let mut last = [NOTHING; 4];
    let mut closed_call = false;
    // The parenthesis that the latest token stands right behind may close a call as well.
    let mut closed_call_before = false;
    let mut parentheses = Parentheses::default();
    let mut atomic_depth = 0_usize;
    let mut end = 0;
    while let Some(token) = lexer.next() {
        if token == Token::Symbol(b';') && parentheses.depth == 0 && atomic_depth == 0 {
            found.text = sql.get(..end).unwrap_or_default();
            return (found, lexer.rest());
        }
        end = lexer.position();
        found.is_empty = false;
        let mut closes_call = false;
        match token {
            Token::Symbol(b'(') => {
                let is_call = if closed_call_before {
                    // OVER, FILTER, or an alias: a name that follows an operand is never called.
                    // But an operator in this place is followed by another operand.
                    !last[0].is("operator") && !last[0].is_keyword()
                } else {
                    (last[0].is("group") && last[1].is("within")) || found.note_call(&last, lexer)
                };
                parentheses.open(is_call);
            }
            Token::Symbol(b')') => closes_call = parentheses.close(),
            Token::Unterminated => found.is_unterminated = true,
            Token::Word(_) => {
                found.note_word(token, &last, parentheses.depth, lexer);
                // The body of a function in SQL has semicolons of its own.
                if atomic_depth > 0 && token.is("case") {
                    atomic_depth += 1;
                } else if atomic_depth > 0 && token.is("end") {
                    atomic_depth -= 1;
                } else if token.is("atomic") && last[0].is("begin") {
                    atomic_depth = 1;
                }
            }
            _ => {}
        }
        closed_call_before = closed_call && matches!(token, Token::Word(_) | Token::Quoted(_));
        closed_call = closes_call;
        last = [token, last[0], last[1], last[2]];
    }
    found.text = sql.get(..end).unwrap_or_default();
    (found, b"")
}

impl Scan<'_> {
    /// A parenthesis opens behind `last`. Says whether it is that of a call.
    fn note_call(&mut self, last: &[Token<'_>; 4], arguments: Lexer<'_>) -> bool {
        let qualified = last[1] == Token::Symbol(b'.');
        let mut buffer = [0; 63];
        let name = match last[0] {
            Token::Word(word) => {
                let folded = fold(word, &mut buffer);
                if !qualified && folded.is_some_and(|name| is_no_call(name, &last[1])) {
                    return false;
                }
                folded
            }
            Token::Quoted(_) | Token::UnicodeQuoted if ends_operand(&last[1]) => return false,
            Token::Quoted(inner) => Some(inner),
            Token::UnicodeQuoted => None,
            _ => return false,
        };
        let in_catalogue =
            !qualified || (last[2].identifier_is("pg_catalog") && last[3] != Token::Symbol(b'.'));
        match name {
            Some(b"set_config") if in_catalogue => {
                if third_argument_is_true(arguments) {
                    self.sets_config_locally = true;
                } else {
                    self.sets_config = true;
                }
            }
            Some(name) if in_catalogue && only_reads(name) => {}
            name => {
                self.may_write = true;
                let name = name.filter(|_| in_catalogue).unwrap_or_default();
                self.locks_session |= is_session_lock(name);
                self.seeds_random |= name == b"setseed";
                self.exports_snapshot |= name == b"pg_export_snapshot";
                self.sets_origin |= name == b"pg_replication_origin_session_setup";
            }
        }
        true
    }

    fn note_word(
        &mut self,
        word: Token<'_>,
        last: &[Token<'_>; 4],
        depth: usize,
        mut rest: Lexer<'_>,
    ) {
        if last[0] == Token::Symbol(b'.') || last[0].is("as") {
            return;
        }
        if last[0].is("for") && word.is_any(&["update", "share", "no", "key"]) {
            self.locks_rows = true;
        }
        if word.is("into") {
            if depth == 0 {
                self.into = true;
                self.into_temporary |= starts_temporary(rest);
            } else {
                self.may_write = true;
            }
        }
        let (opened, closed) = (last[0] == Token::Symbol(b'('), last[0] == Token::Symbol(b')'));
        if !opened && !closed {
            return;
        }
        let Some(verb) = Verb::of(&word) else { return };
        if depth == 0 && closed && self.main_verb.is_none() {
            self.main_verb = Some(verb);
        } else if verb == Verb::Modifying && depth > 0 {
            let begins_clause = opened && depth == 1 && last[1].is_any(&["as", "materialized"]);
            if begins_clause && rest.next() != Some(Token::Symbol(b')')) {
                self.modifying_with = true;
            } else {
                self.may_write = true;
            }
        }
    }
}

impl Token<'_> {
    fn is_keyword(&self) -> bool {
        let mut buffer = [0; 63];
        matches!(self, Token::Word(word) if fold(word, &mut buffer).is_some_and(is_keyword))
    }

    /// Whether it is the identifier `name`, with quotes or without.
    pub fn identifier_is(&self, name: &str) -> bool {
        self.is(name) || *self == Token::Quoted(name.as_bytes())
    }
}

/// Whether what follows names a relation that is temporary by its own word.
pub(super) fn starts_temporary(mut rest: Lexer<'_>) -> bool {
    let mut token = rest.next().unwrap_or(NOTHING);
    if token.is_any(&["local", "global"]) {
        token = rest.next().unwrap_or(NOTHING);
    }
    token.is_any(&["temp", "temporary"])
        || (token.identifier_is("pg_temp") && rest.next() == Some(Token::Symbol(b'.')))
}

/// Whether the word `name` cannot be a function's, by itself or because of the token before it.
fn is_no_call(name: &[u8], before: &Token<'_>) -> bool {
    let is_part_of_syntax = match name {
        b"system" | b"bernoulli" => before.is("tablesample"),
        b"rollup" | b"cube" => before.is("by"),
        b"sets" => before.is("grouping"),
        b"varying" => before.is_any(&["character", "char", "nchar", "bit"]),
        _ => false,
    };
    is_part_of_syntax || is_keyword(name) || ends_operand(before)
}

/// Whether a name behind `before` must be a type or an alias, of which the length or the columns
/// follow in parentheses: two operands never stand side by side.
fn ends_operand(before: &Token<'_>) -> bool {
    match before {
        Token::TypeCast
        | Token::Quoted(_)
        | Token::UnicodeQuoted
        | Token::String(_)
        | Token::Number
        | Token::Parameter
        | Token::Symbol(b']') => true,
        Token::Word(_) => before.is_any(&["as", "with", "recursive"]),
        _ => false,
    }
}

/// `arguments` stands behind the parenthesis of a call.
fn third_argument_is_true(arguments: Lexer<'_>) -> bool {
    let (mut depth, mut argument, mut tokens, mut is_true) = (0_usize, 1, 0, false);
    for token in arguments {
        match token {
            Token::Symbol(b'(' | b'[') => depth += 1,
            Token::Symbol(b')') if depth == 0 => break,
            Token::Symbol(b')' | b']') => depth = depth.saturating_sub(1),
            Token::Symbol(b',') if depth == 0 => {
                argument += 1;
                continue;
            }
            _ => {}
        }
        if argument == 3 {
            tokens += 1;
            is_true = token.is("true");
        }
    }
    argument == 3 && tokens == 1 && is_true
}
