//! Small exact-match tables that user space builds and the program reads: which service a VIP's port belongs to, which
//! backends an endpoint belongs to.
//!
//! A key lies in exactly one bucket of four, a cache line, whose multiplier the builder chooses such that no bucket overflows.
//! So the program's work is one line and four compares, hit or miss.

#[cfg(not(target_arch = "bpf"))]
use alloc::vec::Vec;
use core::num::NonZeroU64;

#[cfg(not(target_arch = "bpf"))]
use crate::hash::Seed;

/// Entries of a bucket.
pub const ENTRIES: usize = 4;

/// A cache line of entries; unused ones have key 0, which no key is.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookupBucket {
    keys: [u64; ENTRIES],
    values: [u64; ENTRIES],
}

/// The key of an IPv4 endpoint; address and port as in the packet. Never 0.
#[inline(always)]
pub fn ipv4_endpoint(address: u32, port: u16, protocol: u8) -> u64 {
    u64::from(address) | u64::from(port) << 32 | u64::from(protocol) << 48 | 1 << 56
}

/// The key of an IPv6 endpoint; address and port as in the packet. Never 0, and never that of an IPv4 endpoint.
///
/// It is a hash: endpoints of one address never have the same one, those of different addresses with a probability of 2^-63, or
/// if somebody makes them so. Whoever finds something by it therefore compares the whole address with the record that is found.
#[inline(always)]
pub fn ipv6_endpoint(address: [u64; 2], port: u16, protocol: u8) -> u64 {
    let [low, high] = address;
    let mut mixed = low.wrapping_mul(FINGERPRINT[0]);
    mixed = (mixed ^ mixed >> 32).wrapping_mul(FINGERPRINT[1]);
    mixed = (mixed ^ high).wrapping_mul(FINGERPRINT[0]);
    let endpoint = u64::from(port) | u64::from(protocol) << 16;
    (mixed ^ mixed >> 32).wrapping_add(endpoint) | 1 << 63
}

/// Odd, with as many ones as zeros.
const FINGERPRINT: [u64; 2] = [0x9e6c_63d0_876a_9a47, 0xb492_b66f_be98_f273];

/// The index of a key's bucket; `mask` is the number of buckets, a power of two of at most 65,536, less one.
///
/// Each multiplier is another odd number, so that keys that meet by one do not by the next. The bits that count are the
/// product's highest, which every bit of a key has a part in: endpoints may differ in nothing but the protocol.
#[inline(always)]
pub fn bucket_index(multiplier: u64, key: u64, mask: u32) -> u32 {
    (key.wrapping_mul(multiplier) >> 48) as u32 & mask
}

impl LookupBucket {
    /// The value of a key; no value is 0.
    #[inline(always)]
    pub fn find(&self, key: u64) -> Option<NonZeroU64> {
        for i in 0..ENTRIES {
            if self.keys[i] == key {
                return NonZeroU64::new(self.values[i]);
            }
        }
        None
    }
}

/// A table as the builder made it.
#[cfg(not(target_arch = "bpf"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupTable {
    /// Odd, and chosen such that no bucket overflows.
    pub multiplier: u64,
    /// A power of two of them.
    pub buckets: Vec<LookupBucket>,
}

/// Why no table could be built.
#[cfg(not(target_arch = "bpf"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildError {
    /// The same key twice.
    DuplicateKey(u64),
    /// No multiplier was found with this many buckets.
    TooManyEntries {
        /// Entries asked for.
        entries: usize,
        /// Buckets there may be.
        max_buckets: usize,
    },
}

#[cfg(not(target_arch = "bpf"))]
impl LookupTable {
    /// Builds a table of at most `max_buckets` (a power of two) buckets, as small as a cache likes it: at most two
    /// entries a bucket on average.
    ///
    /// # Errors
    /// A key that occurs twice, or more entries than fit.
    pub fn build(entries: &[(u64, u64)], max_buckets: usize) -> Result<Self, BuildError> {
        let mut keys: Vec<u64> = entries.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BuildError::DuplicateKey(pair[0]));
        }
        let mut size = entries.len().div_ceil(2).next_power_of_two().min(max_buckets);
        loop {
            // A larger table is slower to look up, but where there is none, patience helps.
            let attempts = if size < max_buckets { 32 } else { 256 };
            for attempt in 0..attempts {
                let multiplier = Seed::new(attempt).hash(&[size as u64]) | 1;
                if let Some(buckets) = Self::place(entries, size, multiplier) {
                    return Ok(Self { multiplier, buckets });
                }
            }
            size *= 2;
            if size > max_buckets {
                return Err(BuildError::TooManyEntries {
                    entries: entries.len(),
                    max_buckets,
                });
            }
        }
    }

    fn place(entries: &[(u64, u64)], size: usize, multiplier: u64) -> Option<Vec<LookupBucket>> {
        let mut buckets = alloc::vec![LookupBucket::default(); size];
        for &(key, value) in entries {
            let bucket = buckets.get_mut(bucket_index(multiplier, key, (size - 1) as u32) as usize)?;
            let free = bucket.keys.iter().position(|k| *k == 0)?;
            bucket.keys[free] = key;
            bucket.values[free] = value;
        }
        Some(buckets)
    }

    /// The number of buckets less one.
    pub fn mask(&self) -> u32 {
        (self.buckets.len() - 1) as u32
    }

    /// The value of a key, found the way the program finds it.
    pub fn find(&self, key: u64) -> Option<u64> {
        self.buckets
            .get(bucket_index(self.multiplier, key, self.mask()) as usize)?
            .find(key)
            .map(NonZeroU64::get)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn finds_what_was_put_in_and_nothing_else(
            entries in prop::collection::hash_map(1u64.., 1u64.., 0..300),
            others in prop::collection::vec(1u64.., 100),
        ) {
            let list: Vec<_> = entries.clone().into_iter().collect();
            let table = LookupTable::build(&list, 8192).unwrap();
            for (key, value) in &list {
                prop_assert_eq!(table.find(*key), Some(*value));
            }
            for key in others {
                prop_assert_eq!(table.find(key), entries.get(&key).copied());
            }
        }
    }

    #[test]
    fn four_thousand_endpoints_in_a_row_fit() {
        let entries: Vec<_> = (0..4096u32)
            .map(|i| {
                (
                    ipv4_endpoint((0xc612_0000 + i / 4).to_be(), (443 + i as u16 % 4).to_be(), 6),
                    u64::from(i) + 1,
                )
            })
            .collect();
        let table = LookupTable::build(&entries, 8192).unwrap();
        assert!(
            entries
                .iter()
                .all(|(key, value)| table.find(*key) == Some(*value))
        );
    }

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    fn vip(last: u8) -> u32 {
        u32::from_ne_bytes([203, 0, 113, last])
    }

    fn builds(purpose: &str, keys: impl IntoIterator<Item = u64>) {
        let entries: Vec<_> = keys.into_iter().zip(1u64..).collect();
        let table = LookupTable::build(&entries, 4096);
        let table = table.unwrap_or_else(|error| panic!("{purpose}: {error:?}"));
        for (key, value) in &entries {
            assert_eq!(table.find(*key), Some(*value), "{purpose}");
        }
    }

    /// Each bit of a key counts, or all that differ in nothing else would lie in one bucket, whatever the multiplier.
    #[test]
    fn services_of_one_vip_fit_whatever_their_ports() {
        let endpoint = |port: u16, protocol| ipv4_endpoint(vip(10), port.to_be(), protocol);
        let steps = [1, 2, 3, 10, 16, 64, 100, 256, 1000, 4096];
        for step in steps {
            for count in [5, 16, 100, 1024] {
                let ports = (0..count).map(|i: u16| 1000u16.wrapping_add(i.wrapping_mul(step)));
                let ports: std::collections::BTreeSet<_> = ports.collect();
                let both = ports
                    .iter()
                    .flat_map(|port| [endpoint(*port, TCP), endpoint(*port, UDP)]);
                builds(&format!("{count} ports {step} apart, both protocols"), both);
                let wide = ports
                    .iter()
                    .map(|port| ipv6_endpoint([0xb80d_0120, 1], port.to_be(), TCP));
                builds(&format!("{count} ports {step} apart, IPv6"), wide);
            }
        }
        builds(
            "every protocol of one port",
            (0..=255).map(|protocol| endpoint(443, protocol)),
        );
        builds(
            "one port of many VIPs",
            (0..1024u32).map(|i| ipv4_endpoint((0xc612_0000 + i).to_be(), 443u16.to_be(), TCP)),
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_1024_services_of_a_few_vips_fit(
            services in prop::collection::hash_set((0u8..3, any::<u16>(), prop::sample::select(vec![TCP, UDP])), 1024),
        ) {
            let keys = services
                .iter()
                .map(|(last, port, protocol)| ipv4_endpoint(vip(*last), *port, *protocol));
            builds("random services", keys);
        }
    }

    #[test]
    fn refuses_what_it_cannot_build() {
        assert_eq!(
            LookupTable::build(&[(5, 1), (5, 2)], 16),
            Err(BuildError::DuplicateKey(5))
        );
        let many: Vec<_> = (1..100).map(|i| (i, i)).collect();
        assert!(matches!(
            LookupTable::build(&many, 16),
            Err(BuildError::TooManyEntries { entries: 99, .. })
        ));
    }

    #[test]
    fn an_empty_table_has_a_bucket_and_no_entries() {
        let table = LookupTable::build(&[], 16).unwrap();
        assert_eq!(table.buckets.len(), 1);
        assert_eq!(table.find(1), None);
    }
}
