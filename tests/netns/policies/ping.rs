//! Pings of a VIP: answered by the program whatever the servers do, or left to the kernel.

use anyhow::{Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node};

use super::{FAMILIES, Vips};
use crate::support::counted::outcome;
use crate::support::echo::is_answered;
use crate::support::shared::Shared;

pub(super) fn cases(lab: &Shared) -> Vec<Case> {
    let lab = lab.clone();
    vec![Case::new(
        "policies/ping/answered_or_left_to_the_kernel",
        move || lab.with(answered_or_left_to_the_kernel),
    )]
}

fn answered_or_left_to_the_kernel(lab: &mut Lab) -> Result<()> {
    for node in Node::WEB {
        for family in FAMILIES {
            assert_pings(lab, family)?;
        }
        lab.stop_web(node)?;
    }
    // With all servers stopped.
    for family in FAMILIES {
        assert_pings(lab, family)?;
    }
    // What was left to the kernel was the kernel's answer.
    set_kernel_answers(lab, false)?;
    for family in FAMILIES {
        ensure!(
            is_answered(lab, Node::Client, family.first, 56)?,
            "{}: no answer without the kernel",
            family.first
        );
        let answered = is_answered(lab, Node::Client, family.other, 56)?;
        ensure!(!answered, "{}: the program answered", family.other);
    }
    set_kernel_answers(lab, true)?;
    for node in Node::WEB {
        lab.start_web(node)?;
    }
    lab.wait_until_all_up(std::time::Duration::from_secs(10))
}

fn assert_pings(lab: &Lab, family: Vips) -> Result<()> {
    for (vip, by_the_program) in [(family.first, true), (family.other, false)] {
        for length in [0, 56, 1400] {
            let before = outcome(lab, "echo_answered")?;
            let answered = is_answered(lab, Node::Client, vip, length)?;
            ensure!(answered, "{vip} does not answer pings of {length} bytes");
            let counted = outcome(lab, "echo_answered")? > before;
            ensure!(
                counted == by_the_program,
                "{vip}, {length} bytes: answered by the program: {counted}"
            );
        }
    }
    Ok(())
}

fn set_kernel_answers(lab: &Lab, answers: bool) -> Result<()> {
    let ignores = if answers { "0" } else { "1" };
    lab.namespace(Node::Lb).sysctl(&[
        ("ipv4/icmp_echo_ignore_all", ignores),
        ("ipv6/icmp/echo_ignore_all", ignores),
    ])
}
