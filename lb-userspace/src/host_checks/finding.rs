//! What was found on the host, with the way to mend it.

use std::fmt;

use serde::Serialize;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The configuration file.
    Configuration,
    /// The kernel's version and what it can do.
    Kernel,
    /// Where programs and maps are pinned.
    Bpffs,
    /// Memory for the tables.
    Memory,
    /// Drivers of the attached interfaces, and how they take the program.
    Driver,
    /// Their MTUs.
    Mtu,
    /// What they do to packets before the program sees them.
    Offloads,
    /// Receive queues, and how packets are spread over them.
    Queues,
    /// Whether this host forwards packets.
    Forwarding,
    /// What it takes for forged: `rp_filter`, `accept_local`.
    Forged,
    /// Who answers for VIPs, and other addresses of services.
    Addresses,
    /// Routes to the backends, and their MAC addresses.
    Neighbours,
    /// Ports of this host's own.
    Ports,
    /// What time it is.
    Clock,
    /// How long the site's certificate is valid.
    Certificate,
}

impl Check {
    /// All of them, from the ground up.
    pub const ALL: [Self; 15] = [
        Self::Configuration,
        Self::Kernel,
        Self::Bpffs,
        Self::Memory,
        Self::Driver,
        Self::Mtu,
        Self::Offloads,
        Self::Queues,
        Self::Forwarding,
        Self::Forged,
        Self::Addresses,
        Self::Neighbours,
        Self::Ports,
        Self::Clock,
        Self::Certificate,
    ];
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It may be as it should be.
    Note,
    /// Something will be lost, or slow.
    Warning,
    /// It will not work at all.
    Error,
}

/// Something that will not work, or only slowly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// What was found and what comes of it.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    pub(super) fn note(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, what, fix)
    }

    pub(super) fn warning(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, what, fix)
    }

    pub(super) fn error(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Severity::Error, what, fix)
    }

    fn new(check: Check, severity: Severity, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            severity,
            what: what.into(),
            fix: fix.into(),
        }
    }
}

/// On one line, as the log and `lbctl status` have it.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.severity {
            Severity::Note => write!(formatter, "note: {}; {}", self.what, self.fix),
            Severity::Warning | Severity::Error => write!(formatter, "{}; fix: {}", self.what, self.fix),
        }
    }
}
