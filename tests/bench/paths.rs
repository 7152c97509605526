//! The ways that packets go: what is measured, in which scene, and what should become of it.

use anyhow::Context as _;
use lb_common::bench::Plan;
use lb_common::outcome::Outcome;
use xtask::bench::experiment::Turn;
use xtask::bench::names::candidate;
use xtask::bench::packet_rows::{
    BARE, ESTABLISHED, HUGE, MANY, MOST, NEW, NOT_OURS, REPLY, SOURCES, feature_row, row, sized_row,
};

use crate::kind::Mode;
use crate::scene::{Setting, Way};
use crate::variant::Variant;

/// A turn, and how it is taken.
pub struct Path {
    pub turn: Turn,
    pub subject: Subject,
    pub plan: Plan,
    /// Of one sample.
    pub frames: u32,
    /// Whether it fills the table with half-open connections, which have to be taken out before the next one.
    pub opens: bool,
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    /// The program that does nothing.
    Bare,
    /// The one that looks at a single line of as many as a table for so many connections has; `works`: and takes as long as the
    /// balancer's does in mode `nat` where there is one flow.
    OneLine { connections: u32, works: bool },
    /// The balancer's, in a scene, and what should become of the frames.
    Scene(Setting, Outcome),
}

/// Frames of a sample, where it makes no difference.
const FRAMES: u32 = 1_000_000;
/// Where samples have to be short.
const FRAMES_IF_QUICK: u32 = 400_000;
/// Of new connections of `full-nat`: an own port that was given back rests for some seconds, and there are a million.
const OPENED_BY_FULL_NAT: u32 = 100_000;
/// A table for more connections than [`HUGE`].
const HUGE_ROOM: u32 = 16 << 20;

/// All of them, those next to each other that are to be compared.
pub fn all(quick: bool) -> anyhow::Result<Vec<Path>> {
    let mut paths = Paths {
        quick,
        paths: Vec::new(),
    };
    paths.floors()?;
    for (ipv4, tcp) in [(true, true), (false, true), (true, false), (false, false)] {
        for mode in [Mode::Nat, Mode::FullNat, Mode::Dsr, Mode::Ipip] {
            // UDP differs from TCP in what is done about states and checksums, whatever the mode.
            if tcp || mode == Mode::Nat && !quick {
                paths.of_kind(mode, ipv4, tcp)?;
            }
        }
    }
    paths.huge()?;
    paths.sized()?;
    if !quick {
        paths.features()?;
    }
    Ok(paths.paths)
}

struct Paths {
    quick: bool,
    paths: Vec<Path>,
}

impl Paths {
    fn add(
        &mut self,
        turn: Turn,
        setting: Setting,
        (what, flows): (&'static str, u32),
    ) -> anyhow::Result<()> {
        let talk = setting.talk()?;
        let outside = if setting.ipv4 {
            "203.0.113.99:443"
        } else {
            "[2001:db8:ffff::99]:443"
        };
        let (frame, way, expected) = match what {
            ESTABLISHED => (talk.client_says(b""), Way::In, Outcome::ToBackend),
            REPLY => (talk.backend_says(b""), Way::Out, Outcome::ToClient),
            NEW => (talk.client_opens(), Way::In, Outcome::ToBackend),
            _ => {
                let frame = talk.client_says(b"").with_destination(outside.parse()?);
                (frame, Way::In, Outcome::NotOurs)
            }
        };
        let opens = what == NEW;
        let frames = match (opens, setting.mode) {
            (true, Mode::FullNat) => OPENED_BY_FULL_NAT,
            (true, _) => FRAMES,
            (false, _) if self.quick => FRAMES_IF_QUICK,
            (false, _) => FRAMES,
        };
        self.paths.push(Path {
            turn,
            plan: setting.plan(&frame, way, flows)?,
            subject: Subject::Scene(setting, expected),
            frames,
            opens,
        });
        Ok(())
    }

    /// What does less than any balancer, and what is not ours.
    fn floors(&mut self) -> anyhow::Result<()> {
        let reference = |turn, subject, flows| {
            let setting = Setting::new(Mode::Nat, true, true);
            let frame = setting.talk()?.client_says(b"");
            anyhow::Ok(Path {
                turn,
                subject,
                plan: setting.plan(&frame, Way::In, flows)?,
                frames: FRAMES,
                opens: false,
            })
        };
        let bare = Turn::new(BARE, candidate::BARE);
        self.paths.push(reference(bare, Subject::Bare, 1)?);
        for (flows, connections) in [(1, MOST), (MANY, MOST), (MOST, MOST), (HUGE, HUGE_ROOM)] {
            for (name, works) in [(candidate::ONE_LINE, false), (candidate::WORK_AND_LINE, true)] {
                let turn = Turn::new(row("IPv4", "TCP", ESTABLISHED, flows), name);
                let subject = Subject::OneLine { connections, works };
                self.paths.push(reference(turn, subject, flows)?);
            }
        }
        let nat = |ipv4| Setting::new(Mode::Nat, ipv4, true);
        for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let turn = Turn::new(row(family, "TCP", NOT_OURS, 1), candidate::NAT);
            self.add(turn, nat(ipv4), (NOT_OURS, 1))?;
        }
        Ok(())
    }

    /// A mode over growing numbers of flows, and new connections.
    fn of_kind(&mut self, mode: Mode, ipv4: bool, tcp: bool) -> anyhow::Result<()> {
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let protocol = if tcp { "TCP" } else { "UDP" };
        let (name, is_chief) = match mode {
            Mode::Nat => (candidate::NAT, true),
            Mode::FullNat => (candidate::FULL_NAT, false),
            Mode::Dsr => (candidate::DSR, false),
            Mode::Ipip => (candidate::IPIP, false),
        };
        let full = Setting::new(mode, ipv4, tcp);
        let least = self.quick && !is_chief;
        if least && !ipv4 {
            return Ok(());
        }
        // Of what a quick run measures with one flow only there need not be more.
        let full = if least {
            Setting {
                established: MANY,
                ..full
            }
        } else {
            full
        };
        let sizes: &[u32] = if least { &[1] } else { &[1, MANY, MOST] };
        for size in sizes {
            let ways = if full.is_answered() {
                &[ESTABLISHED, REPLY][..]
            } else {
                &[ESTABLISHED]
            };
            for what in ways {
                let turn = Turn::new(row(family, protocol, what, *size), name);
                self.add(turn, full, (what, *size))?;
            }
        }
        if !least {
            let empty = Setting {
                established: 0,
                ..full
            };
            let turn = Turn::new(row(family, protocol, NEW, SOURCES), name);
            self.add(turn, empty, (NEW, SOURCES))?;
        }
        Ok(())
    }

    /// Ten million flows. Not of IPv6, where the table alone would take most of a GiB.
    fn huge(&mut self) -> anyhow::Result<()> {
        let setting = Setting {
            room: HUGE_ROOM,
            established: HUGE,
            ..Setting::new(Mode::Nat, true, true)
        };
        for what in [ESTABLISHED, REPLY] {
            let turn = Turn::new(row("IPv4", "TCP", what, HUGE), candidate::NAT);
            self.add(turn, setting, (what, HUGE))?;
        }
        Ok(())
    }

    /// Services and backends have their price.
    fn sized(&mut self) -> anyhow::Result<()> {
        for (what, flows) in [(ESTABLISHED, MANY), (NEW, SOURCES)] {
            for (services, backends) in [(1, 2), (1000, 2), (1, 4000)] {
                let setting = Setting {
                    services,
                    backends,
                    established: MANY,
                    ..Setting::new(Mode::Nat, true, true)
                };
                let row = sized_row(what, flows, services.into(), backends.into());
                self.add(Turn::new(row, candidate::NAT), setting, (what, flows))?;
            }
        }
        Ok(())
    }

    /// Features, one at a time, and all at once.
    fn features(&mut self) -> anyhow::Result<()> {
        let tcp = Variant::OF_TCP.map(|variant| (variant, true));
        let udp = [Variant::Plain, Variant::Stateless].map(|variant| (variant, false));
        for (tcp, variants) in [(true, &tcp[..]), (false, &udp)] {
            for (what, flows) in [(ESTABLISHED, 1), (ESTABLISHED, MANY), (NEW, SOURCES)] {
                for (variant, _) in variants {
                    let setting = Setting {
                        variant: *variant,
                        established: MANY,
                        ..Setting::new(Mode::Nat, true, tcp)
                    };
                    let protocol = if tcp { "TCP" } else { "UDP" };
                    let turn = Turn::new(feature_row(protocol, what, flows), variant.name());
                    self.add(turn, setting, (what, flows))?;
                }
            }
        }
        Ok(())
    }
}

/// The path of a turn.
pub fn find<'a>(paths: &'a [Path], turn: &Turn) -> anyhow::Result<&'a Path> {
    let found = paths.iter().find(|path| path.turn == *turn);
    found.with_context(|| format!("there is no turn {turn:?}"))
}
