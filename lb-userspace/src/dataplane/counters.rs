//! What the program counted, summed over CPUs.

use aya::maps::{MapData, PerCpuArray};
use lb_common::abi::{BackendCounters, Evictions};
use lb_common::outcome::{OUTCOMES, Outcome};

use super::DataplaneError;

/// The counter maps.
pub struct Counters {
    outcomes: PerCpuArray<MapData, u64>,
    backends: PerCpuArray<MapData, [u64; 5]>,
    evictions: PerCpuArray<MapData, [u64; 3]>,
}

impl Counters {
    pub(super) fn new(
        outcomes: PerCpuArray<MapData, u64>,
        backends: PerCpuArray<MapData, [u64; 5]>,
        evictions: PerCpuArray<MapData, [u64; 3]>,
    ) -> Self {
        const { assert!(size_of::<BackendCounters>() == size_of::<[u64; 5]>()) };
        const { assert!(size_of::<Evictions>() == size_of::<[u64; 3]>()) };
        Self {
            outcomes,
            backends,
            evictions,
        }
    }

    /// Half-open connections that had to make room before their timeout, since the program was loaded.
    ///
    /// # Errors
    /// The kernel does not let us read the map.
    pub fn evicted(&self) -> Result<u64, DataplaneError> {
        let values = self.evictions.get(&0, 0).map_err(unreadable("EVICTIONS"))?;
        Ok(values.iter().map(|[all, ..]| all).sum())
    }

    /// Packets by outcome, in the program's order.
    ///
    /// # Errors
    /// The kernel does not let us read the map.
    pub fn outcomes(&self) -> Result<Vec<(Outcome, u64)>, DataplaneError> {
        OUTCOMES
            .iter()
            .map(|outcome| {
                let values = self
                    .outcomes
                    .get(&(*outcome as u32), 0)
                    .map_err(unreadable("OUTCOME_COUNTERS"))?;
                Ok((*outcome, values.iter().sum()))
            })
            .collect()
    }

    /// The counters of a backend id, since the program was loaded.
    ///
    /// # Errors
    /// The kernel does not let us read the map.
    pub fn backend(&self, id: u16) -> Result<BackendCounters, DataplaneError> {
        let values = self
            .backends
            .get(&u32::from(id), 0)
            .map_err(unreadable("BACKEND_COUNTERS"))?;
        let mut sum = [0u64; 5];
        for cpu in values.iter() {
            for (total, value) in sum.iter_mut().zip(cpu) {
                *total += value;
            }
        }
        let [opened, packets_in, bytes_in, packets_out, bytes_out] = sum;
        Ok(BackendCounters {
            opened,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
        })
    }
}

fn unreadable(map: &'static str) -> impl Fn(aya::maps::MapError) -> DataplaneError {
    move |error| DataplaneError::Map {
        map,
        reason: error.to_string(),
    }
}
