//! What `cargo xtask lab up` and `run` are told about the lab's network.

use std::time::Duration;

use clap::value_parser;

use crate::lab::{LabOptions, Mode, Topology, Wan};

/// Options that say how the lab's hosts are joined.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// How the hosts are joined
    #[arg(long, value_enum, default_value_t)]
    topology: Topology,
    /// How the balancer sends packets to the web servers, and what these are prepared for
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Milliseconds that a packet takes between client and router, each way
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(..=10_000))]
    delay: Option<u32>,
    /// So many packets in a hundred take 2 ms longer between client and router, and are overtaken
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u8).range(..=100))]
    reorder: Option<u8>,
    /// So many packets in a hundred are lost at the router, of those from and to the client
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = value_parser!(u8).range(..=100))]
    loss: u8,
    /// MTU between client and router, 1280 to 1500
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = value_parser!(u16).range(1280..=1500))]
    client_mtu: u16,
}

impl NetworkArgs {
    /// Has the lab made like this. What is lost begins later, by [`loss`](Self::loss).
    pub fn apply_to(&self, options: &mut LabOptions) {
        options.topology = self.topology;
        options.mode = self.mode;
        options.client_mtu = self.client_mtu;
        if self.delay.is_some() || self.reorder.is_some() {
            options.wan = Some(Wan {
                delay: Duration::from_millis(self.delay.unwrap_or(0).into()),
                reorder_percent: self.reorder.unwrap_or(0),
            });
        }
    }

    /// What [`Lab::lose`](crate::lab::Lab::lose) is to be told once the lab is up.
    pub fn loss(&self) -> u8 {
        self.loss
    }
}
