//! The actor that keeps this node joined to its peers.
//!
//! Owns the links: dials the peers named after this node in the order of names (the other side dials the rest, so a pair
//! never connects twice), dials again when a link is lost, and closes links whose peer stays silent. ractor_cluster does
//! none of this by itself. When this actor dies the links stay, and the supervisor starts another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use ractor_cluster::node::NodeServerSessionInformation;
use ractor_cluster::{NodeServerMessage, NodeSessionMessage};
use tokio::time::timeout;
use turret_retrieval::ids::NodeName;

use crate::metrics::Metrics;
use crate::protocol::AdminRequest;
use crate::wire::{Inbox, Wire};
use crate::{admin, groups};

pub mod view;

use view::{Peer, PeerEffect, PeerEvent, PeerState};

/// Between two looks at the links.
const TICK: Duration = Duration::from_millis(500);
/// For one dial.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// For one health call.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(400);

/// What this actor receives, from itself only.
pub enum Note {
    /// Look at the links.
    Tick,
    /// What a health call or a dial came to.
    News(NodeName, PeerEvent),
}

impl Message for Note {}

/// See the module.
#[derive(Clone)]
pub struct Membership {
    /// This node.
    pub name: NodeName,
    /// Every other configured node, and where its cluster port listens.
    pub peers: BTreeMap<NodeName, SocketAddr>,
    /// ractor_cluster's transport.
    pub transport: ActorRef<NodeServerMessage>,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// What we believe of the peers.
pub struct State {
    peers: BTreeMap<NodeName, Link>,
}

#[derive(Default)]
struct Link {
    peer: Peer,
    // A dial or a health call is going on: one at a time.
    asking: bool,
    session: Option<ActorRef<NodeSessionMessage>>,
}

impl Actor for Membership {
    type Msg = Note;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Note>, (): ()) -> Result<State, ActorProcessingErr> {
        myself.cast(Note::Tick)?;
        myself.send_interval(TICK, || Note::Tick);
        Ok(State { peers: self.peers.keys().map(|name| (name.clone(), Link::default())).collect() })
    }

    async fn handle(&self, myself: ActorRef<Note>, message: Note, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Note::Tick => self.tick(&myself, state).await,
            Note::News(name, event) => self.news(&name, event, state),
        }
        self.count(state);
        Ok(())
    }
}

impl Membership {
    async fn tick(&self, myself: &ActorRef<Note>, state: &mut State) {
        let asked = self.transport.call(NodeServerMessage::GetSessions, Some(HEALTH_TIMEOUT)).await;
        let Ok(CallResult::Success(sessions)) = asked else { return };
        for (name, link) in &mut state.peers {
            link.session = session_of(name, sessions.values());
            let connected = link.session.is_some();
            if link.asking || (!connected && !link.peer.may_dial()) {
                continue;
            }
            link.asking = true;
            let (own, myself, name) = (self.clone(), myself.clone(), name.clone());
            // One at a time per peer, and each ends by its own timeout.
            tokio::spawn(async move {
                let event = if connected { health(&name).await } else { own.dial(&name).await };
                // The actor may have ended meanwhile.
                drop(myself.cast(Note::News(name, event)));
            });
        }
    }

    fn news(&self, name: &NodeName, event: PeerEvent, state: &mut State) {
        let Some(link) = state.peers.get_mut(name) else { return };
        link.asking = false;
        let before = link.peer.state();
        if link.peer.step(event) == PeerEffect::Close
            && let Some(session) = link.session.take()
        {
            session.stop(Some("silent".to_owned()));
        }
        let after = link.peer.state();
        if before != after {
            tracing::info!(peer = %name, before = before.name(), after = after.name(), "peer changed");
        }
    }

    /// Dials a peer, where that is this node's part.
    async fn dial(&self, name: &NodeName) -> PeerEvent {
        if let Some(address) = self.peers.get(name).filter(|_| self.name < *name) {
            let dialled = timeout(DIAL_TIMEOUT, ractor_cluster::client_connect(&self.transport, *address)).await;
            if let Ok(Err(error)) = dialled {
                tracing::debug!(peer = %name, %error, "dial failed");
            }
        }
        // Whether it worked is seen in the sessions at the next tick.
        PeerEvent::Disconnected
    }

    fn count(&self, state: &State) {
        for wanted in PeerState::ALL {
            let count = state.peers.values().filter(|link| link.peer.state() == wanted).count();
            self.metrics.peers.with_label_values(&[wanted.name()]).set(count as i64);
        }
    }
}

fn session_of<'a>(
    name: &NodeName,
    mut sessions: impl Iterator<Item = &'a NodeServerSessionInformation>,
) -> Option<ActorRef<NodeSessionMessage>> {
    // ractor_cluster's own name of a node is `name@host`.
    let is_named = |full: &str| full.split('@').next() == Some(name.as_str());
    sessions
        .find(|session| session.peer_name.as_ref().is_some_and(|peer| is_named(&peer.name)))
        .map(|session| session.actor.clone())
}

/// Calls the peer's admin actor.
async fn health(name: &NodeName) -> PeerEvent {
    let Some(cell) = ractor::pg::get_members(&groups::admin(name)).into_iter().next() else {
        return PeerEvent::Missed;
    };
    let peer: ActorRef<admin::Msg> = cell.into();
    let ping = |reply| -> admin::Msg { Inbox::Request(AdminRequest::Ping(Wire::new(()), reply)) };
    match peer.call(ping, Some(HEALTH_TIMEOUT)).await {
        // A peer of another wire version answers, and cannot be understood.
        Ok(CallResult::Success(answer)) => answer.open().map_or(PeerEvent::Missed, |_| PeerEvent::Answered),
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => PeerEvent::Missed,
    }
}
