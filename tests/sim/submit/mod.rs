//! Runs of submissions: clients that hand over transactions whole, by the real desk, carriers and journal,
//! to the model's servers. A run of their own for each seed, so that those of sessions stay what they are.
//!
//! * `run`: what happens, in which order, and what breaks; `till`: a client's process, which may die;
//!   `route`: its sessions' links; `order`: what is handed over; `books`: what the application knows, and
//!   what there must be in the end.

mod books;
mod focus;
mod heard;
mod order;
mod route;
mod run;
mod till;

pub use focus::Focus;
pub use run::{once, parts};
