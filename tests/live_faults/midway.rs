//! The link breaks before, between and in the middle of statements.
