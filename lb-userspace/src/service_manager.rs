//! What `lbd` tells systemd (sd_notify(3)); where nobody listens it does nothing.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::engine::EngineHandle;

/// Everything is set up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It has been told to stop, and does.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Work that tells systemd's watchdog again and again that the engine, through which everything goes, still answers;
/// `None`: there is no watchdog.
pub fn watchdog(engine: EngineHandle) -> Option<impl Future<Output = ()> + Send + 'static> {
    let limit = sd_notify::watchdog_enabled()?;
    Some(async move {
        let mut due = tokio::time::interval(pause(limit));
        loop {
            due.tick().await;
            if !engine.is_alive().await {
                return;
            }
            tell(&[NotifyState::Watchdog]);
        }
    })
}

/// Between two signs of life: half of the time after which systemd acts (sd_watchdog_enabled(3)).
fn pause(limit: Duration) -> Duration {
    (limit / 2).max(Duration::from_millis(1))
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd how things are (NOTIFY_SOCKET)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_comes_in_time() {
        assert_eq!(pause(Duration::from_secs(30)), Duration::from_secs(15));
        assert!(
            pause(Duration::from_micros(1)) > Duration::ZERO,
            "an interval of nothing panics"
        );
    }
}
