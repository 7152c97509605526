//! The VIPs that `manage_vip` makes ours: on the interface from the first start until `--cleanup`, announced to the neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Service;
use crate::task::OwnedTask;
use crate::vip::{self, VipError};

/// A second announcement, in case the first was lost (RFC 5227 section 2.3).
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);

/// VIPs with their interfaces.
#[derive(Debug, Default)]
pub(super) struct Vips {
    present: BTreeSet<(IpAddr, String)>,
    /// What an earlier daemon has left, of which nobody has looked yet whether it is wanted.
    earlier: BTreeSet<(IpAddr, String)>,
    announcement: Option<OwnedTask>,
}

impl Vips {
    /// Those that an earlier daemon has left.
    pub(super) fn left(earlier: impl IntoIterator<Item = (IpAddr, String)>) -> Self {
        Self {
            earlier: earlier.into_iter().collect(),
            ..Self::default()
        }
    }

    /// All that are, or may be, on their interfaces because of us, together with those of these services.
    pub(super) fn with(&self, services: &[Service]) -> Vec<(IpAddr, String)> {
        let mut all: BTreeSet<_> = self.present.union(&self.earlier).cloned().collect();
        all.extend(managed(services));
        all.into_iter().collect()
    }

    /// Makes the managed VIPs of these services the ones that are on their interfaces: new ones first. Those of services
    /// that are `leaving` stay where they are, since the connections that are left need them.
    ///
    /// # Errors
    /// The kernel refuses one; all is as it was before.
    pub(super) async fn set(
        &mut self,
        services: &[Service],
        leaving: &BTreeSet<IpAddr>,
    ) -> Result<(), VipError> {
        let mut wanted: BTreeSet<_> = managed(services).collect();
        let served: BTreeSet<_> = services.iter().map(|service| service.vip).collect();
        let last_ones =
            |(address, _): &&(IpAddr, String)| leaving.contains(address) && !served.contains(address);
        let ours_before = self.present.union(&self.earlier);
        wanted.extend(ours_before.filter(last_ones).cloned());
        let mut ours = Vec::new();
        for (address, interface) in wanted.difference(&self.present) {
            match vip::add(*address, interface).await {
                Ok(added) => {
                    tracing::info!(vip = %address, interface, ours = added.is_ours(), "VIP is on the interface");
                    if added.is_ours() {
                        ours.push((*address, interface.clone()));
                    }
                }
                Err(error) => {
                    take_off(&ours).await;
                    return Err(error);
                }
            }
        }
        let ours_before = self.present.union(&self.earlier);
        let old: Vec<_> = ours_before.filter(|vip| !wanted.contains(vip)).cloned().collect();
        take_off(&old).await;
        self.earlier.clear();
        self.present = wanted;
        if !ours.is_empty() {
            announce(&ours);
            self.announcement = Some(OwnedTask::spawn(async move {
                tokio::time::sleep(ANNOUNCE_AGAIN).await;
                announce(&ours);
            }));
        }
        Ok(())
    }
}

/// Those that services want, with their interfaces.
fn managed(services: &[Service]) -> impl Iterator<Item = (IpAddr, String)> {
    services
        .iter()
        .filter_map(|service| Some((service.vip, service.manage_vip.clone()?)))
}

fn announce(vips: &[(IpAddr, String)]) {
    for (address, interface) in vips {
        if let Err(error) = vip::announce(*address, interface) {
            tracing::warn!(vip = %address, interface, %error, "cannot announce the VIP to its neighbours");
        }
    }
}

/// Leaves alone what somebody else put there; see [`vip::remove`].
pub(super) async fn take_off(vips: &[(IpAddr, String)]) {
    for (address, interface) in vips {
        match vip::remove(*address, interface).await {
            Ok(true) => tracing::info!(vip = %address, interface, "VIP taken off the interface"),
            Ok(false) => {}
            Err(error) => tracing::warn!(vip = %address, interface, %error, "cannot take the VIP off"),
        }
    }
}
