//! `segue_options`: a client's options, one by one.

use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::boundary::{Failure, Result, boundary, free, handle, output, text};
use super::codes::SEGUE_CONFIG;
use super::error::segue_error;
use crate::config::{Config, Environment};

/// The options of a client, one by one: an alternative to writing a connection string. One caller at a
/// time. It is not needed any more once a client was opened with it.
pub struct segue_options(Mutex<Chosen>);

#[derive(Default)]
struct Chosen {
    conninfo: Zeroizing<String>,
    pairs: Vec<(String, Zeroizing<String>)>,
}

impl segue_options {
    fn chosen(&self) -> MutexGuard<'_, Chosen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> Result<Config> {
        let chosen = self.chosen();
        let pairs = chosen.pairs.iter().map(|(name, value)| (name, value.as_str()));
        Ok(Config::parse_and(&chosen.conninfo, pairs, &Environment::real())?)
    }
}

/// Makes an empty set of options, which means what an empty connection string means.
///
/// @param[out] options_out  The options; free with segue_options_free().
/// @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  they are there
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_options_new(
    options_out: *mut *mut segue_options,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for an output.
        unsafe { output(options_out, "options_out") }?.give(segue_options(Mutex::default()));
        Ok(())
    })
}

/// Sets an option by its name; docs/configuration.md lists all. The last value of a name holds.
///
/// @param[in]  options    The options.
/// @param[in]  name       The option's name, such as host, password or failover_timeout_ms.
/// @param[in]  value      Its value; "" counts as not given. It is looked at when a client is opened.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK      it is set
/// @return SEGUE_CONFIG  there is no such option
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_options_set(
    options: *mut segue_options,
    name: *const c_char,
    value: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and strings.
        let (options, name, value) =
            unsafe { (handle(options, "options")?, text(name, "name")?, text(value, "value")?) };
        if !Config::options().iter().any(|option| option.name == name) {
            return Err(Failure::new(
                SEGUE_CONFIG,
                format!("there is no option {name}; docs/configuration.md lists all"),
            ));
        }
        options.chosen().pairs.push((name.to_owned(), Zeroizing::new(value.to_owned())));
        Ok(())
    })
}

/// Sets a connection string, beside which options set by name win.
///
/// @param[in]  options    The options.
/// @param[in]  conninfo   A URI or keywords and values, as for segue_client_open().
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is set; it is looked at when a client is opened
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_options_set_conninfo(
    options: *mut segue_options,
    conninfo: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (options, conninfo) =
            unsafe { (handle(options, "options")?, text(conninfo, "conninfo")?) };
        options.chosen().conninfo = Zeroizing::new(conninfo.to_owned());
        Ok(())
    })
}

/// Frees options; passwords in them are erased.
///
/// @param[in] options  Options; NULL does nothing.
/// Threads: any, once nobody else uses them.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_options_free(options: *mut segue_options) {
    // SAFETY: the header's contract: NULL or options that have not been freed.
    unsafe { free(options) }
}
