//! Pure: what we believe of one peer.
//!
//! A peer is up while its health calls are answered, suspect after one miss, down after [`MISSES_DOWN`] in a row or while
//! there is no connection. A peer that goes down with a connection open has it closed, so that its actors leave their
//! groups and requests stop waiting for them.

/// Missed health calls in a row after which a peer is down.
pub const MISSES_DOWN: u32 = 3;

/// What we believe of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Connected, and answering.
    Up,
    /// Connected, and has missed a health call.
    Suspect,
    /// Not connected, or silent.
    Down,
}

impl PeerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Up, Self::Suspect, Self::Down];

    /// The value of the label `state`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// What happened to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// It is not connected.
    Disconnected,
    /// It answered a health call.
    Answered,
    /// It did not answer one in time, or connected without joining.
    Missed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEffect {
    /// Nothing.
    None,
    /// Close the connection: the peer is silent.
    Close,
}

/// The memory of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    connected: bool,
    misses: u32,
}

impl Peer {
    /// What we believe now.
    pub fn state(&self) -> PeerState {
        match self {
            Self { connected: false, .. } => PeerState::Down,
            Self { misses: 0, .. } => PeerState::Up,
            Self { .. } => PeerState::Suspect,
        }
    }

    /// Takes news in.
    pub fn step(&mut self, event: PeerEvent) -> PeerEffect {
        match event {
            PeerEvent::Disconnected => *self = Self::default(),
            PeerEvent::Answered => *self = Self { connected: true, misses: 0 },
            PeerEvent::Missed => {
                self.misses += 1;
                if self.misses >= MISSES_DOWN {
                    *self = Self::default();
                    return PeerEffect::Close;
                }
            }
        }
        PeerEffect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_misses_in_a_row_close_the_connection() {
        let mut peer = Peer::default();
        let check = |peer: &mut Peer, event, effect, state| {
            assert_eq!(peer.step(event), effect);
            assert_eq!(peer.state(), state);
        };
        assert_eq!(peer.state(), PeerState::Down);
        check(&mut peer, PeerEvent::Answered, PeerEffect::None, PeerState::Up);
        check(&mut peer, PeerEvent::Missed, PeerEffect::None, PeerState::Suspect);
        check(&mut peer, PeerEvent::Answered, PeerEffect::None, PeerState::Up);
        check(&mut peer, PeerEvent::Missed, PeerEffect::None, PeerState::Suspect);
        check(&mut peer, PeerEvent::Missed, PeerEffect::None, PeerState::Suspect);
        check(&mut peer, PeerEvent::Missed, PeerEffect::Close, PeerState::Down);
        // A peer that connected and never joined is closed as well.
        check(&mut peer, PeerEvent::Missed, PeerEffect::None, PeerState::Down);
        check(&mut peer, PeerEvent::Disconnected, PeerEffect::None, PeerState::Down);
    }
}
