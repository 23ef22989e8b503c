//! Parts of the client that the simulation drives (`tests/sim`), in place of the client's own threads
//! and links. Not for applications: nothing here is promised to stay.

pub use super::journal::FileJournal;
pub use super::keeper::{Keeper, NotKept};
pub use super::question::{Reply, Rows};
pub use super::recover::Survey;
pub use super::recover::inquiry::{
    Answer, Answers, Asks, Inquiry, Question, SETTINGS, Wanted, is_passing,
};
