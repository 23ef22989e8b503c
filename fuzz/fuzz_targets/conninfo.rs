//! Any text as a connection string (URI or keywords), with any service file and password file: an
//! error, or a configuration that can be shown without its secrets and means the same when it is read again.

#![no_main]

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use libfuzzer_sys::fuzz_target;
use segue::Config;
use segue::config::Environment;
use tempfile::TempDir;

thread_local! {
    static HOME: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a directory"));
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\u{1}');
    let conninfo = parts.next().unwrap_or_default();
    // Not what would be read from this machine's files, or write to it.
    if ["file", "dir", "cert", "key", "crl"].iter().any(|word| conninfo.contains(word)) {
        return;
    }
    let mut env = Environment::empty();
    HOME.with_borrow(|home| {
        let home = home.path();
        for (name, content) in [(".pg_service.conf", parts.next()), (".pgpass", parts.next())] {
            let path = home.join(name);
            fs::write(&path, content.unwrap_or_default()).expect("a file is written");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&path, mode).expect("its permissions are set");
        }
        env.home = Some(home.to_path_buf());
        env.user_name = Some("me".to_owned());
    });
    match Config::parse_with(conninfo, &env) {
        Ok(config) => {
            let _ = format!("{config:?}");
            let shown = config.to_string();
            let again = Config::parse_with(&shown, &env).expect("what is shown can be read");
            assert_eq!(again.to_string(), shown);
        }
        Err(error) => drop(error.to_string()),
    }
});
