//! A made-up daemon that remembers what it was asked.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lb::api::explain::{Answer, Decision, Question};
use lb::api::trace::{TraceRequest, Traced, TracedPacket};
use lb::api::types::*;
use lb::api::{Control, Refusal, server};
use lb::config;
use lb::plan::{Effect, Fate, Impact, Plan, Remap, Step, Subject};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The made-up daemon's configuration file.
const FILE: &str = "/etc/lb/lb.toml";

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    /// Calls under way now, and the most there ever were.
    pub(crate) now: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
}

pub(crate) struct State {
    pub(crate) status: Status,
    /// What was asked, oldest first.
    pub(crate) calls: Vec<String>,
    /// What every change is refused with.
    pub(crate) refusal: Option<Refusal>,
    /// How long each call takes.
    pub(crate) delay: Duration,
    /// How many connections a draining backend loses each time that the backends are listed.
    pub(crate) ending: u64,
    /// Whether a listing finds that somebody undid the drain.
    pub(crate) undrained: bool,
    /// What a draining backend has left of its time, one listing after the other; then as the last one says.
    pub(crate) deadlines: Vec<u64>,
    /// How many connections nothing ends.
    pub(crate) silent: u64,
    /// Whether nothing is different.
    pub(crate) unchanged: bool,
    pub(crate) applied: bool,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let state = State {
            status: status(),
            calls: Vec::new(),
            refusal: None,
            delay: Duration::ZERO,
            ending: 1,
            undrained: false,
            deadlines: Vec::new(),
            silent: 0,
            unchanged: false,
            applied: true,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            now: Arc::default(),
            most: Arc::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What was asked, in words.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    async fn asked(&self, call: String) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let delay = self.state().delay;
        tokio::time::sleep(delay).await;
        self.state().calls.push(call);
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn refuse(&self) -> Result<(), Refusal> {
        self.state().refusal.clone().map_or(Ok(()), Err)
    }
}

impl Control for Fake {
    async fn status(&self) -> Result<Status, Refusal> {
        self.asked("status".to_owned()).await;
        self.refuse()?;
        Ok(self.state().status.clone())
    }

    async fn services(&self) -> Result<Vec<Service>, Refusal> {
        self.asked("services".to_owned()).await;
        Ok(self.state().status.services.clone())
    }

    async fn backends(&self) -> Result<Vec<Backend>, Refusal> {
        self.asked("backends".to_owned()).await;
        let mut state = self.state();
        let (ending, undrained, silent) = (state.ending, state.undrained, state.silent);
        let deadline = match state.deadlines.len() {
            0 => None,
            1 => Some(state.deadlines[0]),
            _ => Some(state.deadlines.remove(0)),
        };
        for backend in state
            .status
            .services
            .iter_mut()
            .flat_map(|service| &mut service.backends)
        {
            if backend.state == BackendState::Draining {
                backend.traffic.connections = backend.traffic.connections.saturating_sub(ending).max(silent);
                backend.reset_in_seconds = deadline;
                if undrained {
                    backend.state = BackendState::Up;
                }
            }
        }
        Ok(state
            .status
            .services
            .iter()
            .flat_map(|service| service.backends.clone())
            .collect())
    }

    async fn add_backend(&self, request: AddBackend) -> Result<Changed, Refusal> {
        self.asked(serde_json::to_string(&request).unwrap()).await;
        self.refuse()?;
        let AddBackend { service, backend, .. } = request;
        let message = format!("{service}/{}: added, weight {}", backend.name, backend.weight);
        Ok(Changed {
            backends: Vec::new(),
            messages: vec![message],
            plan: plan(),
        })
    }

    async fn change_backend(&self, request: ChangeBackend) -> Result<Changed, Refusal> {
        self.asked(serde_json::to_string(&request).unwrap()).await;
        self.refuse()?;
        let mut state = self.state();
        let backends = state
            .status
            .services
            .iter_mut()
            .flat_map(|service| &mut service.backends);
        let (mut changed, mut messages) = (Vec::new(), Vec::new());
        for backend in backends.filter(|backend| backend.name == request.name) {
            if request
                .service
                .as_ref()
                .is_some_and(|service| *service != backend.service)
            {
                continue;
            }
            if matches!(request.change, BackendChange::Drain { .. }) {
                backend.state = BackendState::Draining;
                backend.eligible = false;
            }
            messages.push(format!(
                "{}/{}: {:?}",
                backend.service, backend.name, request.change
            ));
            changed.push(backend.clone());
        }
        if changed.is_empty() {
            return Err(Refusal::Unknown(format!(
                "there is no backend {:?}; backends: web1, web2",
                request.name
            )));
        }
        Ok(Changed {
            backends: changed,
            messages,
            plan: plan(),
        })
    }

    async fn connections(&self, filter: ConnectionFilter) -> Result<Connections, Refusal> {
        self.asked(format!("connections {}", serde_json::to_string(&filter).unwrap()))
            .await;
        let connection = Connection {
            client: "2001:db8::7".parse().unwrap(),
            client_port: 40000,
            vip: "2001:db8::10".parse().unwrap(),
            vip_port: 443,
            protocol: config::Protocol::Tcp,
            service: "www".into(),
            backend: "web1".into(),
            own_port: None,
            state: "established".into(),
            expires_seconds: 7440,
        };
        let mut connections = vec![connection; filter.limit.unwrap_or(1)];
        if filter.service.as_deref() == Some("mail") {
            connections
                .iter_mut()
                .for_each(|it| it.own_port = NonZeroU16::new(10240));
        }
        Ok(Connections {
            total: 12_345,
            connections,
        })
    }

    async fn counters(&self) -> Result<Counters, Refusal> {
        self.asked("counters".to_owned()).await;
        let outcome = |name: &str, action: &str, meaning: &str, packets| Outcome {
            name: name.to_owned(),
            action: action.to_owned(),
            meaning: meaning.to_owned(),
            packets,
        };
        Ok(Counters {
            outcomes: vec![
                outcome(
                    "to_backend",
                    "transmit",
                    "Sent to the connection's backend.",
                    9_876_543_210,
                ),
                outcome("malformed", "drop", "Not a whole packet.", 0),
                outcome("not_ours", "pass", "For no service.", 7),
            ],
        })
    }

    async fn why(&self, question: Question) -> Result<Answer, Refusal> {
        self.asked(format!("why {}", serde_json::to_string(&question).unwrap()))
            .await;
        self.refuse()?;
        let decision = |about: &str, says: &str| Decision {
            about: about.to_owned(),
            says: says.to_owned(),
        };
        Ok(Answer {
            packet: "TCP 198.18.0.2:40000 → 203.0.113.10:443, syn, 40 bytes".to_owned(),
            interface: "uplink".to_owned(),
            decisions: vec![
                decision("service", "www (tcp 203.0.113.10:443)"),
                decision("connection", "none"),
                decision("slot", "2 of 2, next in the round: web2 (198.18.2.2:443)"),
            ],
            service: Some("www (tcp 203.0.113.10:443)".to_owned()),
            backend: Some("web2 (198.18.2.2:443)".to_owned()),
            outcome: "to_backend".to_owned(),
            action: "redirect".to_owned(),
            meaning: "A client's packet went to its backend.".to_owned(),
        })
    }

    async fn trace(&self, request: TraceRequest) -> Result<Traced, Refusal> {
        self.asked(format!("trace {}", serde_json::to_string(&request).unwrap()))
            .await;
        self.refuse()?;
        let packet = TracedPacket {
            time: 1_700_000_000_123_456_789,
            interface: "uplink".to_owned(),
            packet: "TCP 198.18.0.2:40000 → 203.0.113.10:443, syn, 40 bytes".to_owned(),
            length: 54,
            head: "020000000002020000000001".to_owned(),
            decisions: vec![Decision {
                about: "service".to_owned(),
                says: "www".to_owned(),
            }],
            service: Some("www".to_owned()),
            backend: Some("web1 (198.18.1.2:443)".to_owned()),
            outcome: "to_backend".to_owned(),
            action: "redirect".to_owned(),
        };
        let packets = match (request.session, request.end) {
            // Nothing yet, and then two at a time.
            (None, _) | (_, true) => Vec::new(),
            (Some(77), false) => vec![packet; 2],
            (Some(other), _) => return Err(Refusal::Unknown(format!("no session {other}"))),
        };
        Ok(Traced {
            session: 77,
            packets,
            left_out: 5,
        })
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.asked("reload".to_owned()).await;
        self.refuse()?;
        let plan = if self.state().unchanged {
            Plan::default()
        } else {
            plan()
        };
        Ok(Reloaded {
            changes: plan.lines(),
            plan,
        })
    }

    async fn plan(&self, request: PlanRequest) -> Result<Plan, Refusal> {
        self.asked(format!("plan {}", serde_json::to_string(&request).unwrap()))
            .await;
        self.refuse()?;
        Ok(if self.state().unchanged {
            Plan::default()
        } else {
            plan()
        })
    }

    async fn apply(&self, request: ApplyRequest) -> Result<Applied, Refusal> {
        self.asked(format!("apply {}", serde_json::to_string(&request).unwrap()))
            .await;
        self.refuse()?;
        let unconfirmed = request.confirm_seconds.map(|seconds_left| Unconfirmed {
            file: FILE.to_owned(),
            seconds_left,
        });
        Ok(Applied {
            plan: plan(),
            file: FILE.to_owned(),
            kept: Some(format!("{FILE}.previous")),
            unconfirmed,
        })
    }

    async fn confirm(&self) -> Result<Confirmed, Refusal> {
        self.asked("confirm".to_owned()).await;
        self.refuse()?;
        Ok(Confirmed {
            file: FILE.to_owned(),
        })
    }

    async fn rollback(&self) -> Result<RolledBack, Refusal> {
        self.asked("rollback".to_owned()).await;
        self.refuse()?;
        Ok(RolledBack {
            plan: plan(),
            file: FILE.to_owned(),
            kept: None,
        })
    }

    async fn site_render(&self) -> Result<SiteRender, Refusal> {
        self.asked("site render".to_owned()).await;
        let server = |name: &str| RenderedServer {
            server: name.to_owned(),
            nginx_conf: format!("server {{ # {name}\n}}\n"),
        };
        Ok(SiteRender {
            servers: vec![server("web1"), server("web2")],
        })
    }

    async fn site_apply(&self) -> Result<SiteApplied, Refusal> {
        self.asked("site apply".to_owned()).await;
        self.refuse()?;
        let step = |step: &str, ok, detail: &str| SiteStep {
            step: step.to_owned(),
            ok,
            detail: detail.to_owned(),
            took: Duration::from_millis(1234),
        };
        let ok = self.state().applied;
        let steps = vec![step("stage", true, "7 files"), step("test", ok, "nginx: says so")];
        Ok(SiteApplied {
            ok,
            servers: vec![AppliedServer {
                server: "web1".to_owned(),
                ok,
                steps,
            }],
        })
    }

    async fn site_status(&self) -> Result<SiteStatus, Refusal> {
        self.asked("site status".to_owned()).await;
        let wanted = Certificate {
            fingerprint: "0123456789abcdef0123456789abcdef".to_owned(),
            subject: "CN=www.foobar.com".to_owned(),
            names: vec!["www.foobar.com".to_owned()],
            not_after: "2027-01-01T00:00:00Z".to_owned(),
            expires_in_seconds: 86_400 * 39,
        };
        let old = Certificate {
            expires_in_seconds: -60,
            fingerprint: "fedc".to_owned(),
            ..wanted.clone()
        };
        let server = |name: &str, served: Option<Certificate>, error: Option<&str>| SiteServerStatus {
            server: name.to_owned(),
            current: served.as_ref() == Some(&wanted),
            served,
            error: error.map(str::to_owned),
        };
        let servers = vec![
            server("web1", Some(wanted.clone()), None),
            server("web2", Some(old), None),
            server("web3", None, Some("connection refused")),
        ];
        Ok(SiteStatus { wanted, servers })
    }
}

/// A fake behind a real server on a real socket, until it is dropped.
pub(crate) struct Running {
    pub(crate) fake: Fake,
    pub(crate) socket: PathBuf,
    _directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) server: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lbd.sock");
        let fake = Fake::new();
        let (stop, stopped) = oneshot::channel();
        let listener = server::bind(&socket).unwrap();
        let server = tokio::spawn(server::serve(listener, fake.clone(), async {
            let _ = stopped.await;
        }));
        Self {
            fake,
            socket,
            _directory: directory,
            stop: Some(stop),
            server,
        }
    }

    pub(crate) fn stop(&mut self) {
        self.stop.take();
    }
}

/// Two services: `www` with a backend in each interesting state, `api` with none that works.
pub(crate) fn status() -> Status {
    let backend =
        |service: &str, name: &str, last: u8, state, health: &str, since_seconds, reason: &str| Backend {
            service: service.to_owned(),
            name: name.to_owned(),
            address: [198, 18, 1, last].into(),
            port: NonZeroU16::new(443),
            weight: 1,
            backup: false,
            slow_start_percent: None,
            reset_in_seconds: None,
            state,
            eligible: state == BackendState::Up,
            health: Health {
                status: health.to_owned(),
                since_seconds,
                reason: reason.to_owned(),
            },
            overrides: Vec::new(),
            next_hop: Some("02:00:00:00:00:01 eth1".to_owned()),
            traffic: Traffic {
                connections: 3,
                opened: 1_234_567,
                packets_in: 1 << 40,
                bytes_in: 1 << 41,
                packets_out: 5,
                bytes_out: 1536,
            },
        };
    let service = |name: &str, vip: &str, backends| Service {
        name: name.to_owned(),
        vip: vip.parse().unwrap(),
        ports: config::Ports::One(NonZeroU16::new(443).unwrap()),
        protocol: config::Protocol::Tcp,
        mode: config::Mode::Nat,
        scheduler: config::Scheduler::RoundRobin,
        stateless: false,
        source_address: None,
        source_ports: None,
        answer_ping: true,
        slow_start_seconds: 0,
        when_all_down: config::WhenAllDown::Refuse,
        on_down: config::OnDown::Keep,
        drain_timeout_seconds: None,
        traffic: Traffic {
            connections: 6,
            opened: 2_469_134,
            ..Traffic::default()
        },
        backends,
    };
    let mut web2 = backend(
        "www",
        "web2",
        3,
        BackendState::Disabled,
        "up",
        11_000,
        "HTTP 200 in 3 ms",
    );
    web2.overrides = vec!["disable".to_owned(), "weight 3 (file: 1)".to_owned()];
    let nasty = "HTTP 500 \"\x1b[2J\"\nnext";
    Status {
        version: "0.1.0".to_owned(),
        pid: 4242,
        uptime_seconds: 273_600,
        config_file: "/etc/lb/lb.toml".to_owned(),
        interfaces: vec![
            Interface {
                name: "eth0".to_owned(),
                mode: "native".to_owned(),
            },
            Interface {
                name: "eth1".to_owned(),
                mode: "generic".to_owned(),
            },
        ],
        connections: 12_345,
        wide_connections: 345,
        max_connections: 1_000_000,
        max_wide_connections: 125_000,
        table_bytes: 25_165_824,
        services: vec![
            service(
                "www",
                "203.0.113.10",
                vec![
                    backend(
                        "www",
                        "web1",
                        2,
                        BackendState::Up,
                        "up",
                        11_040,
                        "HTTP 200 in 3 ms",
                    ),
                    web2,
                ],
            ),
            service(
                "api",
                "2001:db8::10",
                vec![backend("api", "web1", 2, BackendState::Down, "down", 12, nasty)],
            ),
        ],
        unconfirmed: None,
        warnings: vec!["eth1: its driver has no native XDP".to_owned()],
    }
}

/// One that removes a backend and adds another one to a service that hashes.
pub(crate) fn plan() -> Plan {
    let step = |subject, name: &str, change: &str| Step {
        subject,
        name: name.to_owned(),
        change: change.to_owned(),
        effects: Vec::new(),
        remap: None,
    };
    let effect = |connections, fate| Effect {
        connections,
        fate,
        reset_in_seconds: None,
    };
    let remap = Remap {
        slots_before: 509,
        slots_after: 509,
        changed_ppm: 331_999,
        connections: 1500,
        elsewhere: 498,
        elsewhere_before: 1,
        stateless: false,
        once_up: vec!["web3".to_owned()],
    };
    Plan {
        steps: vec![
            step(Subject::Backend, "www/web3", "added, 198.18.1.4:443, checking"),
            Step {
                effects: vec![effect(1000, Fate::Drain)],
                ..step(Subject::Backend, "www/web1", "removed")
            },
            Step {
                effects: vec![effect(1, Fate::Reset)],
                ..step(Subject::Backend, "www/web2", "up becomes down\u{1b}[2J")
            },
            Step {
                remap: Some(remap),
                ..step(
                    Subject::Service,
                    "www",
                    "33.1 % of its slots change hands once web3 is up",
                )
            },
        ],
        impact: Impact {
            connections: 1500,
            drain: 1000,
            reset: 1,
            move_without_state: 498,
            ..Impact::default()
        },
    }
}

/// IPv6 by `full-nat`: a backend that has just recovered, and a backup.
pub(crate) fn mail() -> Service {
    let [www, _] = status().services.try_into().unwrap();
    let [first, second] = www.backends.clone().try_into().unwrap();
    let backend = |like: Backend, name: &str, address: &str| Backend {
        service: "mail".to_owned(),
        name: name.to_owned(),
        address: address.parse().unwrap(),
        port: NonZeroU16::new(2525),
        overrides: Vec::new(),
        ..like
    };
    Service {
        name: "mail".to_owned(),
        vip: "2001:db8::25".parse().unwrap(),
        ports: config::Ports::One(NonZeroU16::new(25).unwrap()),
        mode: config::Mode::FullNat,
        scheduler: config::Scheduler::LeastConnections,
        source_address: Some("2001:db8:1::1".parse().unwrap()),
        source_ports: Some(1024..=9999),
        slow_start_seconds: 60,
        backends: vec![
            Backend {
                slow_start_percent: Some(30),
                ..backend(first, "mx1", "2001:db8:1::2")
            },
            Backend {
                backup: true,
                state: BackendState::Up,
                eligible: false,
                ..backend(second, "mx2", "2001:db8:1::3")
            },
        ],
        ..www
    }
}

/// UDP to several ports, nothing remembered.
pub(crate) fn dns() -> Service {
    let [www, _] = status().services.try_into().unwrap();
    let [first, _] = www.backends.clone().try_into().unwrap();
    Service {
        name: "dns".to_owned(),
        vip: "203.0.113.53".parse().unwrap(),
        ports: config::Ports::Range(5300..=5399),
        protocol: config::Protocol::Udp,
        scheduler: config::Scheduler::Maglev,
        stateless: true,
        answer_ping: false,
        backends: vec![Backend {
            service: "dns".to_owned(),
            name: "ns1".to_owned(),
            address: [198, 18, 1, 5].into(),
            port: None,
            ..first
        }],
        ..www
    }
}
