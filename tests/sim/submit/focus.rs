//! Coincidences that runs of submissions hardly ever come to, as `crate::focus` has them for those of sessions.

use segue::client::parts::Lost;

use super::run::{Result, Run};
use crate::backend::Wait;
use crate::figures::Fault;
use crate::plan::{For, Plan};
use crate::profile::Profile;

/// What a run is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// A commit waits for the standby when its link is lost, is found on the next one, and its server is
    /// lost with it.
    WaitCutShort,
    /// A link is lost, and its backend goes on slowly; meanwhile the same is run on the next one, and refused.
    BackendGoesOn,
}

use Focus::*;

impl Focus {
    /// One run in eight has one.
    pub fn of(plan: &Plan) -> Option<Self> {
        let mut rng = plan.rng(For::FocusOfSubmissions);
        (rng.below(8) == 0).then(|| *rng.pick(&[WaitCutShort, BackendGoesOn]))
    }

    pub fn profile(self, profile: &mut Profile) {
        profile.faults = [1, 0, 0, 0, 0, 0];
        (profile.fault, profile.fault_at_commit, profile.faults_max) = (0, 0, 24);
        profile.second_writer = 0;
        match self {
            WaitCutShort => {
                (profile.replication, profile.errors) = (4, 0);
                (profile.zombies, profile.stubborn) = (100, 0);
            }
            BackendGoesOn => {
                (profile.replication, profile.errors) = (100, 300);
                (profile.zombies, profile.stubborn) = (10, 0);
            }
        }
    }
}

impl Run {
    /// The moment has come at which a link is likely to be lost: its session, of this client.
    pub fn moment(&mut self, at: usize) -> Option<usize> {
        let focus = self.focus.filter(|_| self.faults_left > 0 && !self.ends)?;
        let has_come = |id: usize| {
            let backend = &self.world.backends[id];
            match focus {
                WaitCutShort => backend.wait == Wait::Standby,
                BackendGoesOn => !backend.input.is_empty() || !backend.inflight.is_empty(),
            }
        };
        let routes = self.tills[at].routes.iter();
        let mut at_work = routes.map(|route| route.backend().filter(|_| !route.carrier.is_idle()));
        let session = at_work.position(|backend| backend.is_some_and(has_come))?;
        self.world.rng.chance(if focus == WaitCutShort { 30 } else { 5 }).then_some(session)
    }

    pub fn lose_at_moment(&mut self, at: usize, session: usize) -> Result {
        self.faults_left -= 1;
        let number = self.faults;
        self.faults += 1;
        if self.plan.without_faults.contains(&number) {
            return Ok(());
        }
        self.figures.fault(Fault::LinkBroken);
        self.world.note(|| format!("fault {number}: {:?}", Fault::LinkBroken));
        self.tills[at].lose(session, Lost(None), &mut self.world)
    }
}
