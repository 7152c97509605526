//! What is to be said about the machine; pure.

use std::net::IpAddr;

use super::{Attached, Bpffs, Link, Machine};
use crate::config::{Config, XdpMode};
use crate::dataplane::LoadOptions;
use crate::host_checks::{Check, Finding, set};

/// Atomics, programs of several buffers, links, and what was tested.
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// A program without multi-buffer support is not taken in native mode above this; the exact limit depends on the driver.
const LARGEST_MTU: u32 = 3506;
/// Reading these takes a microsecond and more.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];

/// What is wrong whatever the configuration says.
pub(in crate::host_checks) fn about_machine(machine: &Machine) -> Vec<Finding> {
    [kernel(machine), bpffs(machine), clock(machine)].concat()
}

/// What is wrong for this configuration. `is_running`: whether `lbd` has its memory already.
pub(in crate::host_checks) fn about_interfaces(
    machine: &Machine,
    config: &Config,
    is_running: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !is_running {
        findings.extend(memory(machine, config));
    }
    for link in &machine.links {
        findings.extend(state(link));
        findings.extend(xdp(link, machine, config.daemon.xdp_mode));
        findings.extend(mtu(link, config.daemon.xdp_mode));
        findings.extend(offloads(link));
        findings.extend(queues(link, machine.processors));
    }
    findings.extend(arp(machine, config));
    findings
}

fn kernel(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (major, minor) = OLDEST_KERNEL;
    if version(&machine.kernel).is_some_and(|version| version < OLDEST_KERNEL) {
        findings.push(Finding::error(
            Check::Kernel,
            format!(
                "Linux {} is older than {major}.{minor}: the program will not load",
                machine.kernel
            ),
            format!("boot a kernel of version {major}.{minor} or later"),
        ));
    }
    if machine.takes_xdp == Some(false) {
        findings.push(Finding::error(
            Check::Kernel,
            "this kernel takes no XDP programs",
            "boot one that is built with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS or CONFIG_NET",
        ));
    }
    if machine.jit == Some(false) {
        findings.push(Finding::warning(
            Check::Kernel,
            "BPF programs are interpreted (net.core.bpf_jit_enable is 0): each packet takes several times as long",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ));
    }
    findings
}

/// `6.18.44-cloud` is (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Where systemd mounts it, if that is what there is.
fn mount_point(there: &std::path::Path) -> &std::path::Path {
    let usual = std::path::Path::new("/sys/fs/bpf");
    if usual.starts_with(there) { usual } else { there }
}

fn bpffs(machine: &Machine) -> Vec<Finding> {
    let place = machine.pins.display();
    match machine.bpffs {
        Some(Bpffs::Missing) => vec![Finding::error(
            Check::Bpffs,
            format!("no bpffs is mounted on {place}: the program and its maps cannot be pinned"),
            format!(
                "`mount -t bpf bpf {}`; systemd does so at boot",
                mount_point(&machine.pins).display()
            ),
        )],
        Some(Bpffs::ReadOnly) => vec![Finding::error(
            Check::Bpffs,
            format!("bpffs is mounted read-only on {place}: the program and its maps cannot be pinned"),
            format!("`mount -o remount,rw {place}`"),
        )],
        Some(Bpffs::Writable) | None => Vec::new(),
    }
}

fn clock(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(source) = machine.clock.source.as_deref()
        && SLOW_CLOCKS.contains(&source)
    {
        let better = machine
            .clock
            .sources
            .iter()
            .find(|it| !SLOW_CLOCKS.contains(&it.as_str()));
        findings.push(Finding::note(
            Check::Clock,
            format!("the clock source is {source}, which is slow to read: whatever asks for the time waits for it"),
            match better {
                Some(better) => format!(
                    "`echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource`, unless the kernel \
                     found {better} unstable (`dmesg`)"
                ),
                None => "this machine offers none that is faster".to_owned(),
            },
        ));
    }
    if machine.clock.synchronised == Some(false) {
        findings.push(Finding::note(
            Check::Clock,
            "no time server keeps this host's clock right: it drifts, by which certificates are judged and logs compared",
            "`timedatectl set-ntp true`, or install chrony",
        ));
    }
    findings
}

fn options(config: &Config) -> LoadOptions {
    let daemon = &config.daemon;
    LoadOptions {
        max_connections: daemon.max_connections,
        max_wide_connections: daemon.max_wide_connections,
        full_nat_ports: daemon.full_nat_ports,
        learn_return_hops: true,
        selection_seed: daemon.selection_seed,
    }
}

fn memory(machine: &Machine, config: &Config) -> Vec<Finding> {
    let needed = options(config).table_bytes();
    let short = machine.available.filter(|available| needed > *available);
    let finding = short.map(|available| {
        Finding::error(
            Check::Memory,
            format!(
                "the connection tables take {}, of which this host has {} left: lbd will not start, or others will be killed",
                mebibytes(needed),
                mebibytes(available)
            ),
            "make max_connections, max_wide_connections or full_nat_ports in [daemon] smaller",
        )
    });
    finding.into_iter().collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn state(link: &Link) -> Vec<Finding> {
    let name = &link.name;
    let finding = match link.flags {
        Some(flags) if !flags.up => Finding::warning(
            Check::Driver,
            format!("{name} is down: nothing comes or goes by it"),
            format!("`ip link set {name} up`"),
        ),
        Some(flags) if !flags.running => Finding::warning(
            Check::Driver,
            format!("{name} has no carrier: nothing comes or goes by it"),
            "look at its cable, its switch, or its other end",
        ),
        _ => return Vec::new(),
    };
    vec![finding]
}

/// Whether `auto` will be generic: one driver without native XDP is enough.
fn falls_back(machine: &Machine) -> bool {
    let lacks = |link: &Link| link.features.is_some_and(|features| !features.native);
    machine.links.iter().any(lacks)
}

fn xdp(link: &Link, machine: &Machine, mode: XdpMode) -> Vec<Finding> {
    let Some(features) = link.features.filter(|_| mode != XdpMode::Generic) else {
        return Vec::new();
    };
    let (name, driver) = (&link.name, link.driver.as_deref().unwrap_or("unknown"));
    if !features.native {
        let what = format!("{name}: its driver ({driver}) has no native XDP");
        return vec![if mode == XdpMode::Native {
            Finding::error(
                Check::Driver,
                format!("{what}, and xdp_mode is \"native\": lbd will not start"),
                "set xdp_mode = \"auto\" in [daemon], or use another card",
            )
        } else {
            Finding::note(
                Check::Driver,
                format!("{what}, so that all interfaces get the generic one"),
                "that works and is slower; cards whose drivers have it are faster",
            )
        }];
    }
    // Other drivers tell only once they have a program.
    let tells = driver == "veth" || link.attached == Some(Attached::Native);
    let is_generic = link.attached == Some(Attached::Generic) || falls_back(machine);
    if tells && !is_generic && !features.takes_redirected {
        let fix = if driver == "veth" {
            "attach an XDP program that passes everything at its other end, or switch GRO on there (`ethtool -K … gro on`)"
        } else {
            "set xdp_mode = \"generic\" in [daemon], or use another card"
        };
        return vec![Finding::error(
            Check::Driver,
            format!(
                "{name} ({driver}) does not take frames that are redirected to it: what should leave by it is lost"
            ),
            fix,
        )];
    }
    Vec::new()
}

fn mtu(link: &Link, mode: XdpMode) -> Vec<Finding> {
    let is_native = link.features.is_some_and(|features| features.native) && mode != XdpMode::Generic;
    let large = link.mtu.filter(|mtu| is_native && *mtu > LARGEST_MTU);
    let Some(mtu) = large.filter(|_| link.attached != Some(Attached::Native)) else {
        return Vec::new();
    };
    let name = &link.name;
    let what =
        format!("{name} has an MTU of {mtu}: above {LARGEST_MTU} drivers do not take the program natively");
    vec![if mode == XdpMode::Native {
        Finding::error(
            Check::Mtu,
            format!("{what}, and xdp_mode is \"native\": lbd will not start"),
            format!("`ip link set {name} mtu {LARGEST_MTU}`, or xdp_mode = \"generic\" in [daemon]"),
        )
    } else {
        Finding::warning(
            Check::Mtu,
            format!("{what}, so that all interfaces get generic XDP, which is slower"),
            format!(
                "`ip link set {name} mtu {LARGEST_MTU}`, if the hosts on its segment have no more either"
            ),
        )
    }]
}

fn offloads(link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &link.name;
    if link.merges == Some(true) {
        findings.push(Finding::warning(
            Check::Offloads,
            format!(
                "{name} merges packets before the program sees them (large-receive-offload is on): what comes out is longer \
                 than the next link takes, and drivers refuse native XDP with it"
            ),
            format!("`ethtool -K {name} lro off`"),
        ));
    }
    if link.driver.as_deref() == Some("veth") {
        findings.push(Finding::note(
            Check::Offloads,
            format!("{name} is a veth device: its other end may send packets whose checksums are not filled in, and they \
                     are passed on so"),
            "`ethtool -K … tx off` at the other end, where that is not a bridge",
        ));
    }
    findings
}

fn queues(link: &Link, processors: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (name, Some(queues)) = (&link.name, link.queues) else {
        return findings;
    };
    let wanted = queues.most.min(processors);
    let what = format!(
        "{name} has {} receive queue{} for {processors} processors: the others take no packets from it",
        queues.now,
        if queues.now == 1 { "" } else { "s" }
    );
    if queues.now < wanted {
        let kind = if queues.combined { "combined" } else { "rx" };
        let fix = format!("`ethtool -L {name} {kind} {wanted}`");
        findings.push(Finding::warning(Check::Queues, what, fix));
    } else if queues.now < processors {
        findings.push(Finding::note(
            Check::Queues,
            what,
            "it can have no more; in a virtual machine, its host may give it more",
        ));
    }
    if let Some(spread) = link.spread.filter(|spread| *spread < queues.now as usize) {
        findings.push(Finding::warning(
            Check::Queues,
            format!(
                "{name} spreads packets over {spread} of its {} receive queues (RSS)",
                queues.now
            ),
            format!("`ethtool -X {name} equal {}`", queues.now),
        ));
    }
    findings
}

/// A VIP that this host has, but for which no attached interface answers (`arp_ignore`, Documentation/networking/ip-sysctl.rst).
fn arp(machine: &Machine, config: &Config) -> Vec<Finding> {
    let answers = |link: &Link, vip: &IpAddr| {
        link.flags.is_none_or(|flags| flags.arp)
            && match link.arp_ignore {
                Some(8) => false,
                Some(1 | 2) => link.addresses.contains(vip),
                _ => true,
            }
    };
    let mut vips: Vec<_> = config
        .services
        .iter()
        .filter_map(|service| Some((service.vip, service.manage_vip.as_deref()?)))
        .filter(|(vip, _)| vip.is_ipv4())
        .collect();
    vips.sort_unstable();
    vips.dedup();
    let silent = vips.into_iter().filter_map(|(vip, interface)| {
        // It will be on that one, if it is not yet.
        let link = machine.links.iter().find(|link| link.name == interface)?;
        let mut with_vip = link.clone();
        with_vip.addresses.insert(vip);
        let others = machine.links.iter().filter(|other| other.name != interface);
        let is_answered = answers(&with_vip, &vip) || others.into_iter().any(|other| answers(other, &vip));
        (!is_answered).then_some((vip, link))
    });
    silent
        .map(|(vip, link)| {
            let name = &link.name;
            let (why, fix) = if link.flags.is_some_and(|flags| !flags.arp) {
                ("ARP is off".to_owned(), format!("`ip link set {name} arp on`"))
            } else {
                let value = link.arp_ignore.unwrap_or_default();
                (
                    format!("arp_ignore is {value}, its own or that of `all`"),
                    format!("{}, and the same for `all`", set(name, "arp_ignore", 0)),
                )
            };
            Finding::warning(
                Check::Addresses,
                format!("nobody answers ARP for VIP {vip}: {name}, which has it, does not ({why})"),
                fix,
            )
        })
        .collect()
}

/// What was looked at, in a few words; `None`: nothing.
pub(in crate::host_checks) fn seen(
    check: Check,
    machine: &Machine,
    config: Option<&Config>,
) -> Option<String> {
    let each = |shown: &dyn Fn(&Link) -> Option<String>| {
        let shown: Vec<_> = machine
            .links
            .iter()
            .filter_map(|link| Some(format!("{} {}", link.name, shown(link)?)))
            .collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    };
    match check {
        Check::Kernel => {
            let jit = match machine.jit {
                Some(true) => ", JIT on",
                Some(false) => ", JIT off",
                None => "",
            };
            Some(format!("Linux {}{jit}", machine.kernel))
        }
        Check::Bpffs => machine.bpffs.map(|state| {
            let state = match state {
                Bpffs::Writable => "mounted",
                Bpffs::ReadOnly => "read-only",
                Bpffs::Missing => "not mounted",
            };
            format!("{} {state}", machine.pins.display())
        }),
        Check::Memory => {
            let needed = mebibytes(options(config?).table_bytes());
            Some(format!(
                "tables take {needed}, {} available",
                mebibytes(machine.available?)
            ))
        }
        Check::Driver => each(&|link| {
            let attached = match link.attached? {
                Attached::No => "no program",
                Attached::Native => "native program",
                Attached::Generic => "generic program",
            };
            Some(format!("{} ({attached})", link.driver.as_deref().unwrap_or("?")))
        }),
        Check::Mtu => each(&|link| Some(link.mtu?.to_string())),
        Check::Offloads => each(&|link| Some(format!("LRO {}", if link.merges? { "on" } else { "off" }))),
        Check::Queues => {
            let queues = each(&|link| Some(link.queues?.now.to_string()))?;
            Some(format!("{queues}; {} processors", machine.processors))
        }
        Check::Clock => {
            let state = match machine.clock.synchronised? {
                true => "synchronised",
                false => "not synchronised",
            };
            Some(format!(
                "{}, {state}",
                machine.clock.source.as_deref().unwrap_or("?")
            ))
        }
        _ => None,
    }
}
