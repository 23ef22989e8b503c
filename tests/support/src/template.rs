//! An initialised data directory that every new server is copied from: initdb takes most of a
//! second, a copy a tenth of it.
//!
//! Templates stand beside the clusters' directories, belong to the servers' user, and are renewed
//! daily, so that a cleaner of temporary files cannot gnaw at one in use. Clusters copied from one
//! template share their system identifier; a test that needs a stranger asks for a fresh one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::binaries::Binaries;
use crate::cluster::{APP_PASSWORD, DATABASE, USER};
use crate::error::{Error, Result};
use crate::owner::{Owner, run};
use crate::ports::random;
use crate::workdir::{self, TEMPLATE_PREFIX};

/// Raised whenever what is in a template changes.
const FORMAT: u32 = 2;

/// Puts a data directory at `data`: a copy of the template, or, for `fresh`, one with a system
/// identifier of its own.
pub(crate) fn put(binaries: &Binaries, owner: &Owner, data: &Path, fresh: bool) -> Result<()> {
    if fresh {
        return initialise(binaries, owner, data);
    }
    let template = find_or_make(binaries, owner)?;
    copy(owner, &template, data)
}

/// Copies a data directory whose server is down.
pub(crate) fn copy(owner: &Owner, from: &Path, to: &Path) -> Result<()> {
    let mut command = owner.command(Path::new("cp"), None);
    command.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    run("copying a data directory", &mut command).map(drop)
}

fn find_or_make(binaries: &Binaries, owner: &Owner) -> Result<PathBuf> {
    let base = workdir::base(owner)?;
    let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() / 86_400);
    let key = fnv1a(&format!("{} {}", binaries.dir().display(), binaries.version()));
    let name = format!("{TEMPLATE_PREFIX}{}-{FORMAT}-{key:016x}-{day}", owner.uid);
    let template = base.join(name);
    if is_ours(&template, owner) {
        return Ok(template);
    }
    // Made under another name and then renamed, so that nobody copies a half-made one.
    let draft = base.join(format!("{TEMPLATE_PREFIX}{}-draft-{:016x}", owner.uid, random()));
    initialise(binaries, owner, &draft)?;
    match fs::rename(&draft, &template) {
        Ok(()) => Ok(template),
        Err(_) if is_ours(&template, owner) => {
            // Somebody else was faster; theirs is as good.
            let _ = fs::remove_dir_all(&draft);
            Ok(template)
        }
        Err(source) => {
            let _ = fs::remove_dir_all(&draft);
            Err(Error::Io { what: format!("making {}", template.display()), source })
        }
    }
}

/// A directory of that name made by somebody else in a shared /tmp is not to be trusted.
fn is_ours(dir: &Path, owner: &Owner) -> bool {
    dir.symlink_metadata()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == owner.uid && meta.mode() & 0o077 == 0)
}

fn initialise(binaries: &Binaries, owner: &Owner, data: &Path) -> Result<()> {
    owner.create_dir(data)?;
    let mut initdb = owner.command(&binaries.path("initdb"), None);
    initdb
        .args(["--no-sync", "--no-instructions", "-A", "trust", "-E", "UTF8", "-U", "postgres"])
        // Small segments make promotion quicker.
        .args(["--locale=C.UTF-8", "--wal-segsize=1", "-D"])
        .arg(data);
    run("initdb", &mut initdb)?;
    let roles = [
        format!("CREATE ROLE {USER} LOGIN PASSWORD '{APP_PASSWORD}'"),
        "CREATE ROLE repl LOGIN REPLICATION".to_owned(),
        format!("CREATE DATABASE {DATABASE} OWNER {USER}"),
    ];
    single_user(binaries, owner, data, "postgres", &roles)?;
    let grant =
        format!("GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO {USER}");
    single_user(binaries, owner, data, DATABASE, &[grant])
}

/// Runs statements without a server; single-user mode takes one a line and never fails as a whole,
/// so an ERROR in its output is what tells.
fn single_user(
    binaries: &Binaries,
    owner: &Owner,
    data: &Path,
    database: &str,
    statements: &[String],
) -> Result<()> {
    let script = data.with_extension("sql");
    owner.write_file(&script, &(statements.join("\n") + "\n"), 0o600)?;
    let input =
        fs::File::open(&script).map_err(Error::io(format!("reading {}", script.display())))?;
    let mut command = owner.command(&binaries.path("postgres"), None);
    command.args(["--single", "-F", "-D"]).arg(data).arg(database).stdin(Stdio::from(input));
    let output = command.output().map_err(Error::io("running postgres --single"));
    let _ = fs::remove_file(&script);
    let output = output?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && !messages.contains("ERROR:") {
        return Ok(());
    }
    Err(Error::Command {
        what: "preparing the template database".to_owned(),
        status: output.status.to_string(),
        output: messages.into_owned(),
    })
}

/// FNV-1a: the name of a template must be the same in every process and build.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
