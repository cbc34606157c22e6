//! The time that one request may take.

use std::time::{Duration, Instant};

/// The longest deadline that a caller may ask for.
pub const DEADLINE_MAX: Duration = Duration::from_millis(10_000);

/// Time left, counted from arrival on one node.
///
/// What crosses to another node is [`remaining`](Budget::remaining), a duration: clocks of two machines are never
/// compared.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    ends: Instant,
}

impl Budget {
    /// A budget of `total` that started at `arrival`.
    pub fn new(arrival: Instant, total: Duration) -> Self {
        Self { ends: arrival + total.min(DEADLINE_MAX) }
    }

    /// What is left at `now`; zero when it is spent.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }
}
