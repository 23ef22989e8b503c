//! `segue_status`: a snapshot of what a client knows of its servers.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use super::boundary::{boundary, free, handle, optional_text, output, read};
use super::client::segue_client;
use super::error::{c_string, or_null, segue_error};
use crate::cluster::{Health, Role, ServerStatus};

/// It has never answered.
pub const SEGUE_ROLE_UNKNOWN: i32 = 0;
/// It can be written to.
pub const SEGUE_ROLE_PRIMARY: i32 = 1;
/// It is not in recovery, but does not allow writes.
pub const SEGUE_ROLE_READ_ONLY_PRIMARY: i32 = 2;
/// It follows a primary.
pub const SEGUE_ROLE_STANDBY: i32 = 3;

/// It was not reached yet.
pub const SEGUE_HEALTH_UNKNOWN: i32 = 0;
/// It answers.
pub const SEGUE_HEALTH_HEALTHY: i32 = 1;
/// It has missed polls.
pub const SEGUE_HEALTH_SUSPECT: i32 = 2;
/// It cannot be reached.
pub const SEGUE_HEALTH_LOST: i32 = 3;
/// It takes no connection for now, and says that this will pass.
pub const SEGUE_HEALTH_COMING_BACK: i32 = 4;

/// What a client knew of its servers at one moment. Immutable: any thread may read it.
pub struct segue_status {
    servers: Vec<Server>,
    chosen: i32,
    standby: i32,
    numbers: [(&'static str, i64); 5],
    ledger_problem: Option<CString>,
    journal_dir: Option<CString>,
}

struct Server {
    address: CString,
    role: i32,
    health: i32,
    summary: CString,
    error: Option<CString>,
    numbers: [(&'static str, i64); 6],
}

pub(super) fn number<T: TryInto<i64>>(value: Option<T>) -> i64 {
    value.map_or(-1, |value| value.try_into().unwrap_or(i64::MAX))
}

pub(super) fn index(server: Option<usize>) -> i32 {
    server.and_then(|server| i32::try_from(server).ok()).unwrap_or(-1)
}

impl Server {
    fn new(server: &ServerStatus) -> Self {
        Self {
            address: c_string(server.address.as_str()),
            role: match server.role {
                Role::Unknown => SEGUE_ROLE_UNKNOWN,
                Role::Primary => SEGUE_ROLE_PRIMARY,
                Role::ReadOnlyPrimary => SEGUE_ROLE_READ_ONLY_PRIMARY,
                Role::Standby => SEGUE_ROLE_STANDBY,
            },
            health: match server.health {
                Health::Unknown => SEGUE_HEALTH_UNKNOWN,
                Health::Healthy => SEGUE_HEALTH_HEALTHY,
                Health::Suspect => SEGUE_HEALTH_SUSPECT,
                Health::Lost => SEGUE_HEALTH_LOST,
                Health::ComingBack => SEGUE_HEALTH_COMING_BACK,
            },
            summary: c_string(server.to_string()),
            error: server.last_error.as_deref().map(c_string),
            numbers: [
                ("timeline", number(server.timeline)),
                ("lsn", number(server.lsn)),
                ("lag_bytes", number(server.lag_bytes)),
                ("warm_links", number(Some(server.warm_links))),
                ("links_dialled", number(Some(server.links_dialled))),
                ("warm_links_used", number(Some(server.warm_links_used))),
            ],
        }
    }
}

/// The number with a name.
///
/// # Safety
/// The header's contract for a string.
pub(super) unsafe fn find(numbers: &[(&str, i64)], name: *const c_char) -> Option<i64> {
    // SAFETY: the caller's promise.
    let name = unsafe { optional_text(name, "name") }.ok()??;
    numbers.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Takes a snapshot of what a client knows of its servers.
///
/// @param[in]  client      The client.
/// @param[out] status_out  The snapshot; free with segue_status_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is there
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_status(
    client: *const segue_client,
    status_out: *mut *mut segue_status,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, status_out) =
            unsafe { (handle(client, "client")?, output(status_out, "status_out")?) };
        let status = client.0.status();
        let cluster = &status.cluster;
        status_out.give(segue_status {
            servers: cluster.servers.iter().map(Server::new).collect(),
            chosen: index(cluster.chosen),
            standby: index(cluster.standby),
            numbers: [
                // Its 64 bits, whatever their sign.
                ("system_identifier", cluster.system_identifier.map_or(-1, u64::cast_signed)),
                ("timeline_floor", cluster.timeline_floor.into()),
                ("sessions", number(Some(status.sessions))),
                ("waiting", number(Some(cluster.waiting))),
                ("journal_bytes", number(status.journal.as_ref().map(|it| it.bytes))),
            ],
            ledger_problem: status.ledger_problem.as_deref().map(c_string),
            journal_dir: status.journal.map(|it| c_string(it.dir.into_os_string().into_vec())),
        });
        Ok(())
    })
}

/// The number of servers.
///
/// @param[in] status  A snapshot; NULL gives 0.
/// @return the number of the configuration's hosts
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_count(status: *const segue_status) -> usize {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, 0, |status| Some(status.servers.len())) }
}

/// The address of a server.
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] server  The server's position among the configuration's hosts, from 0.
/// @return a text that lives as long as the snapshot; NULL if there is no such server
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_address(
    status: *const segue_status,
    server: usize,
) -> *const c_char {
    let address = |status: &segue_status| Some(status.servers.get(server)?.address.as_ptr());
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, ptr::null(), address) }
}

/// What a server was when it last said so.
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] server  The server's position, from 0.
/// @return SEGUE_ROLE_...
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_role(
    status: *const segue_status,
    server: usize,
) -> i32 {
    let role = |status: &segue_status| Some(status.servers.get(server)?.role);
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, SEGUE_ROLE_UNKNOWN, role) }
}

/// How a server is.
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] server  The server's position, from 0.
/// @return SEGUE_HEALTH_...
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_health(
    status: *const segue_status,
    server: usize,
) -> i32 {
    let health = |status: &segue_status| Some(status.servers.get(server)?.health);
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, SEGUE_HEALTH_UNKNOWN, health) }
}

/// What is known of a server, on one line for people.
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] server  The server's position, from 0.
/// @return a text that lives as long as the snapshot; NULL if there is no such server
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_summary(
    status: *const segue_status,
    server: usize,
) -> *const c_char {
    let summary = |status: &segue_status| Some(status.servers.get(server)?.summary.as_ptr());
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, ptr::null(), summary) }
}

/// The last error of a server.
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] server  The server's position, from 0.
/// @return a text that lives as long as the snapshot; NULL if it has none, or there is no such server
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_error(
    status: *const segue_status,
    server: usize,
) -> *const c_char {
    let error = |status: &segue_status| Some(or_null(status.servers.get(server)?.error.as_ref()));
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, ptr::null(), error) }
}

/// A number about a server: "timeline"; "lsn" (written by a primary, replayed by a standby);
/// "lag_bytes" (how far a standby lies behind the chosen primary); "warm_links", "links_dialled",
/// "warm_links_used".
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] server  The server's position, from 0.
/// @param[in] name    The number's name, or NULL.
/// @return the number; -1 if it is not known, or there is none of that name
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_server_number(
    status: *const segue_status,
    server: usize,
    name: *const c_char,
) -> i64 {
    // SAFETY: the header's contract: NULL or a string with its NUL.
    let number =
        |status: &segue_status| unsafe { find(&status.servers.get(server)?.numbers, name) };
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, -1, number) }
}

/// The server that sessions belong on.
///
/// @param[in] status  A snapshot; NULL gives -1.
/// @return its position, from 0; -1 if there is none just now
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_chosen(status: *const segue_status) -> i32 {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, -1, |status| Some(status.chosen)) }
}

/// The standby that has the warm links.
///
/// @param[in] status  A snapshot; NULL gives -1.
/// @return its position, from 0; -1 if there is none just now
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_standby(status: *const segue_status) -> i32 {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, -1, |status| Some(status.standby)) }
}

/// A number about the client: "system_identifier" (its 64 bits), "timeline_floor" (nothing older is
/// written to again), "sessions" (that are open), "waiting" (of them, for a server); "journal_bytes" (of the
/// journal's files; -1 if it is in memory).
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] name    The number's name, or NULL.
/// @return the number; -1 if it is not known, or there is none of that name
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_number(
    status: *const segue_status,
    name: *const c_char,
) -> i64 {
    // SAFETY: the header's contract: NULL or a string with its NUL.
    let number = |status: &segue_status| unsafe { find(&status.numbers, name) };
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, -1, number) }
}

/// Why the ledger could not be installed.
///
/// @param[in] status  A snapshot, or NULL.
/// @return a text that lives as long as the snapshot; NULL if there is no problem
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_ledger_problem(status: *const segue_status) -> *const c_char {
    let problem = |status: &segue_status| Some(or_null(status.ledger_problem.as_ref()));
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, ptr::null(), problem) }
}

/// The directory of the journal, with journal=file.
///
/// @param[in] status  A snapshot, or NULL.
/// @return a path that lives as long as the snapshot; NULL if the journal is in memory
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_journal_dir(status: *const segue_status) -> *const c_char {
    let dir = |status: &segue_status| Some(or_null(status.journal_dir.as_ref()));
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, ptr::null(), dir) }
}

/// Frees a snapshot.
///
/// @param[in] status  A snapshot; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_status_free(status: *mut segue_status) {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { free(status) }
}
