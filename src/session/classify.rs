//! What a statement does, told from its text.
