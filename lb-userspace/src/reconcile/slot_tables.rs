//! The slots of every service, and those before the last change of a service that hashes: packets from the middle of a
//! connection that is not remembered go where both agree, or where they went before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Scheduler;
use crate::scheduling::{self, Candidate};

/// By service number.
#[derive(Debug, Clone, Default)]
pub struct SlotTables(HashMap<u16, Slots>);

/// The slots of one service.
#[derive(Debug, Clone)]
struct Slots {
    scheduler: Scheduler,
    /// What the present ones are made of; `None`: nobody knows any more.
    candidates: Option<Vec<Candidate>>,
    present: Arc<[u16]>,
    /// The last ones that were not empty: the present ones, if they are not.
    last: Arc<[u16]>,
    /// Those before; empty: none, or not worth asking, since the service does not hash.
    previous: Arc<[u16]>,
}

impl SlotTables {
    /// Those that are in force, as an earlier daemon has left them: of a service that hashes, its scheduler, the present slots and
    /// the previous ones.
    pub fn known(&mut self, number: u16, scheduler: Scheduler, present: &[u16], previous: &[u16]) {
        let last = if present.is_empty() { previous } else { present };
        let slots = Slots {
            scheduler,
            candidates: None,
            present: present.into(),
            last: last.into(),
            previous: previous.into(),
        };
        self.0.insert(number, slots);
    }

    /// The slots of a service, present and previous, that follow from what they are made of and from those that it had in
    /// `before`. What is made of the same is not made again: that takes a millisecond for a large table.
    pub fn make(
        &mut self,
        before: &Self,
        number: u16,
        scheduler: Scheduler,
        candidates: Vec<Candidate>,
    ) -> (Vec<u16>, Vec<u16>) {
        let before = before.0.get(&number).filter(|it| it.scheduler == scheduler);
        let slots = match before {
            Some(same) if same.candidates.as_ref() == Some(&candidates) => same.clone(),
            _ => Slots::make(before, scheduler, candidates),
        };
        let made = (slots.present.to_vec(), slots.previous.to_vec());
        self.0.insert(number, slots);
        made
    }
}

impl Slots {
    fn make(before: Option<&Self>, scheduler: Scheduler, candidates: Vec<Candidate>) -> Self {
        let present: Arc<[u16]> = scheduling::slots(scheduler, &candidates).into();
        let mut slots = Self {
            scheduler,
            candidates: Some(candidates),
            last: present.clone(),
            present,
            previous: Arc::default(),
        };
        if let Some(before) = before.filter(|_| scheduler.hashes()) {
            if slots.present.is_empty() {
                slots.last = before.last.clone();
            }
            slots.previous = if slots.last == before.last {
                before.previous.clone()
            } else {
                before.last.clone()
            };
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(shares: &[u16]) -> Vec<Candidate> {
        (1..)
            .zip(shares)
            .map(|(id, share)| Candidate {
                id,
                endpoint: ([198, 18, 1, id as u8], 443).into(),
                share: *share,
            })
            .collect()
    }

    /// One after the other; what comes of the last.
    fn after(steps: &[(Scheduler, &[u16])]) -> (Vec<u16>, Vec<u16>) {
        let mut tables = SlotTables::default();
        let mut made = Default::default();
        for (scheduler, shares) in steps {
            let mut next = SlotTables::default();
            made = next.make(&tables, 1, *scheduler, candidates(shares));
            tables = next;
        }
        made
    }

    #[test]
    fn a_service_that_hashes_keeps_those_before_the_last_change() {
        use Scheduler::{Maglev, RoundRobin, SourceHash};
        let table = |shares| scheduling::slots(Maglev, &candidates(shares));
        let (both, one) = (table(&[1, 1]), table(&[1, 0]));
        assert_eq!(after(&[(Maglev, &[1, 1])]), (both.clone(), vec![]));
        assert_eq!(
            after(&[(Maglev, &[1, 1]), (Maglev, &[1, 1])]),
            (both.clone(), vec![])
        );
        let down = [(Maglev, &[1, 1][..]), (Maglev, &[1, 0])];
        assert_eq!(after(&down), (one.clone(), both.clone()));
        let and_nothing = [&down[..], &[(Maglev, &[1, 0])]].concat();
        assert_eq!(after(&and_nothing), (one.clone(), both.clone()), "no change");
        let all_down = [&down[..], &[(Maglev, &[0, 0])]].concat();
        assert_eq!(after(&all_down), (vec![], both.clone()));
        let back = [&all_down[..], &[(Maglev, &[1, 1])]].concat();
        assert_eq!(
            after(&back),
            (both.clone(), one.clone()),
            "while all were down nothing went anywhere"
        );
        let same_back = [&all_down[..], &[(Maglev, &[1, 0])]].concat();
        assert_eq!(after(&same_back), (one.clone(), both.clone()));
        assert_eq!(
            after(&[(RoundRobin, &[1, 1]), (RoundRobin, &[1, 0])]),
            (vec![1], vec![]),
            "it does not hash"
        );
        // What a daemon finds that begins anew.
        for (shares, expected) in [(&[1, 0][..], &both), (&[1, 1], &one)] {
            let mut found = SlotTables::default();
            found.known(1, Maglev, &one, &both);
            let (_, previous) = SlotTables::default().make(&found, 1, Maglev, candidates(shares));
            assert_eq!(previous, *expected);
        }
        let other = [(SourceHash, &[1, 1][..]), (Maglev, &[1, 0])];
        assert_eq!(after(&other).1, [] as [u16; 0], "another hash chose by those");
    }
}
