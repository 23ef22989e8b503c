//! A real cluster for tests that are not written in Rust: started with the arguments, driven by
//! lines on standard input, gone when that ends or the parent dies.
//!
//! At the start it prints `key value` lines (`conninfo`, `conninfo_unix`, `conninfo_proxy` where
//! proxies were asked for, `tls_ca` where there is TLS) and then `ready`; or one line
//! `error TEXT`, and ends. Each command is answered by exactly one line: `ok`, `ok TEXT` or
//! `error TEXT`. It must never panic, and never answer twice or not at all: whoever drives it waits
//! for the line.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use segue_testkit::proxy::{Accept, Action, Flow, Message, Proxy, Trigger};
use segue_testkit::{Auth, Cluster, ClusterBuilder, Replication, Server};

const USAGE: &str = "segue-cluster [--standbys N] [--replication sync|async|remote_apply] \
    [--auth trust|scram|cleartext|cert] [--tls] [--proxy] [--fresh-identity] \
    [--setting KEY=VALUE]... [--hba LINE]...";

const COMMANDS: &str = "kill I | kill_postmaster I | stop I | stop_immediate I | start I | \
    promote I | pause I | resume I | rejoin I | sql I TEXT | wait_until I TEXT | wait_standbys | \
    host I | port I | socket_dir I | conninfo I | proxy_port I | accept I forward|refuse|silent|reset | \
    flow I pass|stall|drop | reset_all I | accepted I | \
    arm I commit|sql:TEXT|row:N reset|close|drop|swallow_reply|forward_then_reset|corrupt|kill | \
    arm_wait";

const PROMOTE_TIMEOUT: Duration = Duration::from_secs(30);
const CONDITION_TIMEOUT: Duration = Duration::from_secs(30);
const TRIGGER_TIMEOUT: Duration = Duration::from_secs(60);
const PARENT_TICK: Duration = Duration::from_millis(200);

type Answer = Result<String, String>;

fn main() -> ExitCode {
    // Asked first: a parent that dies later changes the answer.
    let parent = rustix::process::getppid();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        say(&format!("{USAGE}\ncommands: {COMMANDS}"));
        return ExitCode::SUCCESS;
    }
    let mut stage = match Stage::set(&arguments) {
        Ok(stage) => stage,
        Err(text) => {
            say(&format!("error {}", one_line(&text)));
            return ExitCode::FAILURE;
        }
    };
    // The commands come through a channel, so that the parent's death is seen while none comes:
    // its end of the pipe may live on in a child that it forked.
    let (lines_to, lines) = std::sync::mpsc::channel();
    let reader =
        std::thread::Builder::new().name("segue-cluster-stdin".to_owned()).spawn(move || {
            for line in std::io::stdin().lock().split(b'\n') {
                let Ok(line) = line else { return };
                if lines_to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
    if let Err(error) = reader {
        say(&format!("error starting the thread that reads commands: {error}"));
        return ExitCode::FAILURE;
    }
    for line in stage.greeting() {
        say(&line);
    }
    say("ready");
    loop {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match lines.recv_timeout(PARENT_TICK) {
            Ok(line) => match stage.obey(line.trim_end_matches('\r')) {
                Ok(text) if text.is_empty() => say("ok"),
                Ok(text) => say(&format!("ok {}", one_line(&text))),
                Err(text) => say(&format!("error {}", one_line(&text))),
            },
            Err(Timeout) if rustix::process::getppid() == parent => {}
            Err(Timeout | Disconnected) => return ExitCode::SUCCESS,
        }
    }
}

/// Prints a line. A reader that is gone is no error here: the end of its input will be seen.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn one_line(text: &str) -> String {
    text.replace('\r', "").replace('\n', " | ")
}

/// The cluster, and the proxies in front of it.
struct Stage {
    // Dropped before the cluster, so that no connection outlives its proxy.
    proxies: Vec<Proxy>,
    armed: Vec<Trigger>,
    cluster: Cluster,
}

impl Stage {
    fn set(arguments: &[String]) -> Result<Self, String> {
        let mut builder = Cluster::builder();
        let mut with_proxies = false;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value =
                || rest.next().ok_or_else(|| format!("{argument} needs a value; usage: {USAGE}"));
            match argument.as_str() {
                "--standbys" => builder = builder.standbys(number(value()?)?),
                "--replication" => builder = builder.replication(replication(value()?)?),
                "--auth" => builder = builder.auth(auth(value()?)?),
                "--setting" => builder = setting(builder, value()?)?,
                "--hba" => builder = builder.hba(value()?),
                "--tls" => builder = builder.tls(true),
                "--fresh-identity" => builder = builder.fresh_identity(),
                "--proxy" => with_proxies = true,
                _ => return Err(format!("unknown argument {argument}; usage: {USAGE}")),
            }
        }
        let cluster = builder.start().map_err(text_of)?;
        let mut proxies = Vec::new();
        if with_proxies {
            for server in cluster.servers() {
                proxies.push(Proxy::to_server(server).map_err(text_of)?);
            }
        }
        Ok(Self { proxies, armed: Vec::new(), cluster })
    }

    fn greeting(&self) -> Vec<String> {
        let mut lines = vec![
            format!("conninfo {}", self.cluster.conninfo()),
            format!("conninfo_unix {}", self.cluster.conninfo_unix()),
        ];
        if !self.proxies.is_empty() {
            let ports: Vec<_> = self.proxies.iter().map(Proxy::port).collect();
            lines.push(format!("conninfo_proxy {}", self.cluster.conninfo_via(&ports)));
        }
        if let Some(tls) = self.cluster.tls() {
            lines.push(format!("tls_ca {}", tls.ca.display()));
        }
        lines
    }

    fn obey(&mut self, line: &str) -> Answer {
        let (command, rest) = split(line);
        match command {
            "wait_standbys" => return done(self.cluster.wait_for_standbys()),
            "arm_wait" => return self.wait_for_armed(),
            _ => {}
        }
        let (index, rest) = split(rest);
        let index = number(index)?;
        let server = self.server(index)?;
        match command {
            "kill" => done(server.kill_all()),
            "kill_postmaster" => done(server.kill_postmaster()),
            "stop" => done(server.stop_fast()),
            "stop_immediate" => done(server.stop_immediate()),
            "start" => done(server.start()),
            "pause" => done(server.pause()),
            "resume" => done(server.resume()),
            "promote" => {
                let took = self.cluster.promote(index, PROMOTE_TIMEOUT).map_err(text_of)?;
                Ok(took.as_millis().to_string())
            }
            "rejoin" => done(self.cluster.rejoin(index)),
            "sql" => sql(server, rest),
            "wait_until" => done(server.wait_until(rest, CONDITION_TIMEOUT)),
            "host" => Ok(server.address().to_owned()),
            "port" => Ok(server.port().to_string()),
            "socket_dir" => Ok(server.socket_dir().display().to_string()),
            "conninfo" => Ok(server.conninfo()),
            "proxy_port" => Ok(self.proxy(index)?.port().to_string()),
            "accept" => done(self.proxy(index)?.set_accept(accept(rest)?)),
            "flow" => {
                self.proxy(index)?.set_flow_both(flow(rest)?);
                Ok(String::new())
            }
            "reset_all" => {
                self.proxy(index)?.reset_all();
                Ok(String::new())
            }
            "accepted" => Ok(self.proxy(index)?.accepted().to_string()),
            "arm" => self.arm(index, rest),
            _ => Err(format!("unknown command {command}; commands: {COMMANDS}")),
        }
    }

    /// Puts a fault at a message: `commit ACTION`, `row:N ACTION` (the Nth row that the server
    /// sends from now on) or `sql:TEXT ACTION` (a statement that contains the text).
    fn arm(&mut self, index: usize, rest: &str) -> Answer {
        let proxy = self.proxy(index)?;
        let (place, action) =
            rest.rsplit_once(' ').ok_or_else(|| format!("what to do is missing in: {rest}"))?;
        let action = match action {
            "reset" => Action::Reset,
            "close" => Action::Close,
            "drop" => Action::Drop,
            "swallow_reply" => Action::SwallowReply,
            "forward_then_reset" => Action::ForwardThenReset,
            "corrupt" => Action::Corrupt,
            "kill" => {
                let server = self.server(index)?.clone();
                // A server that was killed already is as dead as it shall be.
                Action::run(move |_| drop(server.kill_all()))
            }
            other => return Err(format!("unknown action {other}; commands: {COMMANDS}")),
        };
        let trigger = if place == "commit" {
            proxy.on_client_message(commits, action)
        } else if let Some(count) = place.strip_prefix("row:") {
            proxy.on_server_tag(b'D', number(count)?, action)
        } else if let Some(text) = place.strip_prefix("sql:") {
            let text = text.to_owned();
            proxy.on_client_message(move |message: &Message<'_>| message.runs(&text), action)
        } else {
            return Err(format!("unknown place {place}; commands: {COMMANDS}"));
        };
        self.armed.push(trigger);
        Ok(String::new())
    }

    /// Waits for all that was armed and not yet waited for.
    fn wait_for_armed(&mut self) -> Answer {
        for trigger in std::mem::take(&mut self.armed) {
            trigger.wait(TRIGGER_TIMEOUT).map_err(text_of)?;
        }
        Ok(String::new())
    }

    fn server(&self, index: usize) -> Result<&Server, String> {
        let servers = self.cluster.servers();
        servers.get(index).ok_or_else(|| format!("there is no server {index}"))
    }

    fn proxy(&self, index: usize) -> Result<&Proxy, String> {
        self.proxies
            .get(index)
            .ok_or_else(|| format!("there is no proxy {index}; was --proxy given?"))
    }
}

/// Whether a client's message is COMMIT, or the seal that Segue sends along with a commit.
fn commits(message: &Message<'_>) -> bool {
    ["COMMIT", "UPDATE segue.ledger SET", "segue.seal($1, $2)", "segue.seal('"]
        .iter()
        .any(|text| message.runs(text))
}

/// The first value of the answer; nothing where there is no row.
fn sql(server: &Server, text: &str) -> Answer {
    let rows = server.query(text).map_err(text_of)?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
}

fn done<T>(result: segue_testkit::Result<T>) -> Answer {
    result.map(|_| String::new()).map_err(text_of)
}

fn text_of(error: segue_testkit::Error) -> String {
    error.to_string()
}

/// The first word, and what follows it.
fn split(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn replication(text: &str) -> Result<Replication, String> {
    match text {
        "sync" => Ok(Replication::Sync),
        "async" => Ok(Replication::Async),
        "remote_apply" => Ok(Replication::RemoteApply),
        _ => Err(format!("unknown replication {text}; usage: {USAGE}")),
    }
}

fn auth(text: &str) -> Result<Auth, String> {
    match text {
        "trust" => Ok(Auth::Trust),
        "scram" => Ok(Auth::Scram),
        "cleartext" => Ok(Auth::Cleartext),
        "cert" => Ok(Auth::Certificate),
        _ => Err(format!("unknown auth {text}; usage: {USAGE}")),
    }
}

fn setting(builder: ClusterBuilder, text: &str) -> Result<ClusterBuilder, String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text} is not KEY=VALUE; usage: {USAGE}"))?;
    Ok(builder.setting(key, value))
}

fn accept(text: &str) -> Result<Accept, String> {
    match text {
        "forward" => Ok(Accept::Forward),
        "refuse" => Ok(Accept::Refuse),
        "silent" => Ok(Accept::Silent),
        "reset" => Ok(Accept::Reset),
        _ => Err(format!("unknown way to accept {text:?}; commands: {COMMANDS}")),
    }
}

fn flow(text: &str) -> Result<Flow, String> {
    match text {
        "pass" => Ok(Flow::Pass),
        "stall" => Ok(Flow::Stall),
        "drop" => Ok(Flow::Drop),
        _ => Err(format!("unknown flow {text:?}; commands: {COMMANDS}")),
    }
}
