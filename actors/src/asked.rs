//! When this node was last asked for something by a request: what is not urgent makes room then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long after a request others are expected.
const ASKED_FOR: Duration = Duration::from_secs(1);

/// Of all generations that run here. Clones share it.
#[derive(Clone, Debug)]
pub struct Asked(Arc<Clock>);

#[derive(Debug)]
struct Clock {
    started: Instant,
    /// Milliseconds since then; none before the first.
    last_ms: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Default for Asked {
    fn default() -> Self {
        Self(Arc::new(Clock { started: Instant::now(), last_ms: AtomicU64::new(NEVER) }))
    }
}

impl Asked {
    /// A request is here.
    pub fn note(&self) {
        self.0.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Whether others are to be expected.
    pub fn is_lately(&self) -> bool {
        is_lately(self.0.last_ms.load(Ordering::Relaxed), self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64
    }
}

fn is_lately(last_ms: u64, now_ms: u64) -> bool {
    last_ms != NEVER && now_ms.saturating_sub(last_ms) < ASKED_FOR.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_remembered_for_a_second() {
        assert!(!is_lately(NEVER, 5) && is_lately(5, 5) && is_lately(5, 1_004) && !is_lately(5, 1_005));
        let asked = Asked::default();
        assert!(!asked.is_lately());
        asked.clone().note();
        assert!(asked.is_lately());
    }
}
