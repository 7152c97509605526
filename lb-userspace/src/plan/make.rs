//! From before and after to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::Choice;
use lb_common::hash::Seed;

use super::draft::Drafts;
use super::live::{Live, Pair};
use super::slots::Slots;
use super::{Effect, Fate, Impact, Plan, Remap, Step, Subject, backends, fates, services, vips};
use crate::api::types::BackendState;
use crate::config::{Backend, Service, Site};
use crate::dataplane::{Connection, ServiceEntry};
use crate::desired_state::DesiredService;
use crate::moment::Moment;
use crate::reconcile::{BackendKey, Identities, ServiceKey};

/// All that is, or is to be.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// Services with their backends, and what these do.
    pub desired: &'a [DesiredService],
    /// The site.
    pub site: Option<&'a Site>,
    /// Who has which number.
    pub identities: &'a Identities,
    /// What the kernel's tables hold.
    pub entries: &'a [ServiceEntry],
}

/// What it comes to: a new backend gets nothing before its first probe has succeeded, and has no slots until then.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// What the kernel's tables would have come to hold, had nothing been changed, once all that are not probed yet are up.
    pub before: &'a [ServiceEntry],
    /// The same with the change.
    pub after: &'a [ServiceEntry],
    /// Those of them that come by the change, by service: `www`, `web3`.
    pub awaited: &'a [(String, String)],
}

impl State<'_> {
    /// The id of a backend of a service.
    pub(super) fn id(&self, service: &Service, backend: &Backend) -> Option<u16> {
        let identity = self.identities.service(&ServiceKey::of(service))?;
        let key = BackendKey::of(service, backend)?;
        Some(identity.backends.get(&key)?.id)
    }

    /// Those of all backends that a service has, or still has.
    pub(super) fn ids(&self, service: &Service) -> Vec<u16> {
        let identity = self.identities.service(&ServiceKey::of(service));
        let backends = identity.iter().flat_map(|identity| identity.backends.values());
        backends.map(|backend| backend.id).collect()
    }

    /// What each backend does, and until when it drains, by id.
    pub(super) fn states(&self) -> BTreeMap<u16, (BackendState, Option<Moment>)> {
        let mut states = BTreeMap::new();
        for desired in self.desired {
            for (backend, does) in desired.service.backends.iter().zip(&desired.backends) {
                if let Some(id) = self.id(&desired.service, backend) {
                    states.insert(id, (does.state, does.drain_until));
                }
            }
        }
        states
    }

    /// When what is left of the connections of a backend is reset, by id.
    pub(super) fn deadlines(&self) -> BTreeMap<u16, Moment> {
        let mut deadlines = BTreeMap::new();
        for desired in self.desired {
            for (backend, does) in desired.service.backends.iter().zip(&desired.backends) {
                if let (Some(id), Some(until)) = (self.id(&desired.service, backend), does.drain_until) {
                    deadlines.insert(id, until);
                }
            }
        }
        let backends = self
            .identities
            .services()
            .flat_map(|(_, it)| it.backends.values());
        let leaving = backends.filter_map(|backend| Some((backend.id, backend.parting?.reset_at?)));
        deadlines.extend(leaving);
        deadlines
    }

    /// `www/web1`, by id.
    fn titles(&self) -> BTreeMap<u16, String> {
        let services = self.identities.services();
        let all = services.flat_map(|(_, service)| service.backends.values().map(move |it| (service, it)));
        all.map(|(service, it)| (it.id, format!("{}/{}", service.name, it.name)))
            .collect()
    }
}

/// What the step from one state to another does. Connections are asked for only if any may be touched; `seed` is that of the
/// choice by hashing.
pub fn make<C: Iterator<Item = Connection>>(
    before: State<'_>,
    after: State<'_>,
    outlook: Outlook<'_>,
    now: Moment,
    seed: u64,
    connections: impl FnOnce() -> Option<C>,
) -> Plan {
    let pairs = services::Pairs::of(before.desired, after.desired);
    let remaps = remapped(outlook.before, outlook.after);
    let mut drafts = Drafts::default();
    for (was, is) in &pairs.present {
        match was {
            Some(was) => services::changed(&before, &was.service, &is.service, &mut drafts),
            None => services::added(&is.service, &mut drafts),
        }
        backends::changed(&before, *was, is, &mut drafts);
        if let Some(step) = remap(&after, &is.service, &remaps, outlook.awaited) {
            drafts.explaining(Subject::Service, &step.name, step.change, []);
            if let Some(draft) = drafts.0.last_mut() {
                draft.step.remap = step.remap;
            }
        }
    }
    for service in &pairs.removed {
        services::removed(&before, &service.service, &mut drafts);
    }
    let unreached = vips::steps(before.desired, after.desired, &mut drafts);
    site(before.site, after.site, &mut drafts);
    let fates = fates::fates(&before, &after, now);

    let touches = !fates.is_empty() || !remaps.is_empty() || !unreached.is_empty();
    let seed = Seed::new(seed);
    let counted = if touches { connections() } else { None };
    let live = counted.map_or_else(Live::none, |connections| Live::count(connections, &remaps, &seed));

    let mut impact = Impact {
        connections: live.all,
        ..Impact::default()
    };
    befall(&before, fates, &live, &mut drafts, &mut impact);
    take_off(&before, &unreached, &live, &mut drafts, &mut impact);
    let mut steps: Vec<_> = drafts.0.into_iter().map(|draft| draft.step).collect();
    let forgotten = forgotten(&before, &after);
    for step in &mut steps {
        fill_in(step, &after, &live, &forgotten, &mut impact);
    }
    Plan { steps, impact }
}

/// Gives each fate to the step that explains it, or, if none does, to one of its own.
fn befall(
    before: &State<'_>,
    fates: BTreeMap<u16, Effect>,
    live: &Live,
    drafts: &mut Drafts,
    impact: &mut Impact,
) {
    let titles = before.titles();
    for (id, effect) in fates {
        let effect = Effect {
            connections: live.of_backend(id),
            ..effect
        };
        impact.add(effect.fate, effect.connections);
        if drafts.explanation(id).is_none() && effect.connections > 0 {
            let title = titles.get(&id).map_or("", String::as_str);
            let change = match effect.fate {
                Fate::Cut => "makes way",
                Fate::Drain => "leaves",
                Fate::Reset if is_leaving(before, id) => "its time to drain is over",
                _ => "is down",
            };
            drafts.explaining(Subject::Backend, title, change, [id]);
        }
        if let Some(draft) = drafts.explanation(id) {
            note(&mut draft.step.effects, effect);
        }
    }
    for draft in &mut drafts.0 {
        // That there is nothing to stay is nothing to tell; that nothing is in the way of a removal is.
        let one_of_several = draft.step.effects.len() > 1;
        draft
            .step
            .effects
            .retain(|it| it.connections > 0 || !one_of_several && it.fate != Fate::Stay);
    }
}

fn is_leaving(state: &State<'_>, id: u16) -> bool {
    let mut backends = state
        .identities
        .services()
        .flat_map(|(_, it)| it.backends.values());
    backends.any(|backend| backend.id == id && backend.leaving)
}

/// Effects of the same kind are one.
fn note(effects: &mut Vec<Effect>, effect: Effect) {
    let same = |it: &&mut Effect| (it.fate, it.reset_in_seconds) == (effect.fate, effect.reset_in_seconds);
    match effects.iter_mut().find(same) {
        Some(known) => known.connections += effect.connections,
        None => effects.push(effect),
    }
}

/// Connections to VIPs that are taken off while their services stay.
fn take_off(before: &State<'_>, unreached: &[IpAddr], live: &Live, drafts: &mut Drafts, impact: &mut Impact) {
    for vip in unreached {
        let services = before.entries.iter().filter(|service| service.vip == *vip);
        let connections = services.map(|service| live.of_service(service.number).all).sum();
        impact.add(Fate::Unreached, connections);
        let name = vip.to_string();
        let step = drafts.0.iter_mut().map(|draft| &mut draft.step);
        if let Some(step) = step
            .into_iter()
            .find(|step| step.subject == Subject::Vip && step.name == name)
        {
            step.effects.push(Effect {
                connections,
                fate: Fate::Unreached,
                reset_in_seconds: None,
            });
        }
    }
}

/// Fills in what was counted of a service's slots.
fn fill_in(step: &mut Step, after: &State<'_>, live: &Live, forgotten: &BTreeSet<u16>, impact: &mut Impact) {
    let Some(remap) = &mut step.remap else { return };
    let desired = after.desired.iter().find(|it| it.service.name == step.name);
    let identity = desired.and_then(|it| after.identities.service(&ServiceKey::of(&it.service)));
    let Some(number) = identity.map(|identity| identity.number) else {
        return;
    };
    let of = live.of_service(number);
    (remap.connections, remap.elsewhere, remap.elsewhere_before) =
        (of.all, of.elsewhere, of.elsewhere_before);
    impact.move_without_state += of.elsewhere;
    if forgotten.contains(&number) {
        // Not only would: from now on nothing is remembered of them.
        impact.add(Fate::Move, of.elsewhere);
        step.effects.push(Effect {
            connections: of.elsewhere,
            fate: Fate::Move,
            reset_in_seconds: None,
        });
    }
}

/// Services, by number, that remember nothing any more.
fn forgotten(before: &State<'_>, after: &State<'_>) -> BTreeSet<u16> {
    let stateless = |state: &State<'_>| -> BTreeSet<u16> {
        let services = state.entries.iter().filter(|service| service.stateless);
        services.map(|service| service.number).collect()
    };
    let before = stateless(before);
    stateless(after).difference(&before).copied().collect()
}

/// The slots of services that choose by hashing, before or after, where they are others than before, or begin to be all that
/// counts; by number.
fn remapped<'a>(before: &'a [ServiceEntry], after: &'a [ServiceEntry]) -> BTreeMap<u16, Pair<'a>> {
    let was: BTreeMap<_, _> = before.iter().map(|service| (service.number, service)).collect();
    let hashes = |service: &ServiceEntry| matches!(service.choice, Choice::Hash | Choice::Source);
    let mut remapped = BTreeMap::new();
    for is in after.iter().filter(|service| !service.leaving) {
        let Some(was) = was.get(&is.number) else { continue };
        let same = was.slots == is.slots && was.choice == is.choice && was.stateless == is.stateless;
        if same || !(hashes(was) || hashes(is)) {
            continue;
        }
        let pair = (Slots::of(&was.slots, was.choice), Slots::of(&is.slots, is.choice));
        if let (Some(before), Some(after)) = pair {
            remapped.insert(is.number, Pair { before, after });
        }
    }
    remapped
}

/// The step about a service's slots; the counts come later.
fn remap(
    after: &State<'_>,
    service: &Service,
    remaps: &BTreeMap<u16, Pair<'_>>,
    awaited: &[(String, String)],
) -> Option<Step> {
    let number = after.identities.service(&ServiceKey::of(service))?.number;
    let pair = remaps.get(&number)?;
    let of_service = awaited.iter().filter(|(name, _)| *name == service.name);
    let remap = Remap {
        slots_before: pair.before.len(),
        slots_after: pair.after.len(),
        changed_ppm: pair.after.differ(pair.before),
        connections: 0,
        elsewhere: 0,
        elsewhere_before: 0,
        stateless: service.stateless,
        once_up: of_service.map(|(_, backend)| backend.clone()).collect(),
    };
    let mut step = Step::new(Subject::Service, &service.name, remap.change());
    step.remap = Some(remap);
    Some(step)
}

fn site(before: Option<&Site>, after: Option<&Site>, drafts: &mut Drafts) {
    let change = match (before, after) {
        (None, Some(_)) => "added; hand it to the web servers with `lbctl site apply`",
        (Some(_), None) => "removed; the web servers keep what they have",
        (Some(was), Some(is)) if was != is => "changed; hand it to the web servers with `lbctl site apply`",
        _ => return,
    };
    drafts.add(Subject::Site, "", change);
}

impl Impact {
    fn add(&mut self, fate: Fate, connections: u64) {
        *match fate {
            Fate::Stay => &mut self.stay,
            Fate::Drain => &mut self.drain,
            Fate::Reset => &mut self.reset,
            Fate::Move => &mut self.moved,
            Fate::Cut => &mut self.cut,
            Fate::Unreached => &mut self.unreached,
        } += connections;
    }
}
