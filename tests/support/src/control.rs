//! What a server is asked, over its Unix socket as superuser: faults of the network do not matter
//! here. Every call takes a fresh connection on a thread of its own, so that it works inside an
//! async runtime too and a server that does not answer costs a deadline, not a hang.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls, SimpleQueryMessage};

use crate::cluster::DATABASE;
use crate::error::{Error, Result};
use crate::server::Server;

const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a promotion is asked for: a single request right after the primary's death may be
/// swallowed by the restart of the walreceiver and then take five seconds.
const PROMOTE_EVERY: Duration = Duration::from_millis(10);

/// A row as text; NULL is `None`.
pub type Row = Vec<Option<String>>;

impl Server {
    /// Runs SQL, one or several statements, and returns the rows of all of them as text.
    ///
    /// # Errors
    /// The server's own, and a timeout after 30 s.
    pub fn query(&self, sql: &str) -> Result<Vec<Row>> {
        let (name, sql) = (self.name().to_owned(), sql.to_owned());
        self.with_client(CONTROL_TIMEOUT, move |client| {
            client.simple_query(&sql).map(rows).map_err(|error| sql_error(&name, &error))
        })
    }

    /// The first column of the first row; NULL is an empty string.
    ///
    /// # Errors
    /// Those of [`Server::query`], and when there is no row.
    pub fn value(&self, sql: &str) -> Result<String> {
        let row = self.query(sql)?.into_iter().next();
        row.and_then(|row| row.into_iter().next()).map(Option::unwrap_or_default).ok_or_else(|| {
            Error::State(format!("server {} returned no row for: {sql}", self.name()))
        })
    }

    /// Runs SQL for its effect.
    ///
    /// # Errors
    /// Those of [`Server::query`].
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.query(sql).map(drop)
    }

    /// Whether it is a standby.
    ///
    /// # Errors
    /// Those of [`Server::query`].
    pub fn is_in_recovery(&self) -> Result<bool> {
        Ok(self.value("SELECT pg_is_in_recovery()")? == "t")
    }

    /// The timeline it is on, by its last checkpoint or, on a standby, by what it receives.
    ///
    /// # Errors
    /// Those of [`Server::query`].
    pub fn timeline(&self) -> Result<u32> {
        let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN greatest(c.timeline_id, \
                   (SELECT received_tli FROM pg_stat_wal_receiver)) ELSE \
                   ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END \
                   FROM pg_control_checkpoint() c";
        let text = self.value(sql)?;
        text.parse().map_err(|_| Error::State(format!("{text} is no timeline")))
    }

    /// ALTER SYSTEM and reload, and waits until a fresh session sees the value.
    ///
    /// # Errors
    /// Those of [`Server::query`]; also when it has not taken effect, as with settings that need a
    /// restart.
    pub fn set_config(&self, key: &str, value: &str) -> Result<()> {
        let quoted = value.replace('\'', "''");
        self.execute(&format!("ALTER SYSTEM SET {key} = '{quoted}'"))?;
        self.reload()?;
        let condition = format!(
            "SELECT count(*) = 0 FROM pg_file_settings f JOIN pg_settings s USING (name) \
             WHERE f.name = lower('{key}') AND f.sourcefile LIKE '%postgresql.auto.conf' \
             AND (NOT f.applied OR s.pending_restart)"
        );
        self.wait_until(&condition, Duration::from_secs(10))
    }

    /// Removes a setting made by [`Server::set_config`].
    ///
    /// # Errors
    /// Those of [`Server::query`].
    pub fn reset_config(&self, key: &str) -> Result<()> {
        self.execute(&format!("ALTER SYSTEM RESET {key}"))?;
        self.reload()
    }

    /// Has the configuration read again, and waits until the postmaster has.
    fn reload(&self) -> Result<()> {
        let loaded = self.value("SELECT pg_conf_load_time()")?;
        self.execute("SELECT pg_reload_conf()")?;
        let condition = format!("SELECT pg_conf_load_time() > '{loaded}'");
        self.wait_until(&condition, Duration::from_secs(10))
    }

    /// Asks until the condition (a SELECT of one boolean) is true. Errors on the way, such as those
    /// of a server that is just starting, are part of the waiting.
    ///
    /// # Errors
    /// A timeout that names the condition and the last answer.
    pub fn wait_until(&self, condition: &str, timeout: Duration) -> Result<()> {
        let (name, sql) = (self.name().to_owned(), condition.to_owned());
        let deadline = Instant::now() + timeout;
        let mut last;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = {
                let (name, sql) = (name.clone(), sql.clone());
                self.with_client(left.max(Duration::from_millis(100)), move |client| {
                    loop {
                        let answer = client
                            .simple_query(&sql)
                            .map(rows)
                            .map_err(|error| sql_error(&name, &error))?;
                        let first = answer.into_iter().next().and_then(|r| r.into_iter().next());
                        let value = first.flatten().unwrap_or_default();
                        if value == "t" || Instant::now() >= deadline {
                            return Ok(value);
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                })
            };
            match answer {
                Ok(value) if value == "t" => return Ok(()),
                Ok(value) => last = format!("it said {value:?}"),
                Err(error) => last = error.to_string(),
            }
            if Instant::now() >= deadline {
                let what = format!("{condition} on server {name} ({last})");
                return Err(Error::timeout(what, timeout));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The backends of the application's sessions, by what the server says.
    ///
    /// # Errors
    /// Those of [`Server::query`].
    pub fn backend_pids(&self) -> Result<Vec<u32>> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' \
                   AND pid <> pg_backend_pid() AND application_name <> 'segue-testkit'";
        let rows = self.query(sql)?;
        Ok(rows.into_iter().flatten().flatten().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Asks for a promotion once, without waiting for it.
    ///
    /// # Errors
    /// Those of [`Server::query`]; 55000 when it is no standby.
    pub fn promote(&self) -> Result<()> {
        self.execute("SELECT pg_promote(false)")
    }

    /// Asks for a promotion every 10 ms until the server is writable, and returns how long that
    /// took from this call.
    ///
    /// # Errors
    /// Those of [`Server::query`], and a timeout.
    pub fn promote_repeatedly(&self, timeout: Duration) -> Result<Duration> {
        let start = Instant::now();
        let name = self.name().to_owned();
        self.with_client(timeout + Duration::from_secs(1), move |client| {
            let mut next_request = start;
            loop {
                if Instant::now() >= next_request {
                    match client.simple_query("SELECT pg_promote(false)") {
                        // 55000, "recovery is not in progress": an earlier request has succeeded.
                        Err(error) if error.code().is_some_and(|code| code.code() == "55000") => {}
                        Err(error) => return Err(sql_error(&name, &error)),
                        Ok(_) => {}
                    }
                    next_request += PROMOTE_EVERY;
                }
                let answer = client
                    .simple_query("SELECT pg_is_in_recovery()")
                    .map_err(|error| sql_error(&name, &error))?;
                if rows(answer).first().is_some_and(|row| row[0].as_deref() == Some("f")) {
                    return Ok(start.elapsed());
                }
                if start.elapsed() > timeout {
                    return Err(Error::timeout(format!("the promotion of server {name}"), timeout));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    }

    /// Runs work on a fresh connection on a thread of its own. When the time is up the thread is
    /// left behind; it ends with its connection.
    pub(crate) fn with_client<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl FnOnce(&mut Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut config = Client::configure();
        config
            .host_path(self.socket_dir())
            .port(self.port())
            .user("postgres")
            .dbname(DATABASE)
            .application_name("segue-testkit")
            .connect_timeout(timeout);
        let name = self.name().to_owned();
        let (answer_to, answer) = channel();
        std::thread::Builder::new()
            .name("segue-control".to_owned())
            .spawn(move || {
                let result = match config.connect(NoTls) {
                    Ok(mut client) => work(&mut client),
                    Err(error) => Err(sql_error(&name, &error)),
                };
                // Whoever asked may have given up.
                let _ = answer_to.send(result);
            })
            .map_err(Error::io("starting a control thread"))?;
        answer.recv_timeout(timeout).unwrap_or_else(|_| {
            Err(Error::timeout(format!("an answer of server {}", self.name()), timeout))
        })
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<Row> {
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

fn sql_error(server: &str, error: &postgres::Error) -> Error {
    let message = match error.as_db_error() {
        Some(error) => format!("{}: {}", error.severity(), error.message()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            text
        }
    };
    Error::Sql {
        server: server.to_owned(),
        sqlstate: error.code().map(|code| code.code().to_owned()),
        message,
    }
}
