//! The server's datagrams: each is answered by itself, and nothing is remembered.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};

use super::request::Datagram;
use crate::app::Pattern;

/// The longest datagram that IPv4 can carry, and so all there can be.
pub(super) const LONGEST: usize = 65_507;
/// Room for what arrives while the thread has no turn. More than an ordinary process may ask for; without the right, the
/// kernel's own limit holds and more is lost.
pub(super) const ROOM: usize = 8 << 20;

/// Answers for ever.
pub(super) fn serve(name: &str, socket: &UdpSocket) {
    let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &ROOM);
    let mut datagram = vec![0; LONGEST];
    loop {
        // What fails here is about a datagram (an ICMP error for an answer), never about the socket.
        let Ok((length, peer)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        if let Some(answer) = answer(name, peer, &datagram[..length]) {
            // Lost, like others on the way.
            let _ = socket.send_to(&answer, peer);
        }
    }
}

/// The answer to a datagram; `None`: it is no request.
fn answer(name: &str, peer: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    let end = datagram.iter().position(|&byte| byte == b'\n')?;
    let (head, payload) = (&datagram[..end], &datagram[end + 1..]);
    let request: Datagram = str::from_utf8(head).ok()?.parse().ok()?;
    let mut answer = Vec::new();
    write!(answer, "{name} {peer} {}", request.sequence()).ok()?;
    match request {
        Datagram::Ping { .. } => {
            answer.push(b'\n');
            answer.extend_from_slice(payload);
        }
        Datagram::Get { offset, length, .. } => {
            answer.push(b'\n');
            let start = answer.len();
            answer.resize(start + length.min(LONGEST - start), 0);
            Pattern::at(offset).read_exact(&mut answer[start..]).ok()?;
        }
        Datagram::Put { offset, .. } => {
            let mut wanted = vec![0; payload.len()];
            Pattern::at(offset).read_exact(&mut wanted).ok()?;
            answer.extend_from_slice(if wanted == payload {
                b" same\n"
            } else {
                b" different\n"
            });
        }
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(datagram: &[u8]) -> Option<String> {
        let peer = "198.18.0.2:40000".parse().unwrap();
        answer("web1", peer, datagram).map(|answer| String::from_utf8_lossy(&answer).into_owned())
    }

    #[test]
    fn each_request_has_its_answer() {
        let head = "web1 198.18.0.2:40000 7";
        assert_eq!(answer_to(b"ping 7\nabc"), Some(format!("{head}\nabc")));
        assert_eq!(
            answer("web1", "[2001:db8::2]:1".parse().unwrap(), b"get 7 8 8\n"),
            Some(
                [
                    b"web1 [2001:db8::2]:1 7\n".as_slice(),
                    &0x9e37_79b9_7f4a_7c15_u64.to_le_bytes()
                ]
                .concat()
            )
        );
        let put = [b"put 7 8\n".as_slice(), &0x9e37_79b9_7f4a_7c15_u64.to_le_bytes()].concat();
        assert_eq!(answer_to(&put), Some(format!("{head} same\n")));
        assert_eq!(answer_to(&put[..15]), Some(format!("{head} same\n")));
        assert_eq!(
            answer_to(b"put 7 8\n12345678"),
            Some(format!("{head} different\n"))
        );
    }

    #[test]
    fn what_is_no_request_has_none() {
        for datagram in [b"".as_slice(), b"ping 7", b"ping\n", b"\xff\xfe 1\n"] {
            assert_eq!(answer_to(datagram), None);
        }
    }

    #[test]
    fn an_answer_fits_a_datagram() {
        let peer = "198.18.0.2:40000".parse().unwrap();
        assert_eq!(answer("web1", peer, b"get 1 0 999999\n").unwrap().len(), LONGEST);
    }
}
