//! Real PostgreSQL clusters on loopback, and a fault proxy, for Segue's tests, benchmarks and demo.
//!
//! * [`Cluster`]: a primary and its standbys, started in a directory that goes away with them.
//! * [`Server`]: one of them: killed, stopped, paused, promoted, asked.
//! * [`proxy`]: a TCP proxy that stalls, drops, resets, delays and corrupts.
//! * [`SmallDisk`]: a file system that can be full, or read-only.
//! * [`netns`]: a network of its own for a server, whose packets can be dropped.
//!
//! The servers die with the process that started them, even when that is killed by SIGKILL.
//! Nothing here prints or panics: `segue demo` ships this crate. It must not depend on `segue`,
//! since `segue` depends on it, and since an oracle must not share code with what it judges.

mod binaries;
mod cluster;
mod control;
mod disk;
mod error;
mod lifecycle;
pub mod netns;
mod owner;
mod ports;
mod processes;
pub mod proxy;
mod rejoin;
mod server;
mod template;
mod tls;
mod workdir;

pub use binaries::Binaries;
pub use cluster::{APP_PASSWORD, Auth, Cluster, ClusterBuilder, DATABASE, Replication, USER};
pub use control::Row;
pub use disk::SmallDisk;
pub use error::{Error, Result};
pub use server::Server;
pub use tls::TlsFiles;
