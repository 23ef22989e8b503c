//! A server's life: started in the foreground as our child, stopped, killed, paused, resumed.
//!
//! Crash recovery is never helped along: starting after a kill removes nothing.

use std::fs::{self, OpenOptions};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::owner::last_lines;
use crate::processes;
use crate::server::Server;
use crate::workdir;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the backends of a killed postmaster may take to notice before they are killed.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(3);

impl Server {
    /// Starts the server as it is, after a stop or a kill, and waits until it accepts connections.
    ///
    /// # Errors
    /// When it is running already or does not come up; the end of its log is in the message.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    /// Starts the server without waiting for it.
    ///
    /// # Errors
    /// When it is running already or cannot be executed.
    pub fn launch(&self) -> Result<()> {
        let mut child = self.child();
        if let Some(running) = child.as_mut()
            && running.try_wait().map_err(Error::io("asking after a server"))?.is_none()
        {
            return Err(Error::State(format!("server {} is running already", self.name())));
        }
        *child = None;
        let data = self.data_dir();
        // PostgreSQL refuses to start while backends of a former postmaster hold its shared memory.
        if !processes::wait_until_gone(&data, ORPHAN_TIMEOUT) {
            processes::signal_all(&data, None, Signal::KILL)?;
            processes::wait_until_gone(&data, ORPHAN_TIMEOUT);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(Error::io(format!("opening {}", self.log_path().display())))?;
        let errors = log.try_clone().map_err(Error::io("sharing a server's log"))?;
        let inner = &self.inner;
        let postgres = inner.binaries.path("postgres");
        let mut command = inner.owner.command(&postgres, inner.namespace.as_deref());
        command.arg("-D").arg(&data);
        // On the command line, since pg_rewind copies the files of another server.
        for (key, value) in [
            ("port", self.port().to_string()),
            ("listen_addresses", self.address().to_owned()),
            ("unix_socket_directories", self.socket_dir().display().to_string()),
            ("cluster_name", self.name().to_owned()),
        ] {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        command.current_dir(&data).stdout(Stdio::from(log)).stderr(Stdio::from(errors));
        let started = processes::spawn_from_nursery(&format!("server {}", self.name()), command)?;
        *child = Some(started);
        Ok(())
    }

    /// Waits until a launched server accepts connections (a standby: read-only ones).
    ///
    /// # Errors
    /// When it ends instead, or is not ready within a minute.
    pub fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let pid = {
                let mut child = self.child();
                let Some(running) = child.as_mut() else {
                    return Err(self.not_started("it was not launched"));
                };
                if let Ok(Some(status)) = running.try_wait() {
                    *child = None;
                    return Err(self.not_started(&format!("it ended ({status})")));
                }
                running.id()
            };
            if self.says_ready(pid) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.not_started(&format!("it was not ready after {START_TIMEOUT:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the postmaster with SIGKILL. Its backends live on for a moment, as they do in life.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill_postmaster(&self) -> Result<()> {
        let mut child = self.take_child()?;
        child.kill().map_err(Error::io("killing a postmaster"))?;
        child.wait().map_err(Error::io("waiting for a killed postmaster")).map(drop)
    }

    /// Kills every process of the server with SIGKILL, as when its machine loses power.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill_all(&self) -> Result<()> {
        let mut child = self.take_child()?;
        // Stopped first, so that the postmaster's death is not noticed by anybody.
        processes::signal_all(&self.data_dir(), Some(child.id()), Signal::STOP)?;
        processes::signal_all(&self.data_dir(), Some(child.id()), Signal::KILL)?;
        child.wait().map_err(Error::io("waiting for a killed postmaster")).map(drop)
    }

    /// Kills one backend with SIGKILL: the postmaster then ends all others and recovers.
    ///
    /// # Errors
    /// When the process is none of this server's.
    pub fn kill_backend(&self, pid: u32) -> Result<()> {
        if !processes::standing_in(&self.data_dir()).contains(&pid) {
            return Err(Error::State(format!(
                "process {pid} does not belong to server {}",
                self.name()
            )));
        }
        processes::signal(pid, Signal::KILL)
    }

    /// `pg_ctl stop -m fast`: ends all sessions, waits for the end.
    ///
    /// # Errors
    /// When it is not running, or still is after a minute.
    pub fn stop_fast(&self) -> Result<()> {
        self.signal_postmaster(Signal::INT)?;
        self.wait_until_stopped(STOP_TIMEOUT)
    }

    /// `pg_ctl stop -m immediate`: aborts all processes, waits for the end.
    ///
    /// # Errors
    /// When it is not running, or still is after a minute.
    pub fn stop_immediate(&self) -> Result<()> {
        self.signal_postmaster(Signal::QUIT)?;
        self.wait_until_stopped(STOP_TIMEOUT)
    }

    /// `pg_ctl stop -m smart --no-wait`: admits no new sessions and ends with the last one. Use
    /// [`Server::wait_until_stopped`] to wait for that.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop_smart(&self) -> Result<()> {
        self.signal_postmaster(Signal::TERM)
    }

    /// Waits until the server has ended.
    ///
    /// # Errors
    /// When it has not by then.
    pub fn wait_until_stopped(&self, timeout: Duration) -> Result<()> {
        let ended = processes::poll(timeout, || {
            let mut child = self.child();
            let ended = child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
            if ended {
                *child = None;
            }
            ended
        });
        match ended {
            true => Ok(()),
            false => Err(Error::timeout(format!("the end of server {}", self.name()), timeout)),
        }
    }

    /// `stop_fast`, then `start`.
    ///
    /// # Errors
    /// Those of the two.
    pub fn restart(&self) -> Result<()> {
        self.stop_fast()?;
        self.start()
    }

    /// Stops all of its processes with SIGSTOP, the postmaster first so that no new one appears.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        processes::signal_all(&self.data_dir(), Some(self.postmaster_pid()?), Signal::STOP)
    }

    /// Stops the postmaster alone: sessions go on, new connections hang.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause_postmaster(&self) -> Result<()> {
        processes::signal(self.postmaster_pid()?, Signal::STOP)
    }

    /// Lets the processes go on after [`Server::pause`].
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        processes::signal_all(&self.data_dir(), Some(self.postmaster_pid()?), Signal::CONT)
    }

    /// Whether its postmaster runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The postmaster's process id.
    ///
    /// # Errors
    /// When it is not running.
    pub fn postmaster_pid(&self) -> Result<u32> {
        let mut child = self.child();
        let running = child.as_mut().and_then(|child| runs(child).then(|| child.id()));
        running.ok_or_else(|| self.not_running())
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log), lines)
    }

    /// Ends the server in whatever way works, for reuse of its directory.
    pub(crate) fn end(&self) {
        workdir::end_processes(&self.data_dir());
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal_postmaster(&self, signal: Signal) -> Result<()> {
        processes::signal(self.postmaster_pid()?, signal)
    }

    fn take_child(&self) -> Result<Child> {
        let mut child = self.child();
        match child.as_mut().is_some_and(runs) {
            true => child.take().ok_or_else(|| self.not_running()),
            false => Err(self.not_running()),
        }
    }

    /// What pg_ctl reads too: line 1 of postmaster.pid is the process, line 8 its state.
    fn says_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data_dir().join("postmaster.pid")) else {
            return false;
        };
        let mut lines = text.lines();
        lines.next().is_some_and(|line| line.trim() == pid.to_string())
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }

    fn not_running(&self) -> Error {
        Error::State(format!("server {} is not running", self.name()))
    }

    fn not_started(&self, reason: &str) -> Error {
        Error::Start {
            server: self.name().to_owned(),
            reason: reason.to_owned(),
            log: self.log_tail(20),
        }
    }
}

fn runs(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}
