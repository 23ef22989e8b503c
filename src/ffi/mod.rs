//! The C ABI: one file per handle; `include/segue.h` is generated from here.
//!
//! All of Segue's unsafe code is in this layer, and each block says why it holds. Every entry point
//! goes through [`boundary`], which checks arguments, catches panics and writes outputs on success
//! only. Handles are boxes that refer to what they need by reference counts, so that they can be
//! freed in any order.

#![allow(unsafe_code)]
// Handles are named as C names them, and what may be asked of a pointer is written in the header.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod blocks;
mod boundary;
mod cancel;
mod client;
mod codes;
mod copy;
mod dead_letter;
mod error;
mod event;
mod fork;
mod lease;
mod notification;
mod options;
mod param;
mod pipeline;
mod recovered_statement;
mod recovery;
mod result;
mod session;
mod session_state;
mod statement;
mod statistics;
mod status;
mod stream;
mod submission;
mod submission_status;
mod table;
mod ticket;
mod version;
