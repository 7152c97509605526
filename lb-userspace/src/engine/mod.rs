//! The one task that owns the running state. Everything that changes it — a request, a health event, a neighbour, a reload —
//! comes in through its inbox, one at a time; what follows from it is computed whole before anything is touched.

mod apply;
mod change;
mod cleanup;
mod explain;
mod fresh;
mod handle;
mod housekeeping;
mod ledger;
mod look;
mod notes;
mod planning;
mod traces;
mod vips;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lb_common::abi::BackendCounters;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, interval, sleep_until};

use crate::api::Refusal;
use crate::api::types::{
    AddBackend, Applied, ApplyRequest, ChangeBackend, Changed, Confirmed, Reloaded, RolledBack,
};
use crate::config::{Config, ConfigError};
use crate::dataplane::{
    Dataplane, DataplaneError, LoadOptions, Object, PinError, Pins, ProgramFd, ServiceEntry, Snapshot, mtu,
};
use crate::desired_state::{DesiredService, Inputs, Recoveries, with_overrides};
use crate::failpoint::{self, Failpoint};
use crate::handoff::DrainOutcome;
use crate::health::{self, Monitor, Status, Target, TargetId};
use crate::neighbours::{NeighbourError, Resolution, Resolver, Watch};
use crate::observed_state::Observed;
use crate::pending::PendingError;
use crate::persisted::{Overrides, PersistError};
use crate::reconcile::{self, Exhausted, Identities, SlotTables};
use crate::scheduling;

pub use cleanup::clean_up;
pub use handle::EngineHandle;

use housekeeping::Housekeeping;
use ledger::Ledger;
use notes::{Known, Notes};
use planning::{Ahead, Force};
use vips::Vips;

/// Health and neighbour changes within this time become one change of the tables.
const COALESCE: Duration = Duration::from_millis(20);
/// How often it is looked after what changes by itself.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel side.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The place where the kernel side outlives the daemon.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// What an earlier daemon has noted about the tables.
    #[error(
        "daemon.pin_directory {directory}: {reason}; the tables stay as they are and go on balancing: use the lbd that made \
         them, or give up their connections with `lbd --cleanup` and start again"
    )]
    Notes {
        /// Where the tables are pinned.
        directory: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The neighbour table.
    #[error(transparent)]
    Neighbours(#[from] NeighbourError),
    /// The overrides.
    #[error(transparent)]
    Persisted(#[from] PersistError),
    /// What waits to be confirmed.
    #[error(transparent)]
    Pending(#[from] PendingError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The VIPs.
    #[error(transparent)]
    Vip(#[from] crate::vip::VipError),
    /// The configuration together with the overrides.
    #[error("the configuration does not go together with what was changed at run time: {0}")]
    Refused(Refusal),
}

/// The running state.
pub struct Engine {
    /// As the file says.
    file: Config,
    /// As the file says and the overrides change it.
    effective: Config,
    overrides: Overrides,
    handed_off: BTreeSet<String>,
    identities: Identities,
    /// What the tables say now, and what is shown: health that is known but not in them yet would be a promise.
    desired: Vec<DesiredService>,
    recoveries: Recoveries,
    published: Vec<ServiceEntry>,
    published_mtu: u32,
    slot_tables: SlotTables,
    hops: HashMap<IpAddr, Resolution>,
    dataplane: Dataplane,
    monitor: Monitor,
    resolver: Resolver,
    vips: Vips,
    ledger: Ledger,
    started: Instant,
    warned: BTreeSet<String>,
    housekeeping: Housekeeping,
    #[cfg(feature = "log")]
    program_log: Option<crate::task::OwnedTask>,
}

/// What reaches the engine.
pub struct Inbox {
    requests: mpsc::Receiver<Request>,
    health: mpsc::UnboundedReceiver<health::Event>,
    neighbours: mpsc::UnboundedReceiver<()>,
    _watch: Watch,
}

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What others ask of the engine.
enum Request {
    /// To look at something; changes nothing.
    Look(Box<dyn FnOnce(&Engine) + Send>),
    Add(AddBackend, Reply<Changed>),
    Change(ChangeBackend, Reply<Changed>),
    Reload(Reply<Reloaded>),
    Apply(ApplyRequest, Reply<Applied>),
    Confirm(Reply<Confirmed>),
    Rollback(Reply<RolledBack>),
    /// To have a second instance of the program decide, or no longer.
    Trace(Option<ProgramFd>, Reply<()>),
    DrainForHandoff(String, Reply<DrainOutcome>),
    UndrainAfterHandoff(String, Option<Reply<()>>),
}

/// What is wanted to be in force.
struct Goal {
    file: Config,
    overrides: Overrides,
    handed_off: BTreeSet<String>,
    force: Force,
}

/// A next state of everything, computed whole and not yet in force.
struct Next {
    file: Config,
    effective: Config,
    overrides: Overrides,
    handed_off: BTreeSet<String>,
    identities: Identities,
    desired: Vec<DesiredService>,
    recoveries: Recoveries,
    entries: Vec<ServiceEntry>,
    slot_tables: SlotTables,
    snapshot: Snapshot,
    /// For a later daemon.
    notes: Vec<u8>,
}

impl Next {
    /// What it is that comes of this.
    fn goal(&self) -> Goal {
        Goal {
            file: self.file.clone(),
            overrides: self.overrides.clone(),
            handed_off: self.handed_off.clone(),
            force: Force::Nobody,
        }
    }
}

impl Engine {
    /// Loads the program, over the tables of an earlier daemon if there are any, brings them up to date and attaches the program.
    /// A backend that nobody knows gets no traffic before its first probe succeeds.
    ///
    /// # Errors
    /// Anything that the daemon cannot do without; what was set up is taken down again, and what an earlier daemon has left
    /// goes on.
    pub async fn start(file: Config, object: &Object) -> Result<(Self, Inbox, EngineHandle), StartError> {
        let overrides = Overrides::load(&file.daemon.state_directory)?;
        let ledger = Ledger::open(&file)?;
        let options = LoadOptions {
            max_connections: file.daemon.max_connections,
            max_wide_connections: file.daemon.max_wide_connections,
            full_nat_ports: file.daemon.full_nat_ports,
            learn_return_hops: true,
            selection_seed: file.daemon.selection_seed,
        };
        let pins = Pins::take(&file.daemon.pin_directory)?;
        let mut dataplane = Dataplane::open(object, options, pins)?;
        report_memory(&dataplane, &options);
        let notes = read_notes(&mut dataplane, &file)?;
        let (health_events, health) = mpsc::unbounded_channel();
        let (neighbour_events, neighbours) = mpsc::unbounded_channel();
        let watch = Resolver::watch(neighbour_events).await?;
        let mut engine = Self {
            effective: file.clone(),
            file,
            overrides,
            handed_off: BTreeSet::new(),
            identities: Identities::default(),
            desired: Vec::new(),
            recoveries: Recoveries::default(),
            published: Vec::new(),
            published_mtu: 0,
            slot_tables: SlotTables::default(),
            hops: HashMap::new(),
            dataplane,
            monitor: Monitor::new(health_events),
            resolver: Resolver::new().await?,
            vips: Vips::default(),
            ledger,
            started: Instant::now(),
            warned: BTreeSet::new(),
            housekeeping: Housekeeping::default(),
            #[cfg(feature = "log")]
            program_log: None,
        };
        engine.begin(notes).await?;
        let (sender, requests) = mpsc::channel(64);
        Ok((
            engine,
            Inbox {
                requests,
                health,
                neighbours,
                _watch: watch,
            },
            EngineHandle::new(sender),
        ))
    }

    async fn begin(&mut self, notes: Option<Notes>) -> Result<(), StartError> {
        self.effective = with_overrides(&self.file, &self.overrides);
        let goes_on = notes.is_some();
        if let Some(notes) = notes {
            self.go_on(notes);
        }
        self.resolve().await;
        let next = self.next(self.goal()).map_err(StartError::Refused)?;
        self.commit(next);
        failpoint::reach(Failpoint::TablesFilled);
        let daemon = &self.file.daemon;
        self.dataplane.take_over(&daemon.interfaces, daemon.xdp_mode)?;
        for attachment in self.dataplane.attachments() {
            let interface = &attachment.interface;
            let mode = if attachment.native { "native" } else { "generic" };
            tracing::info!(interface, mode, goes_on, "attached");
        }
        let leaving = leaving_vips(&self.identities);
        self.vips.set(&self.file.services, &leaving).await?;
        failpoint::reach(Failpoint::VipsSet);
        Ok(())
    }

    /// Takes up what an earlier daemon has noted.
    fn go_on(&mut self, notes: Notes) {
        self.identities = notes.identities;
        self.recoveries = Recoveries::known(notes.recovering, Instant::now());
        self.vips = Vips::left(notes.vips);
        let endpoints = endpoints(&self.effective);
        for known in notes.health {
            let name = (known.id.service.as_str(), known.id.backend.as_str());
            if endpoints.get(&name) == Some(&known.address) {
                let (id, address) = (known.id.clone(), known.address);
                self.monitor.knows(id, address, known.health());
            }
        }
        let numbers: Vec<_> = self
            .identities
            .services()
            .map(|(_, service)| service.number)
            .collect();
        for number in numbers {
            let Some((choice, present, previous)) = self.dataplane.slots(number) else {
                continue;
            };
            if let Some(scheduler) = scheduling::hashing(choice) {
                self.slot_tables.known(number, scheduler, &present, &previous);
            }
        }
    }

    /// Works until `shutdown`. What is pinned stays, and so do the VIPs: packets go on as before.
    pub async fn run(mut self, mut inbox: Inbox, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut housekeeping = interval(HOUSEKEEPING);
        let mut due: Option<TokioInstant> = None;
        let mut hops_changed = false;
        loop {
            let wake = due.unwrap_or_else(|| TokioInstant::now() + HOUSEKEEPING);
            tokio::select! {
                () = &mut shutdown => break,
                Some(request) = inbox.requests.recv() => self.handle(request).await,
                Some(_) = inbox.health.recv() => {
                    due.get_or_insert_with(|| TokioInstant::now() + COALESCE);
                }
                Some(()) = inbox.neighbours.recv() => {
                    hops_changed = true;
                    due.get_or_insert_with(|| TokioInstant::now() + COALESCE);
                }
                () = sleep_until(wake), if due.is_some() => {
                    due = None;
                    while inbox.neighbours.try_recv().is_ok() {}
                    if std::mem::take(&mut hops_changed) {
                        self.resolve().await;
                    }
                    self.reconcile();
                }
                _ = housekeeping.tick() => self.keep_house().await,
            }
        }
        tracing::info!(
            "connections go on, old ones and new ones, among the backends that are up now; `lbd --cleanup` ends that"
        );
    }

    /// Looks up where each backend's packets go. What cannot be looked up now keeps its old next hop.
    async fn resolve(&mut self) {
        let addresses: BTreeSet<IpAddr> = self
            .effective
            .services
            .iter()
            .flat_map(|service| service.backends.iter().map(|backend| backend.address))
            .chain(
                self.identities
                    .services()
                    .flat_map(|(_, service)| service.backends.keys().map(|key| key.endpoint.ip())),
            )
            .collect();
        let addresses: Vec<_> = addresses.into_iter().collect();
        match self.resolver.resolve(&addresses).await {
            Ok(hops) => self.hops = hops,
            Err(error) => tracing::warn!(%error, "cannot look up next hops; the old ones stay"),
        }
    }

    /// Brings the tables in line with health and neighbours; whether it could.
    fn reconcile(&mut self) -> bool {
        match self.plan(self.goal(), Ahead::Now) {
            Ok(planned) => {
                self.put_in_force(planned, planning::PROBES);
                true
            }
            Err(error) => {
                tracing::error!(%error, "cannot bring the tables up to date; they stay as they are");
                false
            }
        }
    }

    /// Computes everything that follows from a file, overrides and hand-offs; touches nothing.
    fn next(&self, goal: Goal) -> Result<Next, Refusal> {
        let effective = with_overrides(&goal.file, &goal.overrides);
        effective.weights_fit().map_err(Refusal::Invalid)?;
        let mut desired = self.desired(&effective, &goal.overrides, &goal.handed_off, |status| status);
        let now = Instant::now();
        let recoveries = self.recoveries.after(&self.desired, &desired, now);
        recoveries.apply(&mut desired, now);
        let clock = self.dataplane.clock();
        let mut identities = self.identities.clone();
        identities
            .adopt(
                &reconcile::wanted(&desired, |timeout| clock.ticks(timeout)),
                goal.file.daemon.full_nat_ports,
                |id| self.counters(id),
            )
            .map_err(|error: Exhausted| Refusal::Conflict(error.to_string()))?;
        let moment = self.ledger.now();
        identities.part(moment, |key, service, backend| {
            self.reset_at(moment, &goal, key, service, backend)
        });
        let (entries, slot_tables) = reconcile::entries(&desired, &identities, &self.hops, &self.slot_tables);
        let snapshot = Snapshot::build(&entries).map_err(|error| Refusal::Conflict(error.to_string()))?;
        let notes = self
            .notes(&goal.file, &identities, &recoveries, now)
            .map_err(Refusal::Conflict)?;
        let Goal {
            file,
            overrides,
            handed_off,
            force: _,
        } = goal;
        Ok(Next {
            file,
            effective,
            overrides,
            handed_off,
            identities,
            desired,
            recoveries,
            entries,
            slot_tables,
            snapshot,
            notes,
        })
    }

    /// What a later daemon must know when this state is in force.
    fn notes(
        &self,
        file: &Config,
        identities: &Identities,
        recoveries: &Recoveries,
        now: Instant,
    ) -> Result<Vec<u8>, String> {
        let known =
            |(id, address, health): (&TargetId, SocketAddr, _)| Known::new(id.clone(), address, health);
        let notes = Notes::new(
            identities.clone(),
            self.monitor.all().map(known).collect(),
            self.vips.with(&file.services),
            recoveries.elapsed(now).collect(),
        );
        notes.bytes()
    }

    fn desired(
        &self,
        effective: &Config,
        overrides: &Overrides,
        handed_off: &BTreeSet<String>,
        judged: impl Fn(Status) -> Status,
    ) -> Vec<DesiredService> {
        let inputs = Inputs {
            config: effective,
            overrides,
            handed_off,
            now: self.ledger.now(),
        };
        let (probed, wanted) = (endpoints(&self.effective), endpoints(effective));
        // What is known of a server says nothing about another one that takes its name.
        let same = |id: &TargetId| {
            let name = (id.service.as_str(), id.backend.as_str());
            probed.get(&name) == wanted.get(&name)
        };
        inputs.desired(|id| match self.monitor.health(id) {
            Some(health) if same(id) => judged(health.status),
            _ => judged(Status::Checking),
        })
    }

    /// Puts a next state in force with one flip of the tables.
    fn commit(&mut self, next: Next) {
        let retarget = self.published.is_empty() || next.effective != self.effective;
        self.file = next.file;
        self.effective = next.effective;
        self.overrides = next.overrides;
        self.handed_off = next.handed_off;
        self.identities = next.identities;
        // Before the tables: a number that they name must be known to whoever finds them.
        if let Err(error) = self.dataplane.remember(&next.notes) {
            tracing::error!(%error, "a restarted lbd would not know of the last changes");
        }
        failpoint::reach(Failpoint::NotesWritten);
        let mtu = smallest_mtu(&self.file.daemon.interfaces, &next.entries);
        if next.entries != self.published || mtu != self.published_mtu {
            // Waiting for the grace period takes 10 to 20 ms.
            tokio::task::block_in_place(|| self.dataplane.publish(&next.snapshot, mtu));
            self.published = next.entries;
            self.published_mtu = mtu;
        }
        self.desired = next.desired;
        self.recoveries = next.recoveries;
        self.slot_tables = next.slot_tables;
        if retarget {
            self.monitor.set_targets(targets(&self.effective));
        }
    }

    fn observe(&self) -> Option<Observed> {
        match self.dataplane.now() {
            Ok(now) => Some(Observed::count(self.dataplane.connections(), now)),
            Err(error) => {
                tracing::error!(%error, "cannot read the connection table");
                None
            }
        }
    }

    /// Passes what the program logs on to this process's log.
    #[cfg(feature = "log")]
    pub fn forward_program_log(&mut self) -> std::io::Result<()> {
        let logger = aya_log::EbpfLogger::init(self.dataplane.ebpf_mut()).map_err(std::io::Error::other)?;
        let interest = tokio::io::Interest::READABLE;
        // SAFETY: the logger owns its file descriptor and gives the same one for as long as it lives.
        let mut logger = unsafe { tokio::io::unix::AsyncFd::register_with_interest(logger, interest)? };
        self.program_log = Some(crate::task::OwnedTask::spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }));
        Ok(())
    }

    fn counters(&self, backend: u16) -> BackendCounters {
        self.dataplane.counters().backend(backend).unwrap_or_default()
    }
}

/// What an earlier daemon has noted.
fn read_notes(dataplane: &mut Dataplane, file: &Config) -> Result<Option<Notes>, StartError> {
    let read = |bytes: Vec<u8>| {
        Notes::read(&bytes).map_err(|reason| StartError::Notes {
            directory: file.daemon.pin_directory.clone(),
            reason,
        })
    };
    dataplane.remembered()?.map(read).transpose()
}

/// What the tables take: they are as large from the start as they ever will be.
fn report_memory(dataplane: &Dataplane, options: &LoadOptions) {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    tracing::info!(
        "connection table: {} connections, and {} over IPv6 or to services of several ports, {}",
        options.max_connections,
        options.max_wide_connections,
        mebibytes(dataplane.connections().bytes())
    );
    if options.full_nat_ports > 0 {
        tracing::info!(
            "own ports of full-nat backends: {}, {}",
            options.full_nat_ports,
            mebibytes(dataplane.own_ports_bytes())
        );
    }
}

/// The least MTU of the interfaces that packets leave by: those that the program is attached to, and those that lead to
/// backends. 0, which makes the program look each packet's up, if one is not to be had.
fn smallest_mtu(interfaces: &[String], entries: &[ServiceEntry]) -> u32 {
    let backends = entries.iter().flat_map(|service| &service.backends);
    let indexes: BTreeSet<_> = backends
        .filter_map(|backend| Some(backend.next_hop?.interface_index))
        .collect();
    let ways_out = indexes
        .into_iter()
        .map(|index| nix::net::if_::if_indextoname(index).map(|name| name.to_string_lossy().into_owned()));
    let names = interfaces.iter().cloned().map(Ok).chain(ways_out);
    let mtus: Result<Vec<_>, std::io::Error> = names.map(|name| mtu(&name?)).collect();
    mtus.ok().and_then(|mtus| mtus.into_iter().min()).unwrap_or(0)
}

/// Addresses and ports by the names of service and backend.
fn endpoints(config: &Config) -> HashMap<(&str, &str), SocketAddr> {
    let mut endpoints = HashMap::new();
    for service in &config.services {
        for backend in &service.backends {
            endpoints.insert((service.name.as_str(), backend.name.as_str()), backend.endpoint());
        }
    }
    endpoints
}

/// The VIPs of services that are only here for their last connections.
fn leaving_vips(identities: &Identities) -> BTreeSet<IpAddr> {
    let leaving = identities.services().filter(|(_, service)| service.leaving);
    leaving.map(|(key, _)| key.vip).collect()
}

/// What is to be probed: each server by its own address, whatever the mode; so a probe of a `dsr` or `ipip` service does not
/// tell whether the server has the VIP.
fn targets(config: &Config) -> Vec<Target> {
    let of_service = |service: &crate::config::Service| {
        let check = service.health.clone()?;
        Some(
            service
                .backends
                .iter()
                .map({
                    let service = service.name.clone();
                    move |backend| Target {
                        id: TargetId {
                            service: service.clone(),
                            backend: backend.name.clone(),
                        },
                        address: backend.endpoint(),
                        check: check.clone(),
                    }
                })
                .collect::<Vec<_>>(),
        )
    };
    config.services.iter().filter_map(of_service).flatten().collect()
}
