//! Plans from configurations, one after the other, with connections of the test's own.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use lb_common::abi::BackendCounters;
use lb_common::tcp_state::State as TcpState;

use super::*;
use crate::api::types::BackendChange;
use crate::config::{
    Backend, Config, Mode, OnDown, Ports, Protocol, Scheduler, Site, TlsVersion, test_config,
};
use crate::dataplane::{Connection, ServiceEntry};
use crate::desired_state::{DesiredService, Inputs, with_overrides};
use crate::health::Status;
use crate::moment::Moment;
use crate::persisted::Overrides;
use crate::reconcile::{self, Identities, SlotTables};

const WEB1: u16 = 1;
const WEB2: u16 = 2;

/// A world that plans are made in.
#[derive(Clone)]
struct World {
    config: Config,
    overrides: Overrides,
    down: BTreeSet<&'static str>,
    unprobed: BTreeSet<&'static str>,
    force: bool,
    now: Moment,
    identities: Identities,
    tables: SlotTables,
    desired: Vec<DesiredService>,
    entries: Vec<ServiceEntry>,
    connections: Vec<Connection>,
}

/// Something that a case does to the world.
type Edit = fn(&mut World);

fn at(seconds: u64) -> Moment {
    Moment::test(7, seconds, seconds)
}

impl World {
    /// The service `www` with `web1` and `web2`, which the edit may change.
    fn new(edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = test_config();
        edit(&mut config);
        let mut world = Self {
            config,
            overrides: Overrides::default(),
            down: BTreeSet::new(),
            unprobed: BTreeSet::new(),
            force: false,
            now: at(0),
            identities: Identities::default(),
            tables: SlotTables::default(),
            desired: Vec::new(),
            entries: Vec::new(),
            connections: Vec::new(),
        };
        world.settle();
        world
    }

    fn desired(&self, unprobed_are_up: bool) -> Vec<DesiredService> {
        let effective = with_overrides(&self.config, &self.overrides);
        let inputs = Inputs {
            config: &effective,
            overrides: &self.overrides,
            handed_off: &BTreeSet::new(),
            now: self.now,
        };
        inputs.desired(|id| {
            if self.down.contains(id.backend.as_str()) {
                Status::Down
            } else if self.unprobed.contains(id.backend.as_str()) && !unprobed_are_up {
                Status::Checking
            } else {
                Status::Up
            }
        })
    }

    /// Makes everything follow from what is wanted.
    fn settle(&mut self) {
        self.desired = self.desired(false);
        let wanted = reconcile::wanted(&self.desired, |timeout| timeout.as_secs() as u16);
        self.identities
            .adopt(&wanted, 100_000, |_| BackendCounters::default())
            .unwrap();
        let (now, force) = (self.now, self.force);
        let timeout = self.config.services.first().and_then(|it| it.drain_timeout);
        self.identities.part(now, |_, _, backend| match backend.parting {
            Some(parting) => parting.reset_at,
            None if force => Some(now),
            None => Some(now.after(timeout?)),
        });
        let (entries, tables) =
            reconcile::entries(&self.desired, &self.identities, &HashMap::new(), &self.tables);
        (self.entries, self.tables) = (entries, tables);
    }

    fn state(&self) -> State<'_> {
        State {
            desired: &self.desired,
            site: self.config.site.as_ref(),
            identities: &self.identities,
            entries: &self.entries,
        }
    }

    /// What a change does; it is made, too.
    fn change(&mut self, change: impl FnOnce(&mut Self)) -> Plan {
        let before = self.clone();
        change(self);
        self.settle();
        let of = |world: &Self| {
            let desired = world.desired(true);
            reconcile::entries(&desired, &world.identities, &HashMap::new(), &world.tables).0
        };
        let awaited = self.unprobed.difference(&before.unprobed);
        let awaited: Vec<_> = awaited
            .map(|name| ("www".to_owned(), (*name).to_owned()))
            .collect();
        let outlook = Outlook {
            before: &of(&before),
            after: &of(self),
            awaited: &awaited,
        };
        let connections = self.connections.iter().copied();
        make(before.state(), self.state(), outlook, self.now, 0, || {
            Some(connections)
        })
    }

    /// So many connections of `www` to a backend, from ports in a row.
    fn connect(&mut self, backend: u16, count: u16) {
        self.connections
            .extend((0..count).map(|n| connection(1, backend, 10_000 + n)));
    }
}

fn connection(service: u16, backend: u16, port: u16) -> Connection {
    Connection {
        client: SocketAddr::from(([198, 18, 0, 2], port)),
        vip_port: 0,
        service,
        backend,
        own_port: 0,
        state: TcpState::Established,
        ticks_left: 100,
        wide: false,
    }
}

fn web3() -> Backend {
    let mut backend = test_config().services[0].backends[0].clone();
    backend.name = "web3".to_owned();
    backend.address = [198, 18, 3, 2].into();
    backend
}

fn www(world: &mut World) -> &mut crate::config::Service {
    &mut world.config.services[0]
}

#[test]
fn nothing_is_an_empty_plan_and_counts_nothing() {
    let mut world = World::new(|_| {});
    world.connect(WEB1, 10);
    let plan = world.change(|_| {});
    assert_eq!(plan, Plan::default());
    let state = world.state();
    let outlook = Outlook {
        before: &world.entries,
        after: &world.entries,
        awaited: &[],
    };
    let nobody_asks = || -> Option<std::iter::Empty<Connection>> { panic!("connections were asked for") };
    assert!(make(state, state, outlook, world.now, 0, nobody_asks).is_empty());
}

#[test]
fn removing_a_backend_names_its_connections() {
    let mut world = World::new(|_| {});
    world.connect(WEB1, 1000);
    world.connect(WEB2, 7);
    let over = |connection: Connection| Connection {
        ticks_left: -1,
        ..connection
    };
    world.connections.push(over(connection(1, WEB1, 1)));
    world.connections.push(Connection {
        state: TcpState::Closed,
        ..connection(1, WEB1, 2)
    });
    let plan = world.change(|world| drop(www(world).backends.remove(0)));
    assert_eq!(
        plan.lines(),
        ["backend www/web1: removed; its 1,000 connections go on until they end"]
    );
    assert_eq!(
        plan.impact,
        Impact {
            connections: 1007,
            drain: 1000,
            ..Impact::default()
        }
    );
    assert_eq!(world.change(|_| {}), Plan::default(), "it leaves once");
}

#[test]
fn how_a_removed_backend_leaves() {
    let cases: [(&str, Edit, &str); 3] = [
        (
            "drain_timeout",
            |world| world.config.services[0].drain_timeout = Some(std::time::Duration::from_secs(90)),
            "removed; its 1 connection has 1m 30s to end, then it is reset",
        ),
        (
            "force",
            |world| world.force = true,
            "removed; its 1 connection is reset",
        ),
        (
            "nobody there",
            |world| world.connections.clear(),
            "removed; it has no connections",
        ),
    ];
    for (purpose, edit, change) in cases {
        let mut world = World::new(|_| {});
        world.connect(WEB1, 1);
        edit(&mut world);
        world.settle();
        let plan = world.change(|world| drop(www(world).backends.remove(0)));
        assert_eq!(plan.lines(), [format!("backend www/web1: {change}")], "{purpose}");
    }
}

#[test]
fn adding_one_to_a_maglev_service_tells_who_would_move() {
    let mut world = World::new(|config| config.services[0].scheduler = Scheduler::Maglev);
    // Each where its hash leads.
    let slots = slots::Slots::of(&world.entries[0].slots, world.entries[0].choice).unwrap();
    let seed = lb_common::hash::Seed::new(0);
    let placed: Vec<_> = (0..1000)
        .map(|n| {
            let connection = connection(1, 0, 10_000 + n);
            let backend = slots.backend(&seed, connection.client).unwrap();
            Connection {
                backend,
                ..connection
            }
        })
        .collect();
    world.connections = placed;
    let mut changed = world.clone();
    let plan = changed.change(|world| {
        www(world).backends.push(web3());
        world.unprobed.insert("web3");
    });
    let remap = plan.steps[1].remap.clone().unwrap();
    let new = reconcile::entries(
        &changed.desired(true),
        &changed.identities,
        &HashMap::new(),
        &SlotTables::default(),
    );
    let new = slots::Slots::of(&new.0[0].slots, new.0[0].choice).unwrap();
    let expected = world
        .connections
        .iter()
        .filter(|it| new.backend(&seed, it.client) != Some(it.backend))
        .count() as u64;
    assert_eq!(
        (remap.connections, remap.elsewhere, remap.elsewhere_before),
        (1000, expected, 0)
    );
    assert!((250..420).contains(&expected), "about a third: {expected}");
    assert!(
        remap.changed_ppm.abs_diff(expected as u32 * 1000) < 50_000,
        "{remap:?}"
    );
    assert_eq!(remap.once_up, ["web3"]);
    assert_eq!(plan.impact.move_without_state, expected);
    assert_eq!(plan.impact.moved, 0, "they are remembered");
    let line = &plan.lines()[1];
    assert!(
        line.starts_with("service www: ")
            && line.contains(" % of its slots change hands once web3 is up")
            && line.ends_with(&format!(
                "of its 1,000 connections {expected} would move if they were not remembered"
            )),
        "{line}"
    );
    assert_eq!(
        plan.lines()[0],
        "backend www/web3: added, 198.18.3.2:443, checking"
    );

    // It comes up: now it is so.
    let plan = changed.change(|world| {
        world.unprobed.remove("web3");
    });
    let lines = plan.lines();
    assert!(
        lines[0].contains("checking becomes up") && lines.len() == 1,
        "what comes of it was told: {lines:?}"
    );
}

#[test]
fn a_service_that_remembers_nothing_moves_its_clients() {
    let mut world = World::new(|config| {
        let service = &mut config.services[0];
        (service.scheduler, service.protocol) = (Scheduler::Maglev, Protocol::Udp);
    });
    world.connect(WEB1, 10);
    world.connect(WEB2, 10);
    let plan = world.change(|world| www(world).stateless = true);
    let moved = plan.impact.moved;
    assert!(moved > 0 && moved == plan.impact.move_without_state, "{plan:?}");
    let lines = plan.lines();
    assert_eq!(lines[0], "service www: stateless false becomes true");
    assert!(
        lines[1].contains(&format!("its {moved} connections move to other backends")),
        "{lines:?}"
    );
    world.connections.clear();
    let lines = world.change(|world| www(world).backends.push(web3())).lines();
    assert!(
        lines[1].ends_with("so many of its clients move, since it remembers no connection"),
        "{lines:?}"
    );
}

#[test]
fn a_backend_that_fails() {
    let down = |world: &mut World| {
        world.down.insert("web1");
    };
    let tell = |edit: fn(&mut Config)| {
        let mut world = World::new(edit);
        world.connect(WEB1, 3);
        let plan = world.change(down);
        (plan.lines().remove(0), plan.impact)
    };
    let (line, impact) = tell(|_| {});
    assert_eq!(
        line,
        "backend www/web1: up becomes down; its 3 connections stay with it"
    );
    assert_eq!((impact.stay, impact.reset), (3, 0));
    let (line, impact) = tell(|config| config.services[0].on_down = OnDown::Reset);
    assert_eq!(
        line,
        "backend www/web1: up becomes down; its 3 connections are reset"
    );
    assert_eq!((impact.stay, impact.reset), (0, 3));
    let (line, impact) = tell(|config| config.services[0].protocol = Protocol::Udp);
    assert_eq!(
        line,
        "backend www/web1: up becomes down; its 3 connections move to other backends"
    );
    assert_eq!(impact.moved, 3);
}

#[test]
fn a_drain_and_its_deadline() {
    let mut world = World::new(|_| {});
    world.connect(WEB1, 2);
    let drain = |deadline_seconds| {
        move |world: &mut World| {
            let change = BackendChange::Drain { deadline_seconds };
            world
                .overrides
                .apply_change("www", "web1", change, true, world.now);
        }
    };
    let mut other = world.clone();
    assert_eq!(
        other.change(drain(None)).lines(),
        ["backend www/web1: up becomes draining; its 2 connections go on until they end"]
    );
    assert_eq!(
        world.change(drain(Some(30))).lines(),
        ["backend www/web1: up becomes draining; its 2 connections have 30s to end, then they are reset"]
    );
    let mut hurried = world.clone();
    assert_eq!(
        hurried.change(drain(Some(10))).lines(),
        [
            "backend www/web1: its time to drain changes; its 2 connections have 10s to end, then they are reset"
        ]
    );
    assert!(world.change(|world| world.now = at(29)).is_empty());
    let plan = world.change(|world| world.now = at(30));
    assert_eq!(
        plan.lines(),
        ["backend www/web1: its time to drain is over; its 2 connections are reset"]
    );
    assert_eq!(plan.impact.reset, 2);
    assert!(world.change(|world| world.now = at(31)).is_empty());
}

#[test]
fn the_deadline_of_one_that_leaves() {
    let mut world =
        World::new(|config| config.services[0].drain_timeout = Some(std::time::Duration::from_secs(60)));
    world.connect(WEB1, 2);
    world.change(|world| drop(www(world).backends.remove(0)));
    assert_eq!(
        world.change(|world| world.now = at(60)).lines(),
        ["backend www/web1: its time to drain is over; its 2 connections are reset"]
    );
}

#[test]
fn on_down_that_changes_while_a_backend_is_down() {
    let mut world = World::new(|_| {});
    world.connect(WEB1, 4);
    world.change(|world| {
        world.down.insert("web1");
    });
    let lines = world.change(|world| www(world).on_down = OnDown::Reset).lines();
    assert_eq!(
        lines,
        [
            "service www: on_down keep becomes reset",
            "backend www/web1: is down; its 4 connections are reset"
        ]
    );
}

#[test]
fn what_makes_all_connections_of_a_service_others() {
    let cases: [(Edit, &str); 4] = [
        (|world| drop(world.config.services.pop()), "service www: removed"),
        (
            |world| www(world).vip = [203, 0, 113, 11].into(),
            "service www: 203.0.113.10:443/tcp becomes 203.0.113.11:443/tcp",
        ),
        (
            |world| www(world).mode = Mode::Dsr,
            "service www: mode nat becomes dsr",
        ),
        (
            |world| {
                www(world).mode = Mode::FullNat;
                www(world).source_address = Some([198, 18, 1, 1].into());
            },
            "service www: mode nat becomes full-nat",
        ),
    ];
    for (edit, words) in cases {
        let mut world = World::new(|_| {});
        world.connect(WEB1, 3);
        world.connect(WEB2, 4);
        let plan = world.change(edit);
        assert_eq!(
            plan.lines()[0],
            format!("{words}; its 7 connections go on until they end")
        );
        assert_eq!(plan.impact.drain, 7, "{words}");
        let effects: usize = plan.steps.iter().map(|step| step.effects.len()).sum();
        assert_eq!(effects, 1, "told once: {plan:?}");
    }
}

#[test]
fn another_address_is_another_server() {
    let mut world = World::new(|_| {});
    world.connect(WEB2, 5);
    let lines = world
        .change(|world| www(world).backends[1].address = [198, 18, 9, 2].into())
        .lines();
    assert_eq!(
        lines,
        ["backend www/web2: 198.18.2.2:443 becomes 198.18.9.2:443; its 5 connections go on until they end"]
    );
}

#[test]
fn new_names_change_nothing_else() {
    let mut world = World::new(|_| {});
    world.connect(WEB1, 5);
    let plan = world.change(|world| www(world).backends[0].name = "web9".to_owned());
    assert_eq!(plan.lines(), ["backend www/web1: renamed www/web9"]);
    assert_eq!(plan.impact.drain, 0);
    let plan = world.change(|world| www(world).name = "site".to_owned());
    assert_eq!(plan.lines(), ["service www: renamed site"]);
    assert_eq!(plan.impact, Impact::default());
}

/// A service of several ports takes the place of one of a single port, whose connections it could not tell from its own.
#[test]
fn what_has_to_make_way_is_cut_off() {
    let mut world = World::new(|config| {
        config.services[0].ports = Ports::One(std::num::NonZeroU16::new(8080).unwrap());
    });
    world.connect(WEB1, 6);
    let plan = world.change(|world| {
        let service = www(world);
        service.ports = Ports::Range(8000..=8999);
        service.health = None;
        for backend in &mut service.backends {
            backend.port = None;
        }
    });
    assert_eq!(plan.impact.cut, 6, "{plan:?}");
    let lines = plan.lines();
    assert_eq!(
        lines[0],
        "service www: 203.0.113.10:8080/tcp becomes 203.0.113.10:8000-8999/tcp"
    );
    let cut = "backend www/web1: 198.18.1.2:443 becomes 198.18.1.2; its 6 connections are cut off";
    assert!(lines.iter().any(|line| line.starts_with(cut)), "{lines:?}");
}

#[test]
fn a_vip_that_nobody_puts_on_an_interface_any_more() {
    let mut world = World::new(|config| config.services[0].manage_vip = Some("eth0".to_owned()));
    world.connect(WEB1, 2);
    world.connect(WEB2, 2);
    let mut moved = world.clone();
    let plan = world.change(|world| www(world).manage_vip = None);
    assert_eq!(
        plan.lines(),
        [
            "VIP 203.0.113.10: is taken off eth0; its 4 connections go on only if somebody else leads their packets here"
        ]
    );
    assert_eq!(plan.impact.unreached, 4);
    let lines = moved
        .change(|world| www(world).manage_vip = Some("eth1".to_owned()))
        .lines();
    assert_eq!(lines, ["VIP 203.0.113.10: moves from eth0 to eth1"]);
    let lines = moved.change(|world| drop(world.config.services.pop())).lines();
    assert_eq!(
        lines[1],
        "VIP 203.0.113.10: stays on eth1 until the last connection to it has ended"
    );
    let lines = world
        .change(|world| www(world).manage_vip = Some("eth0".to_owned()))
        .lines();
    assert_eq!(lines, ["VIP 203.0.113.10: is put on eth0"]);
}

#[test]
fn every_setting_has_a_line() {
    let mut world = World::new(|_| {});
    let plan = world.change(|world| {
        let service = www(world);
        service.scheduler = Scheduler::Random;
        service.answer_ping = false;
        service.slow_start = std::time::Duration::from_secs(30);
        service.when_all_down = crate::config::WhenAllDown::Drop;
        service.on_down = OnDown::Reset;
        service.drain_timeout = Some(std::time::Duration::from_secs(300));
        service.timeouts.established = std::time::Duration::from_secs(60);
        service.health = None;
        service.backends[0].weight = 5;
        service.backends[1].backup = true;
        let mut other = service.clone();
        other.name = "other".to_owned();
        other.vip = "2001:db8::10".parse().unwrap();
        other.ports = Ports::Range(1..=65535);
        other.protocol = Protocol::Udp;
        other.backends.clear();
        world.config.services.push(other);
        world.config.site = Some(site());
    });
    assert_eq!(
        plan.lines(),
        [
            "service other: added, [2001:db8::10]:any/udp",
            "service www: scheduler round-robin becomes random",
            "service www: answer_ping true becomes false",
            "service www: slow_start 0s becomes 30s",
            "service www: when_all_down refuse becomes drop",
            "service www: on_down keep becomes reset",
            "service www: drain_timeout none becomes 5m",
            "service www: timeouts.established 2h 4m becomes 1m, for each connection with its next packet",
            "service www: health check changed",
            "backend www/web1: weight 1 becomes 5",
            "backend www/web2: becomes a backup",
            "site: added; hand it to the web servers with `lbctl site apply`",
        ]
    );
    assert_eq!(plan.impact, Impact::default());
}

fn site() -> Site {
    Site {
        server_names: vec!["www.foobar.com".to_owned()],
        certificate: "site.pem".into(),
        key: "site.key".into(),
        upstream: Vec::new(),
        http_port: None,
        https_port: std::num::NonZeroU16::new(443).unwrap(),
        redirect_http: true,
        hsts: None,
        tls_versions: vec![TlsVersion::V1_3],
        keepalive_time: std::time::Duration::from_secs(60),
        keepalive_timeout: std::time::Duration::from_secs(65),
        drain_timeout: std::time::Duration::from_secs(90),
        servers: Vec::new(),
    }
}

#[test]
fn a_plan_is_a_value() {
    let mut world = World::new(|config| config.services[0].scheduler = Scheduler::Maglev);
    world.connect(WEB1, 3);
    let plan = world.change(|world| drop(www(world).backends.remove(0)));
    let text = serde_json::to_string(&plan).unwrap();
    assert!(
        text.contains(r#""fate":"drain""#) && text.contains(r#""move":0"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}
