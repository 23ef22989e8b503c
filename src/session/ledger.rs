//! placeholder until the ledger's SQL lands
pub const SEAL_TABLE: &str = "";
pub const SEAL_TABLE_GUARDED: &str = "";
pub const SEAL_FUNCTION: &str = "";
pub const SEAL_FUNCTION_GUARDED: &str = "";
pub const LOOK: &str = "";
pub const OPEN: &str = "";
pub const TERMINATE: &str = "";
pub const FENCED_SQLSTATE: &str = "SG001";
