//! Any sequence of calls of the C ABI with any arguments (`c_abi/calls.c`), on sessions of a server in this
//! process (`c_abi/server.rs`): no panic, no memory touched that is not the library's or handed to it, and what
//! the header promises of outputs and errors holds.

#![no_main]

#[path = "../c_abi/server.rs"]
mod server;

use std::ffi::{CString, c_char};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use segue as _;

unsafe extern "C" {
    fn segue_fuzz_calls(data: *const u8, length: usize);
    /// Of the C library.
    fn atexit(callback: extern "C" fn()) -> i32;
}

/// How often the journal's directory is emptied, so that it does not fill.
const RUNS_PER_JOURNAL: usize = 256;

/// Pointers that C reads.
#[repr(transparent)]
pub struct Texts([*const c_char; 4]);

// SAFETY: written once, before the first call that reads them, and never freed.
unsafe impl Sync for Texts {}

/// Where the servers are: one; the same with a journal on disk; nobody; and what cannot be read.
#[unsafe(no_mangle)]
pub static mut segue_fuzz_conninfos: Texts = Texts([std::ptr::null(); 4]);

/// A thread of the target's own server that is just ending may be overlooked, and what it holds be taken for leaked.
#[unsafe(no_mangle)]
pub extern "C" fn __lsan_default_suppressions() -> *const c_char {
    c"leak:c_abi::server\nleak:__cxa_thread_atexit_impl\n".as_ptr()
}

static HOME: OnceLock<PathBuf> = OnceLock::new();

extern "C" fn remove_home() {
    if let Some(home) = HOME.get() {
        let _ = fs::remove_dir_all(home);
    }
}

fn home() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let home = tempfile::Builder::new().prefix("segue-fuzz-").tempdir_in(parent);
    let home = home.expect("a directory").keep();
    server::start(&home);
    let place = home.display();
    let options = "user=u dbname=d sslmode=disable connect_timeout_ms=5000 failover_timeout_ms=5000 \
                   poll_interval_ms=1000 retry_conflicts=2";
    let texts = [
        format!("host={place} {options} journal_bytes_max=65536"),
        format!(
            "host={place} {options} journal=file journal_dir={place}/journal journal_sync=none"
        ),
        format!("host={place}/nobody {options} failover_timeout_ms=20"),
        "host=h port=no".to_owned(),
    ];
    let texts = texts.map(|text| CString::new(text).expect("no NUL").into_raw().cast_const());
    // SAFETY: before the first call, in the only thread that knows of them; the callback ends by itself.
    unsafe {
        segue_fuzz_conninfos = Texts(texts);
        atexit(remove_home);
    }
    home
}

fuzz_target!(|data: &[u8]| {
    static mut RUNS: usize = 0;
    let home = HOME.get_or_init(home);
    // SAFETY: libFuzzer runs one input at a time in one thread, and the bytes are there for the call.
    unsafe {
        RUNS += 1;
        if RUNS % RUNS_PER_JOURNAL == 0 {
            let _ = fs::remove_dir_all(home.join("journal"));
        }
        segue_fuzz_calls(data.as_ptr(), data.len());
    }
});
