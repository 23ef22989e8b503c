//! A cluster, a client on it that records its events, and a workload's tables.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use segue::client::Subscription;
use segue::cluster::{ClusterEvent, Status};
use segue::{Client, ClientEvent};
use segue_testkit::{Cluster, ClusterBuilder, Server};

use super::workload::{PATIENCE, create_tables};

pub struct Stage {
    pub client: Client,
    pub events: Events,
    pub cluster: Cluster,
    _subscription: Subscription,
}

/// What a client has told so far.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<ClientEvent>>>);

impl Stage {
    /// Two servers, synchronous.
    pub fn new() -> Self {
        Self::on(Cluster::builder())
    }

    pub fn on(builder: ClusterBuilder) -> Self {
        Self::with(builder, |cluster| cluster.conninfo())
    }

    pub fn with(builder: ClusterBuilder, conninfo: impl FnOnce(&Cluster) -> String) -> Self {
        let cluster = builder.start().unwrap();
        let client = Client::connect(&conninfo(&cluster)).unwrap();
        let events = Events::default();
        let subscription = events.subscribe(&client);
        if std::env::var_os("SEGUE_TEST_EVENTS").is_some() {
            std::mem::forget(client.on_event(|event| eprintln!("{event:?}")));
        }
        create_tables(&client);
        Self { client, events, cluster, _subscription: subscription }
    }

    pub fn status(&self) -> Arc<Status> {
        self.client.status().cluster
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.status()) {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {:#?} after {:#?}",
                self.status(),
                self.events.all()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Every session has a warm link on this server.
    pub fn wait_until_warm(&self, server: usize) {
        self.wait("the links are warm", |status| {
            status.standby == Some(server)
                && status.sessions > 0
                && status.servers[server].warm_links >= status.sessions
        });
    }

    /// The old primary follows the present one, which waits for it from now on.
    pub fn rejoin_in_step(&self, old: usize) {
        self.cluster.rejoin(old).unwrap();
        keep_in_step(self.cluster.primary(), &[self.cluster.server(old)]);
    }
}

/// Makes commits wait for all of these standbys; returns once all that was committed before is on
/// them as well.
pub fn keep_in_step(primary: &Server, standbys: &[&Server]) {
    let names: Vec<&str> = standbys.iter().map(|standby| standby.name()).collect();
    let names = format!("FIRST {} ({})", names.len(), names.join(", "));
    primary.set_config("synchronous_standby_names", &names).unwrap();
    let count = standbys.len();
    let sync =
        format!("SELECT count(*) = {count} FROM pg_stat_replication WHERE sync_state = 'sync'");
    primary.wait_until(&sync, PATIENCE).unwrap();
    let lsn = primary.value("SELECT pg_current_wal_insert_lsn()").unwrap();
    let there =
        format!("SELECT count(*) = {count} FROM pg_stat_replication WHERE flush_lsn >= '{lsn}'");
    primary.wait_until(&there, PATIENCE).unwrap();
}

impl Events {
    pub fn subscribe(&self, client: &Client) -> Subscription {
        let all = Arc::clone(&self.0);
        client.on_event(move |event| all.lock().unwrap().push(event.clone()))
    }

    pub fn all(&self) -> Vec<ClientEvent> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self, condition: impl Fn(&ClientEvent) -> bool) -> usize {
        self.all().iter().filter(|event| condition(event)).count()
    }

    pub fn saw(&self, condition: impl Fn(&ClusterEvent) -> bool) -> bool {
        self.position(condition).is_some()
    }

    pub fn position(&self, condition: impl Fn(&ClusterEvent) -> bool) -> Option<usize> {
        self.all()
            .iter()
            .position(|event| matches!(event, ClientEvent::Cluster(event) if condition(event)))
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&ClusterEvent) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.saw(&condition) {
            let in_time = Instant::now() < deadline;
            assert!(in_time, "waited in vain until {what}: {:#?}", self.all());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Replays start and finish in turn, and no session moves to a server before that is chosen.
    pub fn assert_in_order(&self) {
        let all = self.all();
        let mut chosen = Vec::new();
        let mut replaying = std::collections::HashSet::new();
        for (at, event) in all.iter().enumerate() {
            let right = match event {
                ClientEvent::Cluster(
                    ClusterEvent::Promoted { server, .. }
                    | ClusterEvent::PrimaryChosen { server, .. },
                ) => {
                    chosen.push(*server);
                    true
                }
                ClientEvent::SessionMoved { session, server, .. } => {
                    // A replay that its server's death has cut short starts anew.
                    replaying.remove(session);
                    chosen.contains(server)
                }
                ClientEvent::ReplayStarted { session, statements } => {
                    *statements > 0 && replaying.insert(*session)
                }
                ClientEvent::ReplayFinished { session } => replaying.remove(session),
                ClientEvent::ReplayDiverged { .. } | ClientEvent::ProtectionLost { .. } => false,
                ClientEvent::CommitsLost { .. } => false,
                _ => true,
            };
            assert!(right, "event {at} is out of place: {event:?} in {all:#?}");
        }
    }
}
