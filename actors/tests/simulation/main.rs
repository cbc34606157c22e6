//! A node simulated: publications, refreshes, pauses, erasures and restarts in random order, over the same pure state machines
//! that the actors step. One seed gives one schedule; the seed of a schedule that breaks a promise is printed.
//!
//! `TURRET_SIMULATION_SEED=7 cargo test -p turret-actors --test simulation` runs one schedule again.

#![expect(clippy::unwrap_used, reason = "all of this is tests; clippy takes only functions marked as such for them")]

use std::collections::{BTreeMap, BTreeSet};

use turret_actors::rollout::plan::{Effect, Event, Outcome, Phase, RolloutPlan};
use turret_retrieval::ids::{AdId, GenerationId};
use turret_retrieval::live_ad::{AdChange, LiveAd};
use turret_retrieval::revision::Revision;

mod random;
mod refreshes;

use random::Random;
use refreshes::{Kept, Refreshes};

const SCHEDULES: u64 = 3_000;
const STEPS: usize = 300;
const USERS: u64 = 6;
const ADS: u64 = 3;

/// What survives the end of the process, and what does not.
struct Node {
    now: u64,
    // On the disk.
    current: GenerationId,
    journal: Option<RolloutPlan>,
    users: Vec<Kept>,
    ads: BTreeMap<u64, LiveAd>,
    // In memory.
    plan: Option<RolloutPlan>,
    /// Whether the plan's phase is on the disk, so that its effect may begin.
    is_written: bool,
    running: BTreeSet<GenerationId>,
    routed: GenerationId,
    /// What each shard was told of the ads.
    shards: BTreeMap<GenerationId, BTreeMap<u64, LiveAd>>,
    refreshes: Refreshes,
    // What the promises are judged by.
    judged: BTreeSet<GenerationId>,
    made: u64,
    seen: BTreeSet<&'static str>,
}

fn generation(number: u64) -> GenerationId {
    GenerationId::new(&format!("g-{number}")).unwrap()
}

impl Node {
    fn new() -> Self {
        let first = generation(0);
        let mut node = Self {
            now: 1,
            current: first.clone(),
            journal: None,
            users: vec![Kept::default(); USERS as usize],
            ads: BTreeMap::new(),
            plan: None,
            is_written: true,
            running: BTreeSet::new(),
            routed: first.clone(),
            shards: BTreeMap::new(),
            refreshes: Refreshes::default(),
            judged: BTreeSet::from([first.clone()]),
            made: 1,
            seen: BTreeSet::new(),
        };
        node.start_generation(&first);
        node
    }

    fn start_generation(&mut self, id: &GenerationId) {
        if self.running.insert(id.clone()) {
            // A shard asks for what it missed before it serves.
            self.shards.insert(id.clone(), self.ads.clone());
        }
    }

    fn stop_generation(&mut self, id: &GenerationId) {
        self.running.remove(id);
        self.shards.remove(id);
    }

    fn encoders(&self) -> Vec<GenerationId> {
        let standby = self.plan.as_ref().filter(|_| self.is_written).and_then(RolloutPlan::standby).cloned();
        [Some(self.routed.clone()), standby.filter(|id| self.running.contains(id) && *id != self.routed)]
            .into_iter()
            .flatten()
            .collect()
    }

    fn step(&mut self, random: &mut Random) {
        self.now += 1;
        match random.below(18) {
            0 => self.publish(),
            1 if random.one_in(6) => self.take(Event::RollBack),
            2 if self.plan.is_some() && !self.is_written => self.write_plan(),
            2..=5 => self.advance(random),
            6 => self.append(random),
            7 => self.erase(random),
            8 => self.change_ad(random),
            9 => self.refreshes.start(&self.users, self.encoders()),
            10..=15 => {
                let serving = self.encoders();
                self.refreshes.step(&mut self.users, &serving, random);
            }
            16 => self.write_plan(),
            17 if random.one_in(8) => self.restart(),
            _ => {}
        }
    }

    fn publish(&mut self) {
        if self.plan.as_ref().is_some_and(|plan| !plan.is_ended()) {
            return;
        }
        let run = self.plan.as_ref().map_or(0, |plan| plan.run) + 1;
        let to = generation(self.made);
        self.made += 1;
        self.plan = Some(RolloutPlan::new(run, self.routed.clone(), to, self.now as i64));
        self.is_written = false;
        self.seen.insert("published");
    }

    fn write_plan(&mut self) {
        self.journal.clone_from(&self.plan);
        self.is_written = true;
    }

    fn take(&mut self, event: Event) {
        if let Some(plan) = &mut self.plan
            && plan.take(event, self.now as i64)
        {
            self.is_written = false;
        }
    }

    /// Does what the phase has to do, as far as it goes: a crash may come between any two of these.
    fn advance(&mut self, random: &mut Random) {
        if !self.is_written {
            return;
        }
        let Some(plan) = self.plan.clone() else { return };
        let failed = |why: &str| Event::Failed(why.to_owned());
        match plan.effect() {
            None => {}
            Some(Effect::Prepare) => {
                self.start_generation(&plan.to);
                self.take(if random.one_in(6) { failed("digests") } else { Event::Done });
            }
            Some(Effect::Gate) => {
                if random.one_in(4) {
                    self.take(failed("probes"));
                } else {
                    self.judged.insert(plan.to.clone());
                    self.take(Event::Done);
                }
            }
            Some(Effect::Activate(id)) => {
                self.start_generation(&id);
                let goes_back = matches!(plan.phase, Phase::RollingBack { .. });
                // Callers first where it goes back, the disk first where it goes on.
                if goes_back {
                    self.routed = id.clone();
                }
                if random.one_in(8) {
                    return self.take(failed("CURRENT"));
                }
                self.current = id.clone();
                if random.one_in(8) {
                    // The process ends between the two.
                    return self.restart();
                }
                self.routed = id;
                self.take(Event::Done);
            }
            Some(Effect::Watch) => {
                if let Some(standby) = plan.standby() {
                    self.start_generation(standby);
                }
                // Long enough for a refresh now and then.
                match random.below(16) {
                    0 => self.take(failed("p99")),
                    1 => self.take(Event::Done),
                    _ => {}
                }
            }
            Some(Effect::Retire(id)) => {
                self.stop_generation(&id);
                self.take(Event::Done);
            }
        }
    }

    fn restart(&mut self) {
        self.seen.insert("restarted");
        self.running.clear();
        self.shards.clear();
        let cut_off =
            self.journal.clone().filter(|plan| !plan.is_ended() && [&plan.from, &plan.to].contains(&&self.current));
        if let Some(plan) = cut_off {
            let (plan, serves) = plan.after_restart(&self.current, self.now as i64);
            self.current = serves;
            self.journal = Some(plan);
        }
        self.plan.clone_from(&self.journal);
        self.is_written = true;
        self.routed = self.current.clone();
        self.start_generation(&self.routed.clone());
        if let Some(standby) = self.plan.as_ref().and_then(RolloutPlan::standby).cloned() {
            self.start_generation(&standby);
        }
        self.refreshes.restart(self.encoders());
    }

    fn append(&mut self, random: &mut Random) {
        self.users[random.below(USERS) as usize].log_at = self.now;
    }

    fn erase(&mut self, random: &mut Random) {
        let user = &mut self.users[random.below(USERS) as usize];
        *user = Kept { erased_at: self.now, ..Kept::default() };
        self.seen.insert("erased");
    }

    fn change_ad(&mut self, random: &mut Random) {
        let (id, at) = (random.below(ADS), Revision::from_bits(self.now));
        let change = match random.below(3) {
            0 => AdChange::Pause(true),
            1 => AdChange::Pause(false),
            _ => AdChange::Delete,
        };
        let ad = self.ads.entry(id).or_insert_with(|| LiveAd::untouched(AdId::from(id)));
        ad.apply(change, at);
        // Every generation that runs is told before the change is acknowledged; of an account, it may be an old one too.
        for told in self.shards.values_mut() {
            told.entry(id).or_insert_with(|| LiveAd::untouched(AdId::from(id))).join(ad.clone());
        }
    }

    /// Remembers what has happened at all.
    fn see(&mut self) {
        if let Some(Phase::Ended { outcome }) = self.plan.as_ref().map(|plan| &plan.phase) {
            self.seen.insert(match outcome {
                Outcome::Published => "ended published",
                Outcome::Refused { .. } => "ended refused",
                Outcome::RolledBack { .. } => "ended rolled back",
            });
        }
    }

    /// What must hold after every step.
    fn check(&self) -> Result<(), String> {
        let fail = |why: String| Err(why);
        if !self.running.contains(&self.routed) {
            return fail(format!("{} is routed to and does not run", self.routed));
        }
        if !self.judged.contains(&self.routed) {
            return fail(format!("{} answers and was never judged", self.routed));
        }
        if !self.judged.contains(&self.current) {
            return fail(format!("{} is current and was never judged", self.current));
        }
        match &self.plan {
            Some(plan) if !plan.is_ended() => {
                if ![&plan.from, &plan.to].contains(&&self.routed) {
                    return fail(format!("{} is of no plan", self.routed));
                }
                let can_go_back = matches!(plan.phase, Phase::Activating | Phase::Watching);
                if can_go_back && self.plan == self.journal && !self.running.contains(&plan.from) {
                    return fail(format!("{} must be ready to serve again", plan.from));
                }
            }
            Some(plan) => {
                let outcome_serves = self.routed == *plan.serving() || self.routed == self.current;
                if !outcome_serves || self.running.len() != 1 {
                    return fail(format!("after {:?}, {:?} run and {} serves", plan.phase, self.running, self.routed));
                }
            }
            None => {}
        }
        for (user, kept) in self.users.iter().enumerate() {
            if kept.covers.values().any(|covers| *covers < kept.erased_at || *covers > kept.log_at) {
                return fail(format!("user {user} has a state of what was erased: {kept:?}"));
            }
        }
        for (id, told) in &self.shards {
            let paused = |ads: &BTreeMap<u64, LiveAd>| -> Vec<u64> {
                ads.iter().filter(|(_, ad)| ad.paused).map(|(id, _)| *id).collect()
            };
            if paused(told) != paused(&self.ads) {
                return fail(format!("{id} shows what is paused: {told:?}"));
            }
        }
        self.refreshes.check()
    }
}

#[test]
fn no_schedule_of_publications_refreshes_pauses_erasures_and_restarts_breaks_a_promise() {
    let one = std::env::var("TURRET_SIMULATION_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = one.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    let mut seen = BTreeMap::new();
    for seed in seeds {
        let (mut node, mut random) = (Node::new(), Random(seed));
        for step in 0..STEPS {
            node.step(&mut random);
            node.see();
            if let Err(why) = node.check() {
                panic!("seed {seed}, step {step}: {why}\n{:?}", node.plan);
            }
        }
        for what in node.seen.into_iter().chain(node.refreshes.seen) {
            *seen.entry(what).or_insert(0) += 1;
        }
    }
    if one.is_none() {
        // A simulation that does not get anywhere proves nothing.
        for what in [
            "published",
            "restarted",
            "erased",
            "refreshed",
            "refreshed for two encoders",
            "refresh gone on with",
            "crash behind a state",
            "ended published",
            "ended refused",
            "ended rolled back",
        ] {
            assert!(seen.get(what).copied().unwrap_or(0) > SCHEDULES / 100, "{what} is too rare: {seen:?}");
        }
    }
}
