//! Traced packets as a file that Wireshark reads.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};

use crate::api::trace::TracedPacket;

/// As much of each frame as `lbd` keeps, in bytes.
const KEPT: u32 = 256;
/// The library writes times in ns (pcap-file 2.0), and readers take them for µs unless told: ten to the minus so many seconds.
const NANOSECONDS: u8 = 9;

/// A file under construction.
pub(super) struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// Those that the file has described already; the place is the number.
    interfaces: Vec<String>,
}

impl<W: Write> Capture<W> {
    /// Begins a file.
    pub(super) fn new(writer: W) -> io::Result<Self> {
        Ok(Self {
            writer: PcapNgWriter::new(writer).map_err(io::Error::other)?,
            interfaces: Vec::new(),
        })
    }

    /// Adds a packet, its decisions as a comment.
    pub(super) fn add(&mut self, packet: &TracedPacket) -> io::Result<()> {
        let block = EnhancedPacketBlock {
            interface_id: self.interface(&packet.interface)?,
            timestamp: Duration::from_nanos(packet.time),
            original_len: packet.length,
            data: Cow::Owned(bytes(&packet.head)?),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(packet)))],
        };
        self.writer.write_pcapng_block(block).map_err(io::Error::other)?;
        self.writer.get_mut().flush()
    }

    fn interface(&mut self, name: &str) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|known| known == name);
        let number = match known {
            Some(number) => number,
            None => {
                let block = InterfaceDescriptionBlock {
                    linktype: DataLink::ETHERNET,
                    snaplen: KEPT,
                    options: vec![
                        InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                    ],
                };
                self.writer.write_pcapng_block(block).map_err(io::Error::other)?;
                self.interfaces.push(name.to_owned());
                self.interfaces.len() - 1
            }
        };
        u32::try_from(number).map_err(io::Error::other)
    }
}

fn comment(packet: &TracedPacket) -> String {
    let mut lines = vec![format!("{} ({})", packet.outcome, packet.action)];
    lines.extend(
        packet
            .decisions
            .iter()
            .map(|decision| format!("{}: {}", decision.about, decision.says)),
    );
    lines.join("\n")
}

fn bytes(hex: &str) -> io::Result<Vec<u8>> {
    let byte = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).map_err(io::Error::other)?;
        u8::from_str_radix(digits, 16).map_err(io::Error::other)
    };
    hex.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::explain::Decision;
    use pcap_file::pcapng::{Block, PcapNgReader};

    fn packet(interface: &str, time: u64) -> TracedPacket {
        TracedPacket {
            time,
            interface: interface.to_owned(),
            packet: "TCP".to_owned(),
            length: 1500,
            head: "0200ff".to_owned(),
            decisions: vec![Decision {
                about: "service".to_owned(),
                says: "www".to_owned(),
            }],
            service: None,
            backend: None,
            outcome: "to_backend".to_owned(),
            action: "redirect".to_owned(),
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        let time = 1_700_000_000_123_456_789;
        for name in ["uplink", "web1", "uplink"] {
            capture.add(&packet(name, time)).unwrap();
        }
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let (mut names, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(block) => {
                    let resolution = InterfaceDescriptionOption::IfTsResol(9);
                    assert!(block.options.contains(&resolution), "{block:?}");
                    names.extend(block.options.into_iter().filter_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(block) => {
                    assert_eq!(block.timestamp, Duration::from_nanos(time));
                    assert_eq!((block.original_len, &*block.data), (1500, &[2, 0, 0xff][..]));
                    let said = "to_backend (redirect)\nservice: www";
                    assert_eq!(
                        block.options,
                        [EnhancedPacketOption::Comment(Cow::Borrowed(said))]
                    );
                    packets.push(block.interface_id);
                }
                _ => {}
            }
        }
        assert_eq!(
            (names, packets),
            (vec!["uplink".into(), "web1".into()], vec![0, 1, 0])
        );
    }

    #[test]
    fn what_is_no_hex_is_refused() {
        let wrong = TracedPacket {
            head: "zz".to_owned(),
            ..packet("uplink", 0)
        };
        assert!(Capture::new(Vec::new()).unwrap().add(&wrong).is_err());
    }
}
