//! Any text as SQL: classified without a panic, and the statements of a string are pieces of it, in order,
//! each of which is one statement by itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use segue::session::classify::{StatementKind, classify, split};

fuzz_target!(|data: &[u8]| {
    let Ok(sql) = std::str::from_utf8(data) else { return };
    let class = classify(sql);
    let statements = split(sql);
    let count = match &class.kind {
        StatementKind::Empty => 0,
        StatementKind::Several(parts) => parts.len(),
        _ => 1,
    };
    assert_eq!(statements.len(), count, "{class:?}");
    let mut rest = sql;
    for statement in &statements {
        let at = rest.find(statement).expect("a piece of the text");
        rest = &rest[at + statement.len()..];
        let alone = classify(statement);
        assert!(
            !matches!(alone.kind, StatementKind::Several(_) | StatementKind::Empty),
            "{alone:?}"
        );
    }
});
