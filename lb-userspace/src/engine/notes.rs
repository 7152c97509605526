//! What a later daemon must know to say what the tables mean, and to go on where this one was: it lies beside the tables, and
//! lives as long as they do.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::health::{Health, Status, TargetId};
use crate::reconcile::Identities;

/// Raised when what is written here changes its meaning.
const VERSION: u32 = 1;

/// The notes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Notes {
    version: u32,
    /// Who has which number.
    pub identities: Identities,
    /// What is known of backends.
    pub health: Vec<Known>,
    /// Addresses that are on their interfaces because of this daemon.
    pub vips: Vec<(IpAddr, String)>,
    /// Backends that have not their whole share yet, and for how long they have been up.
    pub recovering: Vec<(TargetId, Duration)>,
}

/// What is known of a backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Known {
    /// Which.
    pub id: TargetId,
    /// Where it was probed: what is known of one server says nothing of another.
    pub address: SocketAddr,
    status: Status,
    since: SystemTime,
    reason: String,
}

impl Known {
    /// What is known of a backend.
    pub(super) fn new(id: TargetId, address: SocketAddr, health: Health) -> Self {
        let Health {
            status,
            since,
            reason,
        } = health;
        Self {
            id,
            address,
            status,
            since,
            reason,
        }
    }

    /// As its monitor has it.
    pub(super) fn health(self) -> Health {
        Health {
            status: self.status,
            since: self.since,
            reason: self.reason,
        }
    }
}

impl Notes {
    /// As they are written.
    pub(super) fn new(
        identities: Identities,
        health: Vec<Known>,
        vips: Vec<(IpAddr, String)>,
        recovering: Vec<(TargetId, Duration)>,
    ) -> Self {
        Self {
            version: VERSION,
            identities,
            health,
            vips,
            recovering,
        }
    }

    /// The bytes to keep.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// Those that were kept.
    ///
    /// # Errors
    /// In words: another version's, or not to be understood.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!(
                "lbd's notes on these tables are of version {version}, and this lbd reads version {VERSION}"
            ));
        }
        serde_json::from_slice(bytes)
            .map_err(|error| format!("lbd's notes on these tables make no sense: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::BackendCounters;

    use super::*;
    use crate::config::test_config;
    use crate::desired_state::{Inputs, with_overrides};
    use crate::persisted::Overrides;
    use crate::reconcile;

    #[test]
    fn what_was_kept_is_what_is_read() {
        let config = with_overrides(&test_config(), &Overrides::default());
        let inputs = Inputs {
            config: &config,
            overrides: &Overrides::default(),
            handed_off: &Default::default(),
            now: crate::moment::Clock::now(&crate::moment::HostClock::new()),
        };
        let desired = inputs.desired(|_| Status::Up);
        let mut identities = Identities::default();
        let counters = BackendCounters {
            opened: 1,
            packets_in: 2,
            bytes_in: 3,
            packets_out: 4,
            bytes_out: u64::MAX,
        };
        identities
            .adopt(&reconcile::wanted(&desired, |_| 5), 100, |_| counters)
            .unwrap();
        let id = TargetId {
            service: "www".into(),
            backend: "web1".into(),
        };
        let health = Health {
            status: Status::Up,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            reason: "HTTP 200 in 3 ms".into(),
        };
        let known = Known::new(id.clone(), ([198, 18, 1, 2], 443).into(), health.clone());
        let vips = vec![("203.0.113.10".parse().unwrap(), "eth0".to_owned())];
        let recovering = vec![(id, Duration::from_millis(1500))];
        let notes = Notes::new(identities.clone(), vec![known], vips.clone(), recovering.clone());
        let read = Notes::read(&notes.bytes().unwrap()).unwrap();
        assert_eq!(format!("{:?}", read.identities), format!("{identities:?}"));
        assert_eq!((read.vips, read.recovering), (vips, recovering));
        assert_eq!(read.health[0].clone().health(), health);
    }

    #[test]
    fn what_is_not_ours_is_refused_in_words() {
        for (bytes, reason) in [
            (&b"{}"[..], "missing field `version`"),
            (
                br#"{"version":7}"#,
                "are of version 7, and this lbd reads version 1",
            ),
            (br#"{"version":1}"#, "make no sense: missing field `identities`"),
        ] {
            let error = Notes::read(bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
