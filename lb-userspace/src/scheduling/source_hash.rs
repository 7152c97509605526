//! Source hash: a Maglev table, of which the program takes the slot that the hash of the client's address alone gives. All
//! connections of a client go to one backend; and of services with the same servers to the same server, if their ports or
//! their differing weights are not part of what the tables are made of: hence the permutations are those of the servers'
//! addresses.

use super::{Candidate, maglev};

/// The same for services that have the same servers, whatever the ports.
pub(super) fn slots(candidates: &[Candidate]) -> Vec<u16> {
    let of_address = |it: &Candidate| Candidate {
        endpoint: (it.endpoint.ip(), 0).into(),
        ..*it
    };
    maglev::slots(&candidates.iter().map(of_address).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::candidates;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// http and https land on the same server: the two tables lead to the same addresses.
        #[test]
        fn ports_do_not_matter(shares in prop::collection::vec(0u16..=3, 1..12), port: u16, backwards: bool) {
            let https = candidates(&shares);
            let mut http: Vec<_> = https
                .iter()
                .map(|it| Candidate {
                    id: it.id + 100,
                    endpoint: (it.endpoint.ip(), port).into(),
                    ..*it
                })
                .collect();
            if backwards {
                http.reverse();
            }
            let moved: Vec<_> = slots(&https).iter().map(|id| id + 100).collect();
            prop_assert_eq!(slots(&http), moved);
        }
    }
}
