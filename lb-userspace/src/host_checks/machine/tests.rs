//! A machine on which all is well, and what is said when one thing is not; and the facts, in namespaces.

use super::judge::{about_interfaces, about_machine, seen};
use super::*;
use crate::config::{XdpMode, test_config};
use crate::host_checks::{Check, Severity};
use crate::testing::{in_namespace, sh};

fn link(name: &str) -> Link {
    Link {
        name: name.to_owned(),
        flags: Some(LinkFlags {
            up: true,
            running: true,
            arp: true,
        }),
        driver: Some("ice".to_owned()),
        features: Some(XdpFeatures {
            native: true,
            redirects: true,
            takes_redirected: true,
        }),
        attached: Some(Attached::Native),
        mtu: Some(1500),
        merges: Some(false),
        queues: Some(ReceiveQueues {
            now: 8,
            most: 64,
            combined: true,
        }),
        spread: Some(8),
        arp_ignore: Some(0),
        addresses: HashSet::new(),
    }
}

fn sound() -> (Machine, Config) {
    let mut config = test_config();
    config.daemon.interfaces = vec!["eth0".to_owned(), "eth1".to_owned()];
    config.services[0].manage_vip = Some("eth0".to_owned());
    let machine = Machine {
        kernel: "6.1.0-18-amd64".to_owned(),
        jit: Some(true),
        takes_xdp: Some(true),
        bpffs: Some(Bpffs::Writable),
        pins: "/sys/fs/bpf".into(),
        available: Some(1 << 30),
        processors: 8,
        clock: Clock {
            source: Some("tsc".to_owned()),
            sources: vec!["tsc".to_owned(), "hpet".to_owned()],
            synchronised: Some(true),
        },
        links: vec![link("eth0"), link("eth1")],
    };
    (machine, config)
}

/// Changes what is well; each finding must be of its row's kind and hold its words, and there must be as many as rows.
#[track_caller]
fn says(change: impl FnOnce(&mut Machine, &mut Config), expected: &[(Check, Severity, &[&str])]) {
    let (mut machine, mut config) = sound();
    change(&mut machine, &mut config);
    let findings = [
        about_machine(&machine),
        about_interfaces(&machine, &config, false),
    ]
    .concat();
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (finding, (check, severity, words)) in findings.iter().zip(expected) {
        assert_eq!(
            (finding.check, finding.severity),
            (*check, *severity),
            "{finding:#?}"
        );
        let text = finding.to_string();
        for word in *words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }
}

use Severity::{Error, Note, Warning};

#[test]
fn a_sound_machine_gets_nothing_said() {
    says(|_, _| (), &[]);
}

#[test]
fn what_is_not_known_is_not_judged() {
    says(
        |machine, _| {
            machine.kernel = "strange".to_owned();
            (machine.jit, machine.takes_xdp, machine.bpffs, machine.available) = (None, None, None, None);
            machine.clock = Clock::default();
            for link in &mut machine.links {
                (link.flags, link.driver, link.features, link.attached) = (None, None, None, None);
                (link.mtu, link.merges, link.queues, link.arp_ignore) = (None, None, None, None);
            }
        },
        &[],
    );
}

#[test]
fn the_kernel() {
    for (release, is_old) in [
        ("6.1.0", false),
        ("6.0.19-generic", true),
        ("5.15.0-91", true),
        ("6.18.44", false),
        ("10.0", false),
    ] {
        let old: &[(Check, Severity, &[&str])] = &[(
            Check::Kernel,
            Error,
            &[release, "older than 6.1", "boot a kernel of version 6.1 or later"],
        )];
        says(
            |machine, _| machine.kernel = release.to_owned(),
            if is_old { old } else { &[] },
        );
    }
    says(
        |machine, _| (machine.jit, machine.takes_xdp) = (Some(false), Some(false)),
        &[
            (Check::Kernel, Error, &["takes no XDP programs"]),
            (
                Check::Kernel,
                Warning,
                &["interpreted", "`sysctl -w net.core.bpf_jit_enable=1`"],
            ),
        ],
    );
}

#[test]
fn bpffs_that_takes_no_pins() {
    says(
        |machine, _| machine.bpffs = Some(Bpffs::Missing),
        &[(
            Check::Bpffs,
            Error,
            &["no bpffs", "`mount -t bpf bpf /sys/fs/bpf`"],
        )],
    );
    says(
        |machine, _| machine.bpffs = Some(Bpffs::ReadOnly),
        &[(
            Check::Bpffs,
            Error,
            &["read-only", "`mount -o remount,rw /sys/fs/bpf`"],
        )],
    );
}

#[test]
fn memory_that_is_short_before_the_start_only() {
    let short = |machine: &mut Machine| machine.available = Some(10 << 20);
    says(
        |machine, _| short(machine),
        &[(
            Check::Memory,
            Error,
            &["take 35 MiB", "10 MiB left", "max_connections"],
        )],
    );
    let (mut machine, config) = sound();
    short(&mut machine);
    assert_eq!(about_interfaces(&machine, &config, true), []);
}

#[test]
fn links_that_are_not_up() {
    let flags = |up, running| {
        move |machine: &mut Machine, _: &mut Config| {
            machine.links[1].flags = Some(LinkFlags {
                up,
                running,
                arp: true,
            });
        }
    };
    says(
        flags(false, false),
        &[(Check::Driver, Warning, &["eth1 is down", "`ip link set eth1 up`"])],
    );
    says(
        flags(true, false),
        &[(Check::Driver, Warning, &["eth1 has no carrier"])],
    );
}

#[test]
fn drivers_without_native_xdp() {
    let lacks = |mode| {
        move |machine: &mut Machine, config: &mut Config| {
            config.daemon.xdp_mode = mode;
            let link = &mut machine.links[0];
            link.attached = Some(Attached::No);
            if let Some(features) = &mut link.features {
                (features.native, features.takes_redirected) = (false, false);
            }
        }
    };
    says(
        lacks(XdpMode::Auto),
        &[(
            Check::Driver,
            Note,
            &["eth0: its driver (ice) has no native XDP", "slower"],
        )],
    );
    says(
        lacks(XdpMode::Native),
        &[(
            Check::Driver,
            Error,
            &["lbd will not start", "xdp_mode = \"auto\""],
        )],
    );
    says(lacks(XdpMode::Generic), &[]);
}

#[test]
fn drivers_that_take_no_redirected_frames() {
    let takes_none = |machine: &mut Machine, driver: &str, attached| {
        let link = &mut machine.links[1];
        (link.driver, link.attached) = (Some(driver.to_owned()), Some(attached));
        if let Some(features) = &mut link.features {
            features.takes_redirected = false;
        }
    };
    let lost: &[&str] = &["eth1 (ice) does not take frames", "xdp_mode = \"generic\""];
    says(
        |machine, _| takes_none(machine, "ice", Attached::Native),
        &[(Check::Driver, Error, lost)],
    );
    // Such a driver tells once it has a program.
    says(|machine, _| takes_none(machine, "ice", Attached::No), &[]);
    says(|machine, _| takes_none(machine, "ice", Attached::Generic), &[]);
    let veth: &[&str] = &["eth1 (veth) does not take frames", "`ethtool -K … gro on`"];
    says(
        |machine, _| takes_none(machine, "veth", Attached::No),
        &[
            (Check::Driver, Error, veth),
            (
                Check::Offloads,
                Note,
                &["eth1 is a veth device", "`ethtool -K … tx off`"],
            ),
        ],
    );
}

#[test]
fn an_mtu_that_drivers_refuse() {
    let jumbo = |mode, attached| {
        move |machine: &mut Machine, config: &mut Config| {
            config.daemon.xdp_mode = mode;
            machine.links[0].mtu = Some(9000);
            machine.links[0].attached = Some(attached);
        }
    };
    says(
        jumbo(XdpMode::Auto, Attached::No),
        &[(
            Check::Mtu,
            Warning,
            &["eth0 has an MTU of 9000", "`ip link set eth0 mtu 3506`"],
        )],
    );
    says(
        jumbo(XdpMode::Native, Attached::No),
        &[(
            Check::Mtu,
            Error,
            &["lbd will not start", "xdp_mode = \"generic\""],
        )],
    );
    says(jumbo(XdpMode::Generic, Attached::No), &[]);
    // It did.
    says(jumbo(XdpMode::Native, Attached::Native), &[]);
}

#[test]
fn packets_that_are_merged() {
    says(
        |machine, _| machine.links[0].merges = Some(true),
        &[(
            Check::Offloads,
            Warning,
            &["eth0 merges packets", "`ethtool -K eth0 lro off`"],
        )],
    );
}

#[test]
fn queues_that_leave_processors_idle() {
    let queues = |now, most, combined, spread| {
        move |machine: &mut Machine, _: &mut Config| {
            machine.links[0].queues = Some(ReceiveQueues { now, most, combined });
            machine.links[0].spread = spread;
        }
    };
    says(
        queues(2, 4, true, None),
        &[(
            Check::Queues,
            Warning,
            &[
                "eth0 has 2 receive queues for 8 processors",
                "`ethtool -L eth0 combined 4`",
            ],
        )],
    );
    says(
        queues(1, 64, false, None),
        &[(
            Check::Queues,
            Warning,
            &["1 receive queue for", "`ethtool -L eth0 rx 8`"],
        )],
    );
    says(
        queues(1, 1, true, None),
        &[(Check::Queues, Note, &["eth0 has 1 receive queue", "no more"])],
    );
    says(
        queues(8, 8, true, Some(1)),
        &[(
            Check::Queues,
            Warning,
            &["over 1 of its 8 receive queues", "`ethtool -X eth0 equal 8`"],
        )],
    );
    says(queues(16, 64, true, Some(16)), &[]);
}

#[test]
fn a_vip_for_which_nobody_answers() {
    let ignores = |own: u8, others: u8| {
        move |machine: &mut Machine, _: &mut Config| {
            machine.links[0].arp_ignore = Some(own);
            machine.links[1].arp_ignore = Some(others);
        }
    };
    // The interface that has it does; or another one, for the whole host.
    says(ignores(1, 1), &[]);
    says(ignores(8, 0), &[]);
    let told: &[&str] = &[
        "VIP 203.0.113.10",
        "arp_ignore is 8",
        "`sysctl -w net.ipv4.conf.eth0.arp_ignore=0`",
    ];
    says(ignores(8, 1), &[(Check::Addresses, Warning, told)]);
    let off = |machine: &mut Machine, _: &mut Config| {
        machine.links.truncate(1);
        if let Some(flags) = &mut machine.links[0].flags {
            flags.arp = false;
        }
    };
    says(
        off,
        &[(
            Check::Addresses,
            Warning,
            &["ARP is off", "`ip link set eth0 arp on`"],
        )],
    );
    says(
        |machine, config| {
            ignores(8, 8)(machine, config);
            config.services[0].manage_vip = None;
        },
        &[],
    );
}

#[test]
fn the_clock() {
    let slow = |sources: &[&str]| {
        let sources = sources.iter().map(|&it| it.to_owned()).collect();
        move |machine: &mut Machine, _: &mut Config| {
            machine.clock.source = Some("hpet".to_owned());
            machine.clock.sources = sources;
        }
    };
    let switch: &[&str] = &["the clock source is hpet", "`echo tsc > /sys/"];
    says(slow(&["hpet", "tsc"]), &[(Check::Clock, Note, switch)]);
    says(
        slow(&["hpet", "acpi_pm"]),
        &[(Check::Clock, Note, &["hpet", "offers none that is faster"])],
    );
    says(
        |machine, _| machine.clock.synchronised = Some(false),
        &[(
            Check::Clock,
            Note,
            &["no time server", "`timedatectl set-ntp true`"],
        )],
    );
}

#[test]
fn what_was_seen_is_told_in_a_few_words() {
    let (machine, config) = sound();
    let told = |check| seen(check, &machine, Some(&config));
    assert_eq!(
        told(Check::Kernel).as_deref(),
        Some("Linux 6.1.0-18-amd64, JIT on")
    );
    assert_eq!(told(Check::Bpffs).as_deref(), Some("/sys/fs/bpf mounted"));
    assert_eq!(
        told(Check::Memory).as_deref(),
        Some("tables take 35 MiB, 1024 MiB available")
    );
    let drivers = "eth0 ice (native program), eth1 ice (native program)";
    assert_eq!(told(Check::Driver).as_deref(), Some(drivers));
    assert_eq!(told(Check::Mtu).as_deref(), Some("eth0 1500, eth1 1500"));
    assert_eq!(
        told(Check::Offloads).as_deref(),
        Some("eth0 LRO off, eth1 LRO off")
    );
    assert_eq!(
        told(Check::Queues).as_deref(),
        Some("eth0 8, eth1 8; 8 processors")
    );
    assert_eq!(told(Check::Clock).as_deref(), Some("tsc, synchronised"));
}

#[test]
fn memory_is_read_as_the_kernel_writes_it() {
    let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   12345 kB\n";
    assert_eq!(available(text), Some(12_345 * 1024));
    assert_eq!(available("MemFree: 1 kB\n"), None);
}

#[test]
fn a_mount_is_told_from_a_directory() {
    in_namespace(async |_| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert_eq!(bpffs(&place.join("nowhere")), Some(Bpffs::Missing));
        assert_eq!(bpffs(place), Some(Bpffs::Missing));
        let path = place.display();
        // In a chroot the root is no mount: there others see it as well, while it is there.
        sh(&format!(
            "mount --make-rprivate / || true; mount -t bpf bpf {path}"
        ));
        assert_eq!(bpffs(place), Some(Bpffs::Writable));
        sh(&format!("mount -o remount,ro {path}"));
        assert_eq!(bpffs(place), Some(Bpffs::ReadOnly));
        sh(&format!("umount {path}"));
    });
}

/// What is made wrong in a namespace is seen and said.
#[test]
fn the_facts_are_those_of_the_threads_namespace() {
    in_namespace(async |_| {
        sh(
            "ip link add eth0 mtu 9000 numrxqueues 2 numtxqueues 2 type veth peer name h1 mtu 9000
            ip link add eth1 type bridge
            ip link set eth0 up; ip link set eth0 arp off
            ip addr add 203.0.113.10/32 dev eth0
            echo 8 > /proc/sys/net/ipv4/conf/eth1/arp_ignore",
        );
        let (_, config) = sound();
        let machine = Machine::read(Some(&config)).await;
        let [eth0, eth1] = &machine.links[..] else {
            panic!("{machine:?}")
        };
        assert_eq!(
            eth0.flags,
            Some(LinkFlags {
                up: true,
                running: false,
                arp: false
            })
        );
        assert_eq!((eth0.driver.as_deref(), eth0.mtu), (Some("veth"), Some(9000)));
        assert_eq!(eth0.attached, Some(Attached::No));
        assert_eq!(eth0.queues.map(|queues| queues.most), Some(2));
        assert!(eth0.addresses.contains(&"203.0.113.10".parse().unwrap()));
        assert_eq!((eth0.arp_ignore, eth1.arp_ignore), (Some(0), Some(8)));
        assert_eq!(eth1.flags.map(|flags| flags.up), Some(false));
        assert!(machine.available > Some(0) && machine.processors > 0);
        assert_eq!(machine.takes_xdp, Some(true));
        assert!(machine.clock.synchronised.is_some());

        let findings = about_interfaces(&machine, &config, false);
        let said = |check: Check, words: &str| {
            findings
                .iter()
                .any(|it| it.check == check && it.to_string().contains(words))
        };
        assert!(said(Check::Driver, "eth0 has no carrier"), "{findings:#?}");
        assert!(said(Check::Driver, "eth1 is down"), "{findings:#?}");
        assert!(said(Check::Addresses, "ARP is off"), "{findings:#?}");
        if eth0.features.is_some() {
            assert!(said(Check::Mtu, "eth0 has an MTU of 9000"), "{findings:#?}");
            assert!(
                said(Check::Driver, "eth1: its driver (bridge) has no native XDP"),
                "{findings:#?}"
            );
        }
    });
}
