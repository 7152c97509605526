//! The names of rows, candidates and quantities that the table of targets looks for. Experiments use these, so that what a
//! target asks for is what was measured.

/// Candidates. The balancer's own are its forwarding modes.
pub mod candidate {
    /// Does nothing but send the frame back, in the same runner.
    pub const BARE: &str = "bare program";
    /// Does nothing but hash the addresses and read a single line of as much memory as the table of connections takes.
    pub const ONE_LINE: &str = "hash, read one line";
    /// Reads a single line likewise, and does as much else as `nat` does with a packet of the only flow, half of it with what the
    /// line says.
    pub const WORK_AND_LINE: &str = "as much work, one line";
    /// Does nothing but redirect the frame, through the same veths.
    pub const BARE_REDIRECT: &str = "bare redirect";
    /// From the client to the web servers, without a balancer, with as many servers and workers.
    pub const DIRECT: &str = "direct";
    /// The same, through interfaces of the balancer's host that its program is attached to, which passes them.
    pub const PASSED: &str = "direct, XDP attached";
    /// Destination rewritten, the way back leads through the balancer.
    pub const NAT: &str = "nat";
    /// Source rewritten as well.
    pub const FULL_NAT: &str = "full-nat";
    /// The backend answers the client itself.
    pub const DSR: &str = "dsr";
    /// So it does, in another segment.
    pub const IPIP: &str = "ipip";
    /// HAProxy in TCP mode.
    pub const HAPROXY: &str = "HAProxy (TCP)";
    /// nginx's stream module.
    pub const NGINX: &str = "nginx stream";
    /// The kernel's own NAT.
    pub const NFTABLES: &str = "nftables DNAT";
    /// The daemon.
    pub const LBD: &str = "lbd";
}

/// Quantities.
pub mod quantity {
    /// How long one took.
    pub const TIME: &str = "time";
    /// Frames that arrived per second, in [`MillionPacketsPerSecond`](super::super::measurement::Unit).
    pub const FORWARDED: &str = "forwarded";
    /// Answered requests per second.
    pub const REQUESTS: &str = "requests";
    /// The latency that half of the requests stayed below.
    pub const P50: &str = "p50";
    /// 99 of 100.
    pub const P99: &str = "p99";
    /// 999 of 1,000.
    pub const P999: &str = "p99.9";
    /// What all processors of the machine were busy with, in cores.
    pub const MACHINE_CPU: &str = "machine CPU";
    /// What the candidate itself took for a request, in µs: the program's run time by the kernel's statistics, or the
    /// process's time.
    pub const CPU_PER_REQUEST: &str = "CPU per request";
    /// Memory, in MiB.
    pub const MEMORY: &str = "memory";
    /// Size of a program, in bytes or instructions.
    pub const SIZE: &str = "size";
}

/// Rows of the site and of the throughput through veths.
pub mod row {
    /// As many flows as fit into a short text: `1 flow`, `64k flows`, `10M flows`.
    pub fn flows(count: u32) -> String {
        match count {
            1 => "1 flow".to_owned(),
            count if count >= 1 << 20 => format!("{}M flows", count >> 20),
            count if count >= 1 << 10 => format!("{}k flows", count >> 10),
            count => format!("{count} flows"),
        }
    }

    /// As fast as it goes: `HTTPS, keep-alive, 1 KB`.
    pub fn site(https: bool, keep_alive: bool, body: &str) -> String {
        let scheme = if https { "HTTPS" } else { "HTTP" };
        let connections = if keep_alive {
            "keep-alive"
        } else {
            "connection per request"
        };
        format!("{scheme}, {connections}, {body}")
    }

    /// The same rate for all candidates, which all of them can serve.
    pub fn at_fixed_rate(row: &str) -> String {
        format!("{row}, at a fixed rate")
    }

    /// At a constant 70 % of what direct serves as fast as it goes.
    pub fn at_seventy_percent(row: &str) -> String {
        format!("{row}, at 70 % of the most")
    }
}
