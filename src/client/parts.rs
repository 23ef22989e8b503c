//! Parts of the client that the simulation drives (`tests/sim`), in place of the client's own threads
//! and links. Not for applications: nothing here is promised to stay.

pub use super::event::Events;
pub use super::journal::FileJournal;
pub use super::keeper::{Keeper, NotKept};
pub use super::question::{Reply, Rows};
pub use super::recover::Survey;
pub use super::recover::inquiry::{
    Answer, Answers, Asks, Inquiry, Question, SETTINGS, Wanted, is_passing,
};
pub use super::submit::carrier::{Carrier, Lost, Question as BackupQuestion};
pub use super::submit::desk::Desk;
pub use super::submit::losses::Losses;
pub use super::submit::opening::{LOOK_AT_SERVER, Opening, Place, Site};
pub use super::submit::pipe::Pipe;
