//! The user that the servers run as: PostgreSQL refuses to run as root.
//!
//! Every server program is started through [`Owner::command`], which drops root's privileges and
//! asks the kernel to kill the program when the thread that started it dies. The latter is why
//! long-lived children are started by the nursery's thread alone (see `processes`).

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Who owns and runs the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether this process is root and has to step down.
    steps_down: bool,
    setpriv: Option<PathBuf>,
}

impl Owner {
    /// `postgres` (or else `nobody`) when this process is root, and oneself otherwise.
    pub(crate) fn find() -> Result<Self> {
        let setpriv = tool("setpriv");
        if !rustix::process::geteuid().is_root() {
            let uid = rustix::process::geteuid().as_raw();
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self { uid, gid, steps_down: false, setpriv });
        }
        if setpriv.is_none() {
            return Err(Error::MissingTool { tool: "setpriv", package: "util-linux" });
        }
        let (uid, gid) = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some((id_of("-u", name)?, id_of("-g", name)?)))
            .ok_or_else(|| {
                Error::Unsupported(
                    "PostgreSQL refuses to run as root, and there is neither a user `postgres` \
                     nor `nobody` to run it as; create one of them, or run as an ordinary user"
                        .to_owned(),
                )
            })?;
        Ok(Self { uid, gid, steps_down: true, setpriv })
    }

    /// A command that runs as the owner, optionally in a network namespace, and dies with the
    /// thread that spawns it. The `PG*` variables of the caller do not reach it.
    pub(crate) fn command(&self, program: &Path, namespace: Option<&str>) -> Command {
        let mut argv: Vec<OsString> = Vec::new();
        if let Some(namespace) = namespace {
            // Unlike `ip netns exec` this leaves the mount namespace alone.
            argv.extend(["nsenter".into(), format!("--net=/run/netns/{namespace}").into()]);
        }
        if let Some(setpriv) = &self.setpriv {
            argv.push(setpriv.into());
            if self.steps_down {
                argv.extend(["--reuid".into(), self.uid.to_string().into()]);
                argv.extend(["--regid".into(), self.gid.to_string().into()]);
                argv.push("--clear-groups".into());
            }
            argv.extend(["--pdeathsig".into(), "KILL".into()]);
        }
        argv.push(program.into());
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]);
        for (key, _) in std::env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(key);
            }
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Makes a directory that only the owner may enter.
    pub(crate) fn create_dir(&self, dir: &Path) -> Result<()> {
        fs::create_dir(dir).map_err(Error::io(format!("creating {}", dir.display())))?;
        self.hand_over(dir, 0o700)
    }

    /// Writes a file and gives it to the owner.
    pub(crate) fn write_file(&self, path: &Path, contents: &str, mode: u32) -> Result<()> {
        fs::write(path, contents).map_err(Error::io(format!("writing {}", path.display())))?;
        self.hand_over(path, mode)
    }

    /// Gives a file or directory to the owner.
    pub(crate) fn hand_over(&self, path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(Error::io(format!("setting the mode of {}", path.display())))?;
        if self.steps_down {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(Error::io(format!("changing the owner of {}", path.display())))?;
        }
        Ok(())
    }
}

/// The path of a program on PATH or in the system directories that an ordinary PATH may lack.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Runs a command to its end; its output is part of the error when it fails.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<String> {
    let output = command.output().map_err(Error::io(format!("running {what}")))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let both = format!("{}{stdout}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Command {
        what: what.to_owned(),
        status: output.status.to_string(),
        output: last_lines(&both, 20),
    })
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn id_of(flag: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
