//! The words of the configuration's enumerations: one table for reading, printing and listing what is allowed.

use std::fmt;

use super::validate::health::Kind;
use super::{Mode, OnDown, Protocol, Scheduler, TlsVersion, WhenAllDown, XdpMode};

/// A value that is written as one of a few words.
pub(super) trait Word: Copy + 'static {
    /// Every word with its value, in the order in which they are told.
    const ALL: &'static [(&'static str, Self)];
}

macro_rules! words {
    ($($type:ident { $($word:literal => $variant:ident),+ $(,)? })+) => { $(
        impl Word for $type {
            const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    )+ };
}

words! {
    XdpMode { "auto" => Auto, "native" => Native, "generic" => Generic }
    Protocol { "tcp" => Tcp, "udp" => Udp }
    Mode { "nat" => Nat, "full-nat" => FullNat, "dsr" => Dsr, "ipip" => Ipip }
    Scheduler {
        "round-robin" => RoundRobin,
        "least-connections" => LeastConnections,
        "maglev" => Maglev,
        "source-hash" => SourceHash,
        "random" => Random,
    }
    WhenAllDown { "refuse" => Refuse, "drop" => Drop, "keep-sending" => KeepSending }
    OnDown { "keep" => Keep, "reset" => Reset }
    TlsVersion { "1.2" => V1_2, "1.3" => V1_3 }
    Kind { "tcp" => Tcp, "http" => Http, "https" => Https, "none" => None }
}
