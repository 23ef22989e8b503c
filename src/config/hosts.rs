//! The lists `host`, `hostaddr` and `port`, matched as libpq matches them, and the place where a
//! server is looked for when no host was named.
//!
//! Resolves no name and dials nothing; looks only whether a socket exists.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::environment::SOCKET_DIRECTORIES;
use super::passfile::PassFile;
use super::settings::{Settings, bad};
use super::{Address, Environment, Host, Warnings};
use crate::error::Result;

/// The path of a Unix socket is cut off by the kernel beyond this.
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn hosts(settings: &mut Settings, env: &Environment) -> Result<Vec<Host>> {
    let list = |name| settings.text(name).map(|text| text.split(',').collect());
    let names: Option<Vec<&str>> = list("host");
    let addrs: Option<Vec<&str>> = list("hostaddr");
    let count = match (&names, &addrs) {
        (Some(names), Some(addrs)) if names.len() != addrs.len() => {
            return Err(bad(format!(
                "{} has {} entries and {} has {}; they must match one to one",
                settings.named("host"),
                names.len(),
                settings.named("hostaddr"),
                addrs.len()
            )));
        }
        (Some(list), _) | (None, Some(list)) => list.len(),
        (None, None) => 1,
    };
    let ports = ports(settings, count)?;
    let mut hosts: Vec<Host> = Vec::with_capacity(count);
    let mut twice = Vec::new();
    for (i, port) in ports.into_iter().enumerate() {
        let entry = |list: &Option<Vec<&str>>| {
            let text = list.as_ref().and_then(|list| list.get(i)).copied();
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let address = match (entry(&names), entry(&addrs)) {
            (None, None) => default_address(port, env),
            (name, Some(addr)) => dialled(name, &addr, settings)?,
            (Some(name), None) => named(&name, port, settings)?,
        };
        let host = Host::new(address, port);
        match hosts.contains(&host) {
            true => twice.push(host.to_string()),
            false => hosts.push(host),
        }
    }
    for host in twice {
        settings.warnings.push(format!("the host {host} is named twice; the second was ignored"));
    }
    Ok(hosts)
}

fn ports(settings: &Settings, count: usize) -> Result<Vec<u16>> {
    let text = settings.text_or_default("port").unwrap_or_default();
    let mut ports = Vec::new();
    for entry in text.split(',') {
        let port = match entry.trim_matches(super::keywords::is_space) {
            "" => 5432,
            entry => match entry.parse() {
                Ok(port) if port > 0 => port,
                _ => {
                    return Err(bad(format!(
                        "{} has the entry {entry:?}; allowed are 1 to 65535",
                        settings.named("port")
                    )));
                }
            },
        };
        ports.push(port);
    }
    match ports.as_slice() {
        [one] => Ok(vec![*one; count]),
        ports if ports.len() == count => Ok(ports.to_vec()),
        ports => {
            let hosts = match settings.text("host") {
                None if settings.text("hostaddr").is_some() => "hostaddr",
                _ => "host",
            };
            Err(bad(format!(
                "{} has {} entries and {} has {count}; write one port for all hosts, or one for each",
                settings.named("port"),
                ports.len(),
                settings.named(hosts),
            )))
        }
    }
}

fn is_socket_directory(name: &str) -> bool {
    name.starts_with(['/', '@'])
}

/// `hostaddr` was given: it is dialled, and `host` is the name that a certificate is checked for.
fn dialled(name: Option<String>, addr: &str, settings: &Settings) -> Result<Address> {
    let Ok(ip) = addr.parse::<IpAddr>() else {
        return Err(bad(format!(
            "{} has the entry {addr:?}, which is not an IP address; names belong into host",
            settings.named("hostaddr")
        )));
    };
    let name = name.unwrap_or_else(|| addr.to_owned());
    if is_socket_directory(&name) {
        return Err(bad(format!(
            "{} names a directory of Unix sockets ({name:?}) and {} an address ({addr}) for the same \
             server",
            settings.named("host"),
            settings.named("hostaddr")
        )));
    }
    check_name(&name, settings)?;
    Ok(Address::Tcp { name, addr: Some(ip) })
}

fn named(name: &str, port: u16, settings: &Settings) -> Result<Address> {
    if !is_socket_directory(name) {
        check_name(name, settings)?;
        return Ok(Address::Tcp { name: name.to_owned(), addr: None });
    }
    let length = format!("{name}/.s.PGSQL.{port}").len();
    if length > SOCKET_PATH_MAX {
        return Err(bad(format!(
            "{} has a directory whose socket's path would be {length} bytes long; at most \
             {SOCKET_PATH_MAX} are possible",
            settings.named("host")
        )));
    }
    Ok(Address::Unix { directory: PathBuf::from(name) })
}

fn check_name(name: &str, settings: &Settings) -> Result<()> {
    match name.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '/') {
        None => Ok(()),
        Some(c) => Err(bad(format!(
            "{} has the entry {name:?}, and {c:?} cannot stand in a host's name; a list is written \
             a,b without blanks",
            settings.named("host")
        ))),
    }
}

/// The first of the usual directories that holds a socket for this port; else this machine by TCP.
fn default_address(port: u16, env: &Environment) -> Address {
    let socket = format!(".s.PGSQL.{port}");
    let found = env.socket_directories.iter().find(|directory| directory.join(&socket).exists());
    match found {
        Some(directory) => Address::Unix { directory: directory.clone() },
        None => Address::Tcp { name: "localhost".to_owned(), addr: None },
    }
}

/// Whether what is said to this host never leaves the machine.
pub(super) fn is_local(host: &Host) -> bool {
    match &host.address {
        Address::Unix { .. } => true,
        Address::Tcp { addr: Some(addr), .. } => addr.is_loopback(),
        Address::Tcp { name, addr: None } => match name.parse::<IpAddr>() {
            Ok(addr) => addr.is_loopback(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        },
    }
}

/// Fills in each host's password from the password file.
pub(super) fn add_passwords(
    hosts: &mut [Host],
    database: &str,
    user: &str,
    settings: &Settings,
    env: &Environment,
    warnings: &mut Warnings,
) {
    let named = settings.text("passfile");
    let Some(path) = named.map(PathBuf::from).or_else(|| env.in_home(".pgpass")) else {
        return;
    };
    let Some(file) = PassFile::load(&path, named.is_some(), warnings) else {
        return;
    };
    for host in hosts {
        let name = match &host.address {
            Address::Tcp { name, .. } => name.clone(),
            // As in libpq, the usual directories go by the name of localhost, others by their own.
            Address::Unix { directory } if is_usual(directory, env) => "localhost".to_owned(),
            Address::Unix { directory } => directory.to_string_lossy().into_owned(),
        };
        host.password = file.lookup(&name, host.port, database, user);
    }
}

fn is_usual(directory: &Path, env: &Environment) -> bool {
    SOCKET_DIRECTORIES.iter().any(|usual| directory == Path::new(usual))
        || env.socket_directories.iter().any(|usual| directory == usual)
}
