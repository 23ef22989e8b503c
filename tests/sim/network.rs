//! The network of a run: what is delivered and how much of it, which links are lost and found, and the
//! faults of the servers behind them.

use bytes::BytesMut;
use segue::error::{Error, ErrorKind};
use segue::session::{LinkReady, internals};

use crate::backend::last_words;
use crate::figures::Fault;
use crate::net::Way;
use crate::plan::For;
use crate::run::{Result, Run};

impl Run {
    pub fn deliver_to_server(&mut self) -> Result<bool> {
        let Some(id) = self.client.link else { return Ok(false) };
        self.serve_files()?;
        // While more is about to be requested, a Sync that may be shared need not be sent yet.
        let ahead = self.client.pipeline > 0 && self.world.rng.chance(50);
        let session = &mut self.client.session;
        let output = if ahead { session.output_so_far() } else { session.output() }.to_vec();
        if !output.is_empty() {
            self.world.note(|| format!("sent: {}", printable(&output)));
            self.client.session.handle_sent();
            self.world.backends[id].inflight.extend(output);
        }
        let count = if self.world.rng.chance(60) { usize::MAX } else { self.world.rng.below(60) };
        Ok(self.arrive(id, count))
    }

    pub fn deliver_to_client(&mut self) -> Result<bool> {
        let Some(id) = self.client.link else { return Ok(false) };
        self.stamp(id);
        let profile = &self.world.profile;
        let (small, often) = (profile.small_pieces, profile.replies);
        let available = if self.is_cut(id, Way::ToClient) {
            0
        } else {
            self.world.backends[id].down.arrived(self.world.now)
        };
        let count = match self.world.rng.chance(60) {
            _ if small => self.world.rng.below(available.min(60) + 1),
            true => available,
            false => self.world.rng.below(available + 1),
        };
        if count == 0 || !self.world.rng.chance(often) {
            return Ok(false);
        }
        self.receive(id, count)?;
        Ok(true)
    }

    pub fn receive(&mut self, id: usize, count: usize) -> Result {
        self.stamp(id);
        let backend = &mut self.world.backends[id];
        backend.down.take(count);
        let bytes: Vec<u8> = backend.wire.drain(..count).collect();
        self.client.input.extend_from_slice(&bytes);
        self.world.note(|| format!("received: {}", printable(&bytes)));
        self.take_input()
    }

    pub fn take_input(&mut self) -> Result {
        if self.client.awaiting.is_some() || self.client.session.gives_up_link() {
            return Ok(());
        }
        self.client
            .session
            .handle_input(&mut self.client.input)
            .map_err(|error| format!("{error}"))?;
        self.drain_events()?;
        self.file_ends()
    }

    pub fn arrive(&mut self, id: usize, count: usize) -> bool {
        self.stamp(id);
        let cut = self.is_cut(id, Way::ToServer);
        let now = self.world.now;
        let backend = &mut self.world.backends[id];
        if !backend.alive {
            backend.inflight.clear();
            return false;
        }
        let count = if cut { 0 } else { count.min(backend.up.arrived(now)) };
        backend.up.take(count);
        backend.input.extend(backend.inflight.drain(..count));
        count > 0
    }

    /// The client notices what has become of its link.
    pub fn network(&mut self) -> Result<bool> {
        let Some(id) = self.client.link else { return Ok(false) };
        if self.client.session.gives_up_link() {
            self.lose_link(false)?;
            return Ok(true);
        }
        if let Some((row, number)) = self.client.awaiting {
            return match self.is_watched() {
                true => self.hear_backup(row, number),
                false => self.confirm(row, number),
            };
        }
        let backend = &self.world.backends[id];
        let deposed = backend.server != self.world.primary;
        let gone = match self.is_watched() {
            true => self.is_gone(id),
            false => !backend.alive || (deposed && self.world.rng.chance(20)),
        };
        if gone {
            self.lose_link(true)?;
        }
        Ok(gone)
    }

    pub fn confirm(&mut self, row: uuid::Uuid, number: u64) -> Result<bool> {
        let deposed = self.client.link.is_none_or(|id| {
            self.world.backends[id].server != self.world.primary || !self.world.backends[id].alive
        });
        if deposed && self.world.rng.chance(90) {
            self.lose_link(false)?;
            return Ok(true);
        }
        let sealed = Some((row, number.cast_signed()));
        let standby = &self.world.servers[self.world.standbys[0]];
        if !deposed && standby.wal.iter().any(|record| record.sealed == sealed) {
            self.client.awaiting = None;
            self.client.session.handle_backup(Ok(()));
        } else if self.world.rng.chance(5) {
            self.client.awaiting = None;
            let error = Error::new(ErrorKind::FailoverTimeout, "no backup");
            self.world.note(|| "no backup confirms the commit".into());
            self.client.app.time_is_over = true;
            self.client.session.handle_backup(Err(error));
        } else {
            return Ok(false);
        }
        self.drain_events()?;
        self.client.app.time_is_over = false;
        self.take_input()?;
        Ok(true)
    }

    /// The link is lost: a part of what was under way may yet arrive, on either side.
    pub fn lose_link(&mut self, last_words: bool) -> Result {
        let Some(id) = self.client.link else { return Ok(()) };
        self.world.note(|| format!("the link to backend {id} is lost"));
        if last_words {
            let cut = self.is_cut(id, Way::ToClient);
            let available = if cut { 0 } else { self.world.backends[id].wire.len() };
            let all = self.world.rng.chance(50);
            let count = if all { available } else { self.world.rng.below(available + 1) };
            self.receive(id, count)?;
        }
        let output = self.client.session.output().to_vec();
        let sent =
            if self.world.rng.chance(50) { self.world.rng.below(output.len() + 1) } else { 0 };
        let backend = &mut self.world.backends[id];
        backend.inflight.extend(&output[..sent]);
        backend.eof = true;
        let left = backend.inflight.len();
        let arrives = if self.world.rng.chance(50) { left } else { self.world.rng.below(left + 1) };
        let backend = &mut self.world.backends[id];
        backend.inflight.truncate(arrives);
        backend.stubborn = self.world.rng.chance(self.world.profile.stubborn);
        self.left(self.address_of(id));
        if self.world.profile.second_writes.is_some() {
            self.world.second_writer();
        }
        self.client.link = None;
        self.client.awaiting = None;
        self.client.input.clear();
        self.client.app.links_lost += 1;
        self.client.session.handle_link_lost();
        self.drain_events()
    }

    pub fn fault(&mut self, number: usize) -> Result {
        match self.is_watched() {
            true => self.strike(number),
            false => self.befall(number, None),
        }
    }

    /// A fault of this kind, or of any, where the session's server is drawn.
    pub fn befall(&mut self, number: usize, kind: Option<Fault>) -> Result {
        let mut rng = self.plan.rng(For::Fault(number));
        let primary = self.world.primary;
        let words = last_words(&mut rng);
        let words = words.as_deref();
        let kind = kind.unwrap_or_else(|| self.world.profile.fault_kind(&mut rng));
        self.figures.fault(kind);
        self.world.note(|| format!("fault {number}: {kind:?}"));
        match kind {
            Fault::LinkBroken => self.lose_link(true)?,
            Fault::BackendEnded => {
                if let Some(id) = self.client.link {
                    self.world.end_backend(id, words);
                }
            }
            Fault::Crash => self.world.crash(primary, words),
            Fault::CrashAndPromotion => {
                self.world.crash(primary, words);
                self.promotes = true;
            }
            Fault::PromotionBesideTheOld => self.promotes = true,
            Fault::Switchover => {
                self.world.servers[primary].read_only = true;
                self.clients_mut().for_each(|client| client.app.read_only_seen = true);
                self.promotes = true;
            }
            // Only where one is being looked for, by a generator of its own, or where the detector is in
            // the loop.
            _ => {}
        }
        Ok(())
    }

    pub fn find_link(&mut self) -> Result<bool> {
        if !self.client.session.wants_link() {
            return Err("there is no link, and the session wants none".into());
        }
        let primary = self.world.primary;
        if self.promotes && (self.world.servers[primary].read_only || self.world.rng.chance(50)) {
            self.promotes = false;
            self.world.promote(self.world.standbys[0]);
            return Ok(true);
        }
        let awaited = !self.client.requests.is_empty() && self.faults_left > 0;
        if awaited && self.world.rng.chance(4) && self.next_fault().is_some() {
            self.figures.fault(Fault::NoServer);
            self.client.app.no_link = true;
            self.world.note(|| "no link can be had".into());
            let error = Error::new(ErrorKind::FailoverTimeout, "no server");
            self.client.app.time_is_over = true;
            self.client.session.handle_no_link(&error);
            self.drain_events()?;
            self.client.app.time_is_over = false;
            return Ok(true);
        }
        if !self.world.servers[primary].alive {
            if self.promotes {
                return Ok(false);
            }
            self.world.restart(primary);
            return Ok(true);
        }
        let mut server = primary;
        let old = (0..primary).rev().find(|old| self.world.servers[*old].alive);
        if let Some(old) = old.filter(|_| self.world.rng.chance(15)) {
            server = old;
        }
        self.make_link(server)?;
        Ok(true)
    }

    pub fn make_link(&mut self, server: usize) -> Result {
        let id = self.world.open_backend(server);
        self.give_link(server, id, self.world.servers[server].timeline)
    }

    /// The session gets the link to this backend, whose server was on that timeline when it was asked.
    pub fn give_link(&mut self, server: usize, id: usize, timeline: u32) -> Result {
        let mut prepared = Vec::new();
        if self.world.rng.chance(60) {
            let mut bytes = BytesMut::new();
            prepared = internals::prepare(self.client.access, &[], &mut bytes);
            bytes.extend_from_slice(b"S\0\0\0\x04");
            self.world.backends[id].input.extend_from_slice(&bytes);
            let mut known: Vec<_> =
                self.client.statements.values().filter(|s| s.is_named()).cloned().collect();
            known.sort_by_key(|statement| statement.id);
            for statement in known {
                if self.world.rng.chance(30) && !statement.sql.starts_with("SELEC ") {
                    self.world.parse_message(id, statement.name.clone(), statement.sql.clone());
                    prepared.push(statement.id);
                }
            }
            while self.world.step(id)? {}
            self.world.backends[id].wire.clear();
        }
        let ready = LinkReady {
            server: self.name_of(server),
            timeline,
            backend_pid: self.world.backends[id].pid,
            backend_start: self.world.backends[id].start.clone(),
            prepared,
            parameters: Vec::new(),
            ledger: self.client.access,
        };
        self.world
            .note(|| format!("a link to server {server}, backend {id}: {:?}", ready.prepared));
        if let Some(files) = &mut self.client.files {
            files.handle_timeline(&mut self.client.session, timeline);
        }
        let taken = self.client.session.handle_link_ready(ready);
        if timeline < self.client.highest_timeline {
            self.world.end_backend(id, None);
            return match taken {
                Err(_) if !self.is_watched() => Ok(()),
                Err(error) => Err(format!("the session is given an older timeline: {error}")),
                Ok(()) => Err("the session goes back to an older timeline".into()),
            };
        }
        taken.map_err(|error| format!("the session refuses a good link: {error}"))?;
        self.figures.links += usize::from(self.client.highest_timeline > 0);
        self.figures.failovers += usize::from(
            self.client.highest_timeline > 0 && timeline > self.client.highest_timeline,
        );
        self.client.has_moved |=
            self.client.highest_timeline > 0 && timeline > self.client.highest_timeline;
        self.client.link_is_newer = true;
        self.client.highest_timeline = timeline;
        self.client.link = Some(id);
        self.drain_events()
    }
}

/// Bytes in a form that a reader of the trace can make out.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            32..=126 => text.push(char::from(*byte)),
            _ if !text.ends_with('.') => text.push('.'),
            _ => {}
        }
    }
    text
}
