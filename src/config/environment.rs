//! The surroundings that a configuration is read in: variables, home directory, user.
//!
//! Given as a value, so that parsing never reads the process's environment by itself.
//! Values of variables are never shown: one of them may be `PGPASSWORD`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What parsing may know of the process and of the machine besides the connection string.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Environment {
    /// Environment variables; those whose name starts with `PG` or `SEGUE_` are looked at.
    pub variables: BTreeMap<String, String>,
    /// Where `.pgpass`, `.pg_service.conf` and `.postgresql` are looked for.
    pub home: Option<PathBuf>,
    /// Where the system's `pg_service.conf` is, unless `PGSYSCONFDIR` says otherwise.
    pub system_service_dir: Option<PathBuf>,
    /// The operating system's user, who is the default for `user`.
    pub user_name: Option<String>,
    /// The directories in which a server's socket is looked for where no host was named.
    pub socket_directories: Vec<PathBuf>,
}

/// Debian's place for sockets, and then that of PostgreSQL as its authors ship it.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

impl Environment {
    /// Nothing at all: only the connection string and the defaults count.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The environment of this process.
    pub fn real() -> Self {
        // A variable that is not UTF-8 is kept with replacement characters, so that an option which
        // depends on it fails and names it instead of being ignored.
        let variables = std::env::vars_os()
            .map(|(name, value)| {
                let name = name.to_string_lossy().into_owned();
                (name, value.to_string_lossy().into_owned())
            })
            .filter(|(name, _)| name.starts_with("PG") || name.starts_with("SEGUE_"))
            .collect();
        let account = Account::of_this_process();
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        // Directory services such as LDAP are not in /etc/passwd; the login shell's variables are
        // the only word on the user's name then.
        let login_name = || {
            ["USER", "LOGNAME"]
                .iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|name| !name.is_empty())
        };
        Self {
            variables,
            home: home.or(account.home),
            system_service_dir: Some(PathBuf::from("/etc/postgresql-common")),
            user_name: account.name.or_else(login_name),
            socket_directories: SOCKET_DIRECTORIES.iter().map(PathBuf::from).collect(),
        }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A file of the user's own, by its path below the home directory.
    pub(super) fn in_home(&self, path: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(path))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("home", &self.home)
            .field("system_service_dir", &self.system_service_dir)
            .field("user_name", &self.user_name)
            .field("socket_directories", &self.socket_directories)
            .finish()
    }
}

/// What /etc/passwd says of the effective user.
#[derive(Default, Debug, PartialEq, Eq)]
struct Account {
    name: Option<String>,
    home: Option<PathBuf>,
}

impl Account {
    fn of_this_process() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        std::fs::read("/etc/passwd")
            .ok()
            .and_then(|passwd| Self::find(&String::from_utf8_lossy(&passwd), uid))
            .unwrap_or_default()
    }

    fn find(passwd: &str, uid: u32) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let found = fields.nth(1)?.parse() == Ok(uid);
            let home = fields.nth(2).filter(|home| !home.is_empty());
            found.then(|| Self { name: Some(name.to_owned()), home: home.map(PathBuf::from) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_account_by_its_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n#\nbad:x\nann:x:1001:100:Ann:/home/ann:/bin/sh";
        assert_eq!(
            Account::find(passwd, 1001),
            Some(Account { name: Some("ann".into()), home: Some("/home/ann".into()) })
        );
        assert_eq!(Account::find(passwd, 100), None);
    }

    #[test]
    fn debug_shows_no_value() {
        let env = Environment::empty().with("PGPASSWORD", "hunter2");
        let shown = format!("{env:?}");
        assert!(shown.contains("PGPASSWORD") && !shown.contains("hunter2"), "{shown}");
    }
}
