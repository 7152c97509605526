//! When a certificate is valid.
//!
//! That is no question for the configuration, which would then be refused because a clock was set, or time went by: a daemon
//! that starts again must come up whatever the date is. It is asked when a certificate is handed out, and by what looks after
//! this host.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::HandoffError;
use super::certificate::read_chain;

/// From when until when clients accept a chain: what all of its certificates have in common, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Validity {
    /// That of the chain in a PEM file.
    pub(crate) fn of_file(file: &Path) -> Result<Self, HandoffError> {
        Self::of(file, &read_chain(file)?.1)
    }

    pub(super) fn of(file: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, HandoffError> {
        let mut common = Self {
            from: i64::MIN,
            until: i64::MAX,
        };
        for der in chain {
            let (_, certificate) =
                X509Certificate::from_der(der).map_err(|error| HandoffError::Certificate {
                    file: file.to_owned(),
                    reason: error.to_string(),
                })?;
            let validity = certificate.validity();
            common.from = common.from.max(validity.not_before.timestamp());
            common.until = common.until.min(validity.not_after.timestamp());
        }
        Ok(common)
    }

    /// Why clients do not accept it at this time, if they do not. Both ends belong to it (RFC 5280, section 4.1.2.5).
    pub(crate) fn refused(self, now: SystemTime) -> Option<String> {
        let now = seconds(now);
        if now > self.until {
            Some(format!("expired on {}", rfc3339(self.until)))
        } else if now < self.from {
            Some(format!(
                "is not valid before {}, which is still to come by this host's clock",
                rfc3339(self.from)
            ))
        } else {
            None
        }
    }

    /// Whether less than a tenth of its time is left: whoever renews it by a machine does so at a third.
    pub(crate) fn ends_soon(self, now: SystemTime) -> bool {
        let whole = i128::from(self.until) - i128::from(self.from);
        let left = i128::from(self.until) - i128::from(seconds(now));
        left * 10 < whole
    }

    /// The end, as people write it.
    pub(crate) fn end(self) -> String {
        rfc3339(self.until)
    }
}

/// Since 1970; before that, none.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// RFC 3339; moments before 1970 or after 9999, which no certificate in use has, are cut to these.
pub(super) fn rfc3339(seconds: i64) -> String {
    const END_OF_9999: i64 = 253_402_300_799;
    let seconds = u64::try_from(seconds.clamp(0, END_OF_9999)).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Validity = Validity {
        from: 1_000_000_000,
        until: 1_031_536_000,
    };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn both_ends_belong_to_it() {
        let is_refused = |now: u64| YEAR.refused(at(now)).is_some();
        let moments = [0, 999_999_999, 1_000_000_000, 1_031_536_000, 1_031_536_001];
        assert_eq!(moments.map(is_refused), [true, true, false, false, true]);
        assert_eq!(
            YEAR.refused(at(2_000_000_000)).unwrap(),
            "expired on 2002-09-09T01:46:40Z"
        );
        assert_eq!(
            YEAR.refused(at(5)).unwrap(),
            "is not valid before 2001-09-09T01:46:40Z, which is still to come by this host's clock"
        );
    }

    #[test]
    fn the_last_tenth_is_soon() {
        let tenth = 3_153_600;
        let soon = |now: u64| YEAR.ends_soon(at(now));
        assert_eq!(
            [
                soon(1_000_000_000),
                soon(1_031_536_000 - tenth),
                soon(1_031_536_001 - tenth)
            ],
            [false, false, true]
        );
        // The first and the last second that there can be.
        let forever = Validity {
            from: i64::MIN,
            until: i64::MAX,
        };
        assert!(!forever.ends_soon(at(0)) && forever.refused(at(0)).is_none());
    }
}
