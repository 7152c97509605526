//! How identities are written down.

/// Maps whose keys are no strings, as lists of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::reconcile) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(in crate::reconcile) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Vec::<(K, V)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}

/// Counters, in the order of their declaration.
pub(super) mod counters {
    use lb_common::abi::BackendCounters;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::reconcile) fn serialize<S: Serializer>(
        counters: &BackendCounters,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let BackendCounters {
            opened,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
        } = *counters;
        [opened, packets_in, bytes_in, packets_out, bytes_out].serialize(serializer)
    }

    pub(in crate::reconcile) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BackendCounters, D::Error> {
        let [opened, packets_in, bytes_in, packets_out, bytes_out] = <[u64; 5]>::deserialize(deserializer)?;
        Ok(BackendCounters {
            opened,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
        })
    }
}
