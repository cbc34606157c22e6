//! One supervisor for every kind of child: one for one, with back-off, for ever.
//!
//! Owns the children of one kind on this node. It never looks at their messages. A child that fails, panics, is killed
//! or stops by itself is started again after the back-off; a child that cannot be started counts as one that died at
//! once. When the supervisor itself stops, its children stop with it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Message, SpawnErr, SupervisionEvent};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::restart::RestartPolicy;

type Spawned = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;

/// How to start one child, again and again.
pub struct Child {
    name: String,
    spawn: Box<dyn Fn(ActorCell) -> Spawned + Send + Sync>,
}

impl Child {
    /// A child called `name`; `make` gives its configuration and arguments anew for every start.
    pub fn new<A, F>(name: String, make: F) -> Self
    where
        A: Actor,
        F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    {
        let called = name.clone();
        let spawn = move |supervisor: ActorCell| -> Spawned {
            let ((actor, arguments), name) = (make(), called.clone());
            Box::pin(async move {
                let (child, _) = Actor::spawn_linked(Some(name), actor, arguments, supervisor).await?;
                Ok(child.get_cell())
            })
        };
        Self { name, spawn: Box::new(spawn) }
    }
}

/// A note to the supervisor from itself.
pub struct StartChild(usize);

impl Message for StartChild {}

/// See the module.
pub struct Supervisor {
    /// What its children are, in metrics and logs.
    pub kind: &'static str,
    /// When they are restarted.
    pub policy: RestartPolicy,
    /// Where restarts are counted.
    pub metrics: Metrics,
}

/// The children, alive or waiting for their restart.
pub struct State {
    children: Vec<Child>,
    lives: Vec<Life>,
    by_id: HashMap<ActorId, usize>,
}

struct Life {
    deaths: u32,
    started: Instant,
}

impl Actor for Supervisor {
    type Msg = StartChild;
    type State = State;
    type Arguments = Vec<Child>;

    async fn pre_start(&self, myself: ActorRef<StartChild>, children: Vec<Child>) -> Result<State, ActorProcessingErr> {
        let lives = children.iter().map(|_| Life { deaths: 0, started: Instant::now() }).collect();
        for child in 0..children.len() {
            myself.cast(StartChild(child))?;
        }
        Ok(State { children, lives, by_id: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<StartChild>,
        StartChild(child): StartChild,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        self.start(&myself, child, state).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<StartChild>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, why) => self.died(&myself, who.get_id(), &why.to_string(), state),
            SupervisionEvent::ActorTerminated(who, _, why) => {
                self.died(&myself, who.get_id(), why.as_deref().unwrap_or("stopped"), state);
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => {}
        }
        Ok(())
    }
}

impl Supervisor {
    async fn start(&self, myself: &ActorRef<StartChild>, child: usize, state: &mut State) {
        state.lives[child].started = Instant::now();
        match (state.children[child].spawn)(myself.get_cell()).await {
            Ok(cell) => {
                state.by_id.insert(cell.get_id(), child);
            }
            Err(error) => self.schedule(myself, child, &error.to_string(), state),
        }
    }

    fn died(&self, myself: &ActorRef<StartChild>, who: ActorId, why: &str, state: &mut State) {
        if let Some(child) = state.by_id.remove(&who) {
            self.schedule(myself, child, why, state);
        }
    }

    fn schedule(&self, myself: &ActorRef<StartChild>, child: usize, why: &str, state: &mut State) {
        let life = &mut state.lives[child];
        let (wait, deaths) = self.policy.after_death(life.deaths, life.started.elapsed());
        life.deaths = deaths;
        self.metrics.actor_restarts.with_label_values(&[self.kind]).inc();
        let (actor, wait_ms) = (&state.children[child].name, wait.as_millis() as u64);
        tracing::warn!(actor, why, wait_ms, deaths, "actor ended, will be restarted");
        myself.send_after(wait, move || StartChild(child));
    }
}
