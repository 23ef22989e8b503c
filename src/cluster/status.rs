//! What can be told of the servers: the snapshot for `status()`, events, and the one line per
//! server that an error carries. Pure; never contains a secret.

use std::fmt;

use super::choice::Verdict;
use super::detector::Health;

/// A snapshot of what is known of the servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Status {
    /// In the order of the configuration's hosts.
    pub servers: Vec<ServerStatus>,
    /// The server that sessions belong on just now.
    pub chosen: Option<usize>,
    /// The standby that has the warm links.
    pub standby: Option<usize>,
    /// The cluster's system identifier, once known.
    pub system_identifier: Option<u64>,
    /// The highest timeline that was ever seen writable; nothing older is written to again.
    pub timeline_floor: u32,
    /// Sessions that hold a link.
    pub sessions: usize,
    /// Sessions that wait for one.
    pub waiting: usize,
}

/// What is known of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    pub address: String,
    pub role: Role,
    pub health: Health,
    pub verdict: Verdict,
    pub timeline: Option<u32>,
    pub system_identifier: Option<u64>,
    /// The write position of a primary, the replay position of a standby.
    pub lsn: Option<u64>,
    /// How many bytes of WAL a standby lies behind the chosen primary.
    pub lag_bytes: Option<u64>,
    pub last_error: Option<String>,
    /// Links that are ready to be handed to a session.
    pub warm_links: usize,
    /// Links ever made to it, the monitor's own included.
    pub links_dialled: u64,
    /// Warm links ever handed to a session.
    pub warm_links_used: u64,
}

/// What a server was when it last said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    Unknown,
    Primary,
    /// Not in recovery, but it does not allow writes.
    ReadOnlyPrimary,
    Standby,
}

/// Something of note happened to the cluster.
///
/// Handed to the client's callback on the background thread, which must not be blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A server has missed polls. Nobody moves because of that alone.
    Suspect { server: usize, address: String },
    /// A suspect or lost server answers again.
    Recovered { server: usize, address: String },
    /// A server cannot be reached.
    Lost { server: usize, address: String, reason: String },
    /// A server takes no connection for now, and says that this will pass.
    ComingBack { server: usize, address: String, reason: String },
    /// Sessions belong on this server from now on, on the timeline known so far.
    PrimaryChosen { server: usize, address: String, timeline: u32, previous: Option<usize> },
    /// Sessions belong on this server from now on, because it was promoted.
    Promoted { server: usize, address: String, timeline: u32, previous: Option<usize> },
    /// No server can be used for what the configuration asks.
    NoServer { previous: usize },
    /// An old primary is there, writable, on a timeline that the cluster has left: it is refused.
    Stale { server: usize, address: String, timeline: u32, floor: u32 },
    /// A server has another system identifier than the cluster: it is refused.
    OtherCluster { server: usize, address: String, system_identifier: u64 },
    /// Segue itself promotes a standby (`on_primary_loss = promote`).
    Promoting { server: usize, address: String },
    /// Segue's own promotion did not work.
    PromotionFailed { server: usize, address: String, reason: String },
    /// So many links are warm on a server.
    Warm { server: usize, address: String, links: usize },
}

impl ClusterEvent {
    /// Writes the event to `tracing`.
    pub(super) fn trace(&self) {
        match self {
            Self::Warm { address, links, .. } => {
                tracing::debug!(%address, links, "links are warm");
            }
            Self::Recovered { .. } | Self::PrimaryChosen { .. } | Self::Promoting { .. } => {
                tracing::info!(event = ?self, "{self}");
            }
            _ => tracing::warn!(event = ?self, "{self}"),
        }
    }
}

impl fmt::Display for ClusterEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspect { address, .. } => write!(f, "{address} does not answer"),
            Self::Recovered { address, .. } => write!(f, "{address} answers again"),
            Self::Lost { address, reason, .. } => write!(f, "{address} is lost: {reason}"),
            Self::ComingBack { address, reason, .. } => {
                write!(f, "{address} is coming back: {reason}")
            }
            Self::PrimaryChosen { address, timeline, .. } => {
                write!(f, "{address} is in use (timeline {timeline})")
            }
            Self::Promoted { address, timeline, .. } => {
                write!(f, "{address} was promoted (timeline {timeline}) and is in use")
            }
            Self::NoServer { .. } => write!(f, "no server can be used"),
            Self::Stale { address, timeline, floor, .. } => write!(
                f,
                "{address} is writable on timeline {timeline}, but the cluster is on {floor}: refused"
            ),
            Self::OtherCluster { address, .. } => {
                write!(f, "{address} belongs to another cluster: refused")
            }
            Self::Promoting { address, .. } => write!(f, "promoting {address}"),
            Self::PromotionFailed { address, reason, .. } => {
                write!(f, "could not promote {address}: {reason}")
            }
            Self::Warm { address, links, .. } => write!(f, "{links} links are warm on {address}"),
        }
    }
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.address)?;
        let role = match (self.verdict, self.role) {
            (Verdict::Stale, _) => "an old primary, refused",
            (Verdict::OtherCluster, _) => "of another cluster, refused",
            (_, Role::Primary) => "primary",
            (_, Role::ReadOnlyPrimary) => "primary, read only",
            (_, Role::Standby) => "standby, not promoted",
            (_, Role::Unknown) => "never answered",
        };
        match self.health {
            Health::Healthy => return f.write_str(role),
            Health::Unknown => return f.write_str("not reached yet"),
            Health::Suspect => write!(f, "does not answer (last {role})")?,
            Health::Lost => f.write_str("lost")?,
            Health::ComingBack => f.write_str("coming back")?,
        }
        match &self.last_error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl Status {
    /// One line of what is known of every server.
    pub fn summary(&self) -> String {
        let lines: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        lines.join("; ")
    }
}
