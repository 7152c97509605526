//! What is particular to TCP over IPv4 in `nat` mode: the oldest and the most used way. (The rest is in `matrix`.)

use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::kind::NAT;
use crate::talk::Talk;
use crate::world::{CLIENT, World, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::of(
            NAT.cell(),
            "nat::direct_access_from_a_port_that_was_balanced",
            direct_access,
        ),
        Case::of(NAT.cell(), "nat::every_value_that_a_checksum_can_have", checksums),
    ]
}

/// Once its connection is over, the client may use the port to talk to the same server past the VIP.
fn direct_access() -> anyhow::Result<usize> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    let accepted = talk.backend_sends().syn().ack();
    let ends = [
        [talk.client_sends().ack().fin(), talk.client_sends().ack()],
        [talk.client_sends().ack().fin(), talk.client_sends().rst()],
    ];
    for ends in ends {
        world.establish(&talk)?;
        world.answer("a SYN-ACK while it lasts", &talk, accepted.clone())?;
        world.answer("the backend's end", &talk, talk.backend_sends().ack().fin())?;
        for end in ends {
            world.forward("the client's end", &talk, end)?;
        }
        for frame in [accepted.clone(), talk.backend_sends().ack().payload(b"direct")] {
            world.unchanged("direct", Outcome::NoConnection, &frame)?;
        }
    }
    world.open("balanced again", &talk)?;
    Ok(world.checked())
}

/// Every value of one payload word: among them are those for which the checksum, before or after, is 0x0000 or the sum
/// carries all the way around.
fn checksums() -> anyhow::Result<usize> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    for word in 0..=u16::MAX {
        let frame = talk.client_sends().ack().payload(&word.to_be_bytes());
        let (_, seen) = world.pass(&frame.bytes())?;
        assert_eq!(seen, talk.at_backend(&frame).bytes(), "{word:04x}");
        if word % 4 == 0 {
            let frame = talk.backend_sends().ack().identification(word);
            let (_, seen) = world.pass(&frame.bytes())?;
            assert_eq!(seen, talk.at_client(&frame).bytes(), "{word:04x}");
        }
    }
    Ok(world.checked() + 1)
}
