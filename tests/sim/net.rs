//! The machines of a run and the network to them, as clients find them at a time: what is cut off, and in
//! which direction; what hangs, starts or is slow. And one question to a server, on its way there and back.

use std::time::Instant;

use segue::cluster::detector::Failure;
use segue::cluster::picture::Observed;
use segue::cluster::{Facts, LedgerAccess};

use crate::clock::{MS, NEVER, Origin};
use crate::rng::Rng;
use crate::world::{Server, World};

/// One place where a server is looked for.
#[derive(Debug, Default)]
pub struct Address {
    /// The server that is there now.
    pub server: usize,
    /// All of its processes are stopped: connections are accepted by the kernel, and nobody answers.
    pub hung_until: u64,
    /// It says that it is starting up.
    pub starting_until: u64,
    /// It takes no more connections.
    pub full_until: u64,
    pub slow_until: u64,
    /// Of one message, one way.
    latency: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    Polls,
    Sessions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What does not get through. What is sent meanwhile arrives once it is over, as TCP sends it again.
#[derive(Debug, Clone)]
pub struct Cut {
    pub address: usize,
    pub polls: bool,
    pub sessions: bool,
    pub to_server: bool,
    pub to_client: bool,
    pub from: u64,
    pub until: u64,
}

impl Cut {
    fn stops(&self, address: usize, traffic: Traffic, way: Way, now: u64) -> bool {
        let of_kind = match traffic {
            Traffic::Polls => self.polls,
            Traffic::Sessions => self.sessions,
        };
        let in_direction = match way {
            Way::ToServer => self.to_server,
            Way::ToClient => self.to_client,
        };
        self.address == address && of_kind && in_direction && (self.from..self.until).contains(&now)
    }
}

#[derive(Debug, Default)]
pub struct Net {
    pub addresses: Vec<Address>,
    pub cuts: Vec<Cut>,
}

impl Net {
    pub fn new(rng: &mut Rng, addresses: usize) -> Self {
        let address = |server| {
            let latency = *rng.pick(&[20, 100, 100, 300, 2000, 20_000]);
            Address { server, latency, ..Address::default() }
        };
        Self { addresses: (0..addresses).map(address).collect(), cuts: Vec::new() }
    }

    /// Until when nothing gets through in this direction.
    pub fn blocked(&self, address: usize, traffic: Traffic, way: Way, now: u64) -> Option<u64> {
        let cuts = self.cuts.iter().filter(|cut| cut.stops(address, traffic, way, now));
        cuts.map(|cut| cut.until).max()
    }

    /// Since when something of this kind does not get through.
    pub fn blocked_since(&self, address: usize, traffic: Traffic, now: u64) -> Option<u64> {
        let stops = |cut: &&Cut| {
            [Way::ToServer, Way::ToClient].iter().any(|way| cut.stops(address, traffic, *way, now))
        };
        self.cuts.iter().filter(stops).map(|cut| cut.from).min()
    }

    /// Whether whoever is there answers whoever asks, in its usual time.
    pub fn answers(&self, address: usize, now: u64) -> bool {
        let it = &self.addresses[address];
        let waits = [it.hung_until, it.starting_until, it.full_until, it.slow_until];
        waits.iter().all(|until| *until <= now)
            && !self.cuts.iter().any(|cut| cut.address == address && cut.until > now)
    }

    pub fn latency(&self, address: usize, rng: &mut Rng, now: u64) -> u64 {
        let Some(it) = self.addresses.get(address) else { return 20 + rng.next() % 200 };
        let slow = if it.slow_until > now { (it.slow_until - now).min(400 * MS) } else { 0 };
        it.latency + rng.next() % (it.latency + 20) + slow
    }

    /// When something of it ends next.
    pub fn next(&self, now: u64) -> u64 {
        let cuts = self.cuts.iter().flat_map(|cut| [cut.from, cut.until]);
        let states = self
            .addresses
            .iter()
            .flat_map(|it| [it.hung_until, it.starting_until, it.full_until, it.slow_until]);
        cuts.chain(states).filter(|at| *at > now).min().unwrap_or(NEVER)
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.cuts.clear();
        for it in &mut self.addresses {
            *it = Address { server: it.server, latency: it.latency, ..Address::default() };
        }
    }
}

/// A link of the monitor's: to which server, and in which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To {
    pub server: usize,
    pub crashes: usize,
}

impl To {
    pub fn is_dead(self, world: &World) -> bool {
        let server = &world.servers[self.server];
        !server.alive || server.crashes != self.crashes
    }
}

#[derive(Debug, Clone)]
pub enum Answer {
    /// What it is, and who said so.
    Is(Observed, To),
    Fails(Failure),
}

/// A dial with the first question, or a question on a link that there is.
#[derive(Debug)]
pub struct Ask {
    address: usize,
    traffic: Traffic,
    /// The link that it is asked on; a dial has none yet.
    on: Option<To>,
    pub began: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    There(u64),
    Back(u64, Answer),
}

impl Ask {
    pub fn new(
        (address, traffic): (usize, Traffic),
        on: Option<To>,
        net: &Net,
        rng: &mut Rng,
        now: u64,
    ) -> Self {
        let there = now + net.latency(address, rng, now);
        Self { address, traffic, on, began: now, stage: Stage::There(there) }
    }

    pub fn next(&self) -> u64 {
        match self.stage {
            Stage::There(at) | Stage::Back(at, _) => at,
        }
    }

    /// The answer, once it has arrived.
    pub fn poll(
        &mut self,
        net: &Net,
        world: &mut World,
        access: LedgerAccess,
        origin: Origin,
    ) -> Option<Answer> {
        let now = world.now;
        loop {
            match &mut self.stage {
                Stage::There(at) | Stage::Back(at, _) if *at > now => return None,
                Stage::There(at) => {
                    let blocked = net.blocked(self.address, self.traffic, Way::ToServer, now);
                    let hung = net.addresses[self.address].hung_until;
                    if let Some(until) = blocked.or((hung > now).then_some(hung)) {
                        *at = until;
                        return None;
                    }
                    let answer = self.answer(net, world, access, origin);
                    let back = now + net.latency(self.address, &mut world.rng, now);
                    self.stage = Stage::Back(back, answer);
                }
                Stage::Back(at, answer) => {
                    match net.blocked(self.address, self.traffic, Way::ToClient, now) {
                        Some(until) => *at = until,
                        None => return Some(answer.clone()),
                    }
                }
            }
        }
    }

    fn answer(&self, net: &Net, world: &World, access: LedgerAccess, origin: Origin) -> Answer {
        let address = &net.addresses[self.address];
        let server = &world.servers[address.server];
        let to = To { server: address.server, crashes: server.crashes };
        if self.on.is_some_and(|on| on.is_dead(world)) {
            return Answer::Fails(Failure::Gone("the link was closed".into()));
        }
        if !server.alive {
            return Answer::Fails(Failure::Absent("connection refused".into()));
        }
        if self.on.is_none() && address.starting_until > world.now {
            return Answer::Fails(Failure::ComingBack("it starts up (57P03)".into()));
        }
        if self.on.is_none() && address.full_until > world.now {
            return Answer::Fails(Failure::Full("too many clients (53300)".into()));
        }
        Answer::Is(observe(server, access, origin.at(self.began)), to)
    }
}

/// What a server says of itself.
pub fn observe(server: &Server, ledger: LedgerAccess, asked: Instant) -> Observed {
    let facts = Facts {
        in_recovery: server.in_recovery,
        read_only: server.read_only,
        system_identifier: server.system,
        timeline: server.timeline,
        lsn: server.lsn(),
        ledger,
        backend_start: String::new(),
    };
    Observed { received: facts.lsn, asked, facts }
}
