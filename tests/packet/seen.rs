//! What becomes of a frame: all that can be seen of it.

use std::collections::BTreeMap;

use lb_common::abi::BackendCounters;
use lb_common::outcome::{Action, Outcome};

use crate::frame::Frame;
use crate::talk::Talk;

/// What became of a frame, or should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As the kernel's runner reports it.
    pub action: u32,
    pub frame: Vec<u8>,
    /// Counters that moved.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Counters that moved, by backend.
    pub backends: BTreeMap<u16, BackendCounters>,
}

impl Seen {
    fn new(outcome: Outcome, frame: Vec<u8>) -> Self {
        Self {
            action: action_number(outcome.action()),
            frame,
            outcomes: BTreeMap::from([(outcome.name(), 1)]),
            backends: BTreeMap::new(),
        }
    }

    /// The frame stays as it is, and only the outcome is counted.
    pub fn unchanged(outcome: Outcome, frame: &[u8]) -> Self {
        Self::new(outcome, frame.to_vec())
    }

    /// The frame becomes another one, and only the outcome is counted.
    pub fn changed(outcome: Outcome, frame: &Frame) -> Self {
        Self::new(outcome, frame.bytes())
    }

    /// The frame turns into the RST to it.
    pub fn refused(outcome: Outcome, frame: &Frame) -> Self {
        Self::changed(outcome, &frame.answered_with_rst())
    }

    /// A client's frame goes to its backend.
    pub fn to_backend(talk: &Talk, frame: &Frame) -> Self {
        let outcome = if talk.is_stateless {
            Outcome::ToBackendStateless
        } else {
            Outcome::ToBackend
        };
        let counters = BackendCounters {
            packets_in: 1,
            bytes_in: frame.len() as u64,
            ..BackendCounters::default()
        };
        Self::changed(outcome, &talk.at_backend(frame)).counted(talk, counters)
    }

    /// It opens a connection, if connections are remembered.
    pub fn opening(talk: &Talk, frame: &Frame) -> Self {
        let mut seen = Self::to_backend(talk, frame);
        for counters in seen.backends.values_mut() {
            counters.opened = u64::from(!talk.is_stateless);
        }
        seen
    }

    /// A backend's frame goes to its client. The way back leads through the interface that the runner pretends, so the
    /// frame is transmitted; but where no entry says which way that is, the routing table has to know another one.
    pub fn to_client(talk: &Talk, frame: &Frame) -> Self {
        let (outcome, action) = if talk.is_stateless {
            (Outcome::ToClientStateless, Action::Redirect)
        } else {
            (Outcome::ToClient, Action::Transmit)
        };
        let counters = BackendCounters {
            packets_out: 1,
            bytes_out: frame.len() as u64,
            ..BackendCounters::default()
        };
        let mut seen = Self::changed(outcome, &talk.at_client(frame)).counted(talk, counters);
        seen.action = action_number(action);
        seen
    }

    pub fn counted(mut self, talk: &Talk, counters: BackendCounters) -> Self {
        self.backends.insert(talk.backend.id, counters);
        self
    }

    /// The same, under another name.
    pub fn named(mut self, outcome: Outcome) -> Self {
        self.action = action_number(outcome.action());
        self.outcomes = BTreeMap::from([(outcome.name(), 1)]);
        self
    }

    /// The same, out of the interface that it came in by.
    pub fn transmitted(mut self) -> Self {
        self.action = action_number(Action::Transmit);
        self
    }

    /// The same, out of another one.
    pub fn redirected(mut self) -> Self {
        self.action = action_number(Action::Redirect);
        self
    }

    /// The same, but the kernel has to finish it: to and from the MAC addresses that it came with.
    pub fn by_kernel(mut self, sent: &Frame, outcome: Outcome) -> Self {
        self = self.named(outcome);
        self.frame[..12].copy_from_slice(&sent.bytes()[..12]);
        self
    }
}

impl Seen {
    /// What is not as expected, in words; of frames only the lines that differ.
    pub fn difference(&self, expected: &Self) -> String {
        let mut text = format!("seen     {}\nexpected {}\n", self.summary(), expected.summary());
        let lines = |frame: &[u8]| -> Vec<String> {
            frame
                .chunks(16)
                .map(|line| line.iter().map(|byte| format!("{byte:02x} ")).collect())
                .collect()
        };
        let (seen, expected) = (lines(&self.frame), lines(&expected.frame));
        for number in 0..seen.len().max(expected.len()) {
            let line = |of: &[String]| of.get(number).cloned().unwrap_or_default();
            let (seen, expected) = (line(&seen), line(&expected));
            if seen != expected {
                text += &format!("{:5}: seen     {seen}\n       expected {expected}\n", number * 16);
            }
        }
        text
    }

    fn summary(&self) -> String {
        let Self {
            action,
            frame,
            outcomes,
            backends,
        } = self;
        format!("action {action} {outcomes:?} {backends:?} {} bytes", frame.len())
    }
}

/// As the kernel's runner reports it (`enum xdp_action`).
pub fn action_number(action: Action) -> u32 {
    match action {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Transmit => 3,
        Action::Redirect => 4,
    }
}
