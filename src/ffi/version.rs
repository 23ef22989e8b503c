//! What the library is, so that an application can tell whether it got what it was built for.

use std::ffi::{CStr, c_char};

/// Raised when something is taken away or changed; the library's SONAME carries it.
pub const SEGUE_ABI_VERSION_MAJOR: u32 = 1;
/// Raised when something is added.
pub const SEGUE_ABI_VERSION_MINOR: u32 = 0;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// The version of the ABI that the library has; the header's is SEGUE_ABI_VERSION_MAJOR and
/// SEGUE_ABI_VERSION_MINOR. A library serves all headers of its major version that are not newer.
///
/// @return the major version in the upper 16 bits, the minor one in the lower
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_abi_version() -> u32 {
    SEGUE_ABI_VERSION_MAJOR << 16 | SEGUE_ABI_VERSION_MINOR
}

/// The version of the library.
///
/// @return a static text such as "0.1.0"
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_version() -> *const c_char {
    VERSION.as_ptr()
}
