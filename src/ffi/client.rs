//! `segue_client`: what an application opens once per cluster.

use std::ffi::c_char;

use super::boundary::{boundary, free, handle, optional_text, output, text};
use super::error::segue_error;
use super::fork;
use super::options::segue_options;
use crate::client::{Client, SetupOptions};

/// The failover client: it knows the servers, keeps warm connections to a backup, and watches the
/// primary from one thread of its own. Any thread may use it. Clients opened with the same
/// configuration in one process share one.
pub struct segue_client(pub(super) Client);

/// Opens a client. Returns at once: the first session waits for a server.
///
/// @param[in]  conninfo    A URI (postgresql://user@a,b:5433/database?option=value) or keywords and
///                         values (host=a,b user=...), as libpq takes them. docs/configuration.md
///                         lists all options; environment, password and service files count as well.
/// @param[out] client_out  The client; free with segue_client_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK      the client is open
/// @return SEGUE_CONFIG  the configuration is not valid, or the journal that it names cannot be opened, such
///                       as when another client has it
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_open(
    conninfo: *const c_char,
    client_out: *mut *mut segue_client,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a string and an output.
        let (conninfo, client_out) =
            unsafe { (text(conninfo, "conninfo")?, output(client_out, "client_out")?) };
        fork::watch();
        client_out.give(segue_client(Client::connect(conninfo)?));
        Ok(())
    })
}

/// Opens a client with options set one by one.
///
/// @param[in]  options     The options, which stay the caller's.
/// @param[out] client_out  The client; free with segue_client_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK      the client is open
/// @return SEGUE_CONFIG  the configuration is not valid, or the journal that it names cannot be opened, such
///                       as when another client has it
/// Threads: one caller at a time per options.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_open_options(
    options: *const segue_options,
    client_out: *mut *mut segue_client,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (options, client_out) =
            unsafe { (handle(options, "options")?, output(client_out, "client_out")?) };
        fork::watch();
        client_out.give(segue_client(Client::open(options.config()?)?));
        Ok(())
    })
}

/// Installs or upgrades the ledger on the primary. Usually the first session does that by itself,
/// where its role may.
///
/// @param[in]  client     The client, whose role may create schemas.
/// @param[in]  role       The role that may use the ledger; NULL for everybody.
/// @param[in]  hardened   Whether applications may use it through functions alone: slower, and proof
///                        against a hostile role in the same database.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_setup(
    client: *const segue_client,
    role: *const c_char,
    hardened: bool,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (client, role) = unsafe { (handle(client, "client")?, optional_text(role, "role")?) };
        let options = SetupOptions::default().hardened(hardened).role(role.map(str::to_owned));
        Ok(client.0.setup(&options)?)
    })
}

/// Removes the ledger. Sessions in use lose their protection.
///
/// @param[in]  client     The client.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_remove_ledger(
    client: *const segue_client,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        Ok(unsafe { handle(client, "client") }?.0.remove_ledger()?)
    })
}

/// Frees a client. Sessions that were opened with it go on until they are freed as well.
///
/// @param[in] client  A client; NULL does nothing.
/// Threads: any, once nobody else uses this handle.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_free(client: *mut segue_client) {
    // SAFETY: the header's contract: NULL or a client that has not been freed.
    unsafe { free(client) }
}
