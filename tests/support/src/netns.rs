//! A network of its own for a server: its packets can be dropped, rejected, or its cable pulled,
//! which a proxy cannot imitate, since the kernel acknowledges for a process that does not read.
//!
//! Linux and root only. Everything inside goes away with the namespace, and that with this value;
//! namespaces of processes that were killed are removed when the next one is made.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::owner::{run, tool};
use crate::ports::{lock, random};
use crate::processes;

const PREFIX: &str = "segue-";

/// Which packets are meant, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets {
    /// Those to the server.
    ToServer,
    /// Those from the server.
    FromServer,
    /// All.
    Both,
}

/// A network namespace that a veth pair joins to this machine's own.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    outside: String,
    inside: String,
    address: String,
    ip: PathBuf,
    iptables: PathBuf,
    /// Keeps the subnet from being chosen twice.
    _subnet: UnixListener,
}

impl Namespace {
    /// Makes one, with an address of its own in 10.213.0.0/16.
    ///
    /// # Errors
    /// When this process is not root, iproute2 or iptables is missing, or the kernel refuses.
    pub fn create() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Unsupported(
                "network namespaces need root; run this as root, or use the proxy instead"
                    .to_owned(),
            ));
        }
        let ip = tool("ip").ok_or(Error::MissingTool { tool: "ip", package: "iproute2" })?;
        let iptables =
            tool("iptables").ok_or(Error::MissingTool { tool: "iptables", package: "iptables" })?;
        tool("nsenter").ok_or(Error::MissingTool { tool: "nsenter", package: "util-linux" })?;
        sweep(&ip);

        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let (net, subnet) = free_subnet()?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let started = processes::start_time(pid).unwrap_or_default();
        let namespace = Self {
            name: format!("{PREFIX}{pid}-{started}-{number}"),
            // Interface names have at most 15 characters; the subnet is unique as well.
            outside: format!("sg{net}a"),
            inside: format!("sg{net}b"),
            address: address(net, 2),
            ip,
            iptables,
            _subnet: subnet,
        };
        let (name, outside) = (namespace.name.as_str(), namespace.outside.as_str());
        let inside = namespace.inside.as_str();
        namespace.ip(&["netns", "add", name])?;
        namespace
            .ip(&["link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name])?;
        namespace.ip(&["addr", "add", &format!("{}/30", address(net, 1)), "dev", outside])?;
        namespace.ip(&["link", "set", outside, "up"])?;
        let server = format!("{}/30", namespace.address);
        namespace.ip(&["-n", name, "addr", "add", &server, "dev", inside])?;
        namespace.ip(&["-n", name, "link", "set", inside, "up"])?;
        namespace.ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that a server inside listens on.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Drops packets in silence from now on: a black hole.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn drop_packets(&self, packets: Packets) -> Result<()> {
        self.rule(packets, &["-j", "DROP"])
    }

    /// Answers TCP packets with a reset from now on.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn reject_packets(&self) -> Result<()> {
        self.rule(Packets::ToServer, &["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"])
    }

    /// Undoes [`Namespace::drop_packets`] and [`Namespace::reject_packets`].
    ///
    /// # Errors
    /// When iptables fails.
    pub fn heal(&self) -> Result<()> {
        self.iptables(&["-F"])
    }

    /// Pulls the cable at the server's end, or plugs it in again. (With the outer end down, packets
    /// would take the machine's default route to who knows where.)
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.ip(&["-n", &self.name, "link", "set", &self.inside, state])
    }

    fn rule(&self, packets: Packets, rule: &[&str]) -> Result<()> {
        // Chains are seen from inside.
        if packets != Packets::FromServer {
            self.iptables(&[&["-A", "INPUT"], rule].concat())?;
        }
        if packets != Packets::ToServer {
            self.iptables(&[&["-A", "OUTPUT"], rule].concat())?;
        }
        Ok(())
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        run(&format!("ip {}", args.join(" ")), Command::new(&self.ip).args(args)).map(drop)
    }

    fn iptables(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.name]).arg(&self.iptables).arg("-w").args(args);
        run(&format!("iptables {}", args.join(" ")), &mut command).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The outer end goes with the inner one, but only when the last process inside has ended.
        let _ = self.ip(&["link", "del", &self.outside]);
        let _ = self.ip(&["netns", "del", &self.name]);
    }
}

fn free_subnet() -> Result<(u16, UnixListener)> {
    for _ in 0..100 {
        let net = (random() % 16_384) as u16;
        if let Some(lock) = lock(&format!("segue-testkit-subnet-{net}")) {
            return Ok((net, lock));
        }
    }
    Err(Error::Unsupported("no free subnet for a network namespace in 10.213.0.0/16".to_owned()))
}

/// The host of that number in the /30 network of that number.
fn address(net: u16, host: u16) -> String {
    let offset = net * 4 + host;
    format!("10.213.{}.{}", offset >> 8, offset & 0xff)
}

fn sweep(ip: &PathBuf) {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let mut parts = rest.split('-').map(str::parse::<u64>);
        let (Some(Ok(pid)), Some(Ok(started))) = (parts.next(), parts.next()) else {
            continue;
        };
        let alive = u32::try_from(pid).is_ok_and(|pid| processes::start_time(pid) == Some(started));
        if !alive {
            let _ = Command::new(ip).args(["netns", "del", name]).output();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_do_not_overlap() {
        assert_eq!(address(0, 1), "10.213.0.1");
        assert_eq!(address(64, 2), "10.213.1.2");
        assert_eq!(address(16_383, 2), "10.213.255.254");
    }
}
