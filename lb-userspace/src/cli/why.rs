//! What can be typed after `why`, and the question that it is.

use std::net::SocketAddr;

use clap::Args;

use crate::api::explain::Question;
use crate::config::Protocol;

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// tcp or udp
    #[arg(value_parser = protocol)]
    protocol: Protocol,
    /// The client: 198.18.0.2:40000, [2001:db8::2]:40000
    #[arg(value_name = "CLIENT:PORT", value_parser = socket)]
    client: SocketAddr,
    /// What it connects to: 203.0.113.10:443, [2001:db8:ffff::10]:443
    #[arg(value_name = "VIP:PORT", value_parser = socket)]
    vip: SocketAddr,
    /// With the SYN flag
    #[arg(long)]
    syn: bool,
    /// With the ACK flag
    #[arg(long)]
    ack: bool,
    /// With the FIN flag
    #[arg(long)]
    fin: bool,
    /// With the RST flag
    #[arg(long)]
    rst: bool,
    /// The backend's answer instead: of the one that has the connection, or of this one
    #[arg(long, value_name = "BACKEND", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "absent, given, or given with a value")]
    from_backend: Option<Option<String>>,
    /// The interface that it comes in by [default: a client's by the first one of lbd's, a backend's by the one that leads to it]
    #[arg(long)]
    interface: Option<String>,
    /// Bytes that the packet is long [default: as short as can be]
    #[arg(long, value_name = "BYTES")]
    length: Option<u16>,
}

impl WhyArgs {
    /// As the API has it.
    pub(super) fn question(self) -> Question {
        let typed = [
            (self.syn, "syn"),
            (self.ack, "ack"),
            (self.fin, "fin"),
            (self.rst, "rst"),
        ];
        let flags: Vec<_> = typed
            .into_iter()
            .filter(|(given, _)| *given)
            .map(|(_, name)| name)
            .collect();
        Question {
            protocol: self.protocol,
            client: self.client,
            vip: self.vip,
            flags: (!flags.is_empty()).then(|| flags.join(",")),
            from_backend: self.from_backend.is_some(),
            backend: self.from_backend.flatten(),
            interface: self.interface,
            length: self.length,
        }
    }
}

fn protocol(typed: &str) -> Result<Protocol, String> {
    match typed {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err("expected tcp or udp".to_owned()),
    }
}

fn socket(typed: &str) -> Result<SocketAddr, String> {
    typed
        .parse()
        .map_err(|_| "expected ADDRESS:PORT, such as 198.18.0.2:40000 or [2001:db8::2]:40000".to_owned())
}
