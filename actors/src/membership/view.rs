//! Pure: what we believe of one peer.
//!
//! A peer is up while its health calls are answered, suspect after one miss, down after [`MISSES_DOWN`] in a row or while
//! there is no connection. A peer that goes down with a connection open has it closed, so that its actors leave their
//! groups and requests stop waiting for them.

/// Missed health calls in a row after which a peer is down.
pub const MISSES_DOWN: u32 = 3;

/// Dials after which the wait grows no more: 16 looks, 8 seconds.
pub const DIALS_COUNTED: u32 = 4;

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
    // Dials since it was last up, and looks at it since the last dial.
    dials: u32,
    skipped: u32,
}

impl Peer {
    /// What we believe now.
    pub fn state(&self) -> PeerState {
        match self {
            Self { connected: false, .. } => PeerState::Down,
            Self { connected: true, misses: 0, .. } => PeerState::Up,
            Self { .. } => PeerState::Suspect,
        }
    }

    /// Whether it is time to dial it: at once at first, then after twice as many looks each time, up to
    /// 2^[`DIALS_COUNTED`]. Called once for each look at a peer that is not connected.
    pub fn may_dial(&mut self) -> bool {
        if self.dials == 0 || self.skipped + 1 >= 1 << self.dials {
            self.skipped = 0;
            return true;
        }
        self.skipped += 1;
        false
    }

    /// Takes news in.
    pub fn step(&mut self, event: PeerEvent) -> PeerEffect {
        match event {
            PeerEvent::Disconnected => {
                *self = Self { dials: (self.dials + 1).min(DIALS_COUNTED), ..Self::default() };
            }
            PeerEvent::Answered => *self = Self { connected: true, ..Self::default() },
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
    fn a_peer_that_stays_away_is_dialled_ever_more_rarely_and_at_once_after_it_was_up() {
        let mut peer = Peer::default();
        let dialled: Vec<u32> = (0..60)
            .filter(|_| {
                let dials = peer.may_dial();
                if dials {
                    peer.step(PeerEvent::Disconnected);
                }
                dials
            })
            .collect();
        assert_eq!(dialled, [0, 2, 6, 14, 30, 46]);
        peer.step(PeerEvent::Answered);
        for _ in 0..MISSES_DOWN {
            peer.step(PeerEvent::Missed);
        }
        assert!(peer.may_dial());
    }

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
