//! A datagram, cut into packets.

use etherparse::IpFragOffset;

use super::{Content, Extension, Frame, Header, icmp_number};

impl Frame {
    /// The packet's fragments, cut at these offsets of what follows its header (multiples of 8).
    pub fn fragments(&self, cuts: &[usize]) -> Vec<Self> {
        let content = self.packet.content.bytes(&self.packet.header);
        let ends = cuts.iter().copied().chain([content.len()]);
        let begins = [0].into_iter().chain(cuts.iter().copied());
        begins
            .zip(ends)
            .map(|(begin, end)| self.fragment(begin, &content[begin..end], end < content.len()))
            .collect()
    }

    fn fragment(&self, offset: usize, bytes: &[u8], more: bool) -> Self {
        let mut frame = self.clone();
        let protocol = self
            .packet
            .content
            .protocol(icmp_number(self.packet.header.source()));
        frame.packet.content = Content::Bytes(protocol, bytes.to_vec());
        match &mut frame.packet.header {
            Header::V4(header) => {
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new((offset / 8) as u16).expect("13 bits");
            }
            Header::V6 {
                extensions,
                identification,
                ..
            } => extensions.push(Extension::Fragment {
                offset,
                more,
                identification: *identification,
            }),
        }
        frame
    }
}
