//! What would become of a packet, and why: `lbctl why`. The program itself is asked, a second instance of it that changes
//! nothing ([`crate::dataplane::Explainer`]); here a question becomes a frame (`frame`), and what the program says of it
//! becomes words (`words`), with names for its numbers (`site`).

mod frame;
mod packet;
mod site;
mod trace;
mod words;

use std::net::SocketAddr;

use lb_common::connection_table::Value;
use lb_common::explain::Decision;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::Flags;

use crate::api::Refusal;
use crate::api::explain::{Answer, Question};
use crate::config::Protocol;
use crate::dataplane::{Explained, Explainer, Forwarding};

pub use site::{Interface, Site};
pub use trace::{booted, filter, traced};
pub use words::Told;

use frame::{Addresses, Ends};

/// Answers a question.
///
/// # Errors
/// It makes no sense, or names what there is not; or the kernel does not run the program.
pub fn explain(explainer: &mut Explainer, site: &Site, question: &Question) -> Result<Answer, Refusal> {
    let flags = question.flags.as_deref().map(parse_flags).transpose()?;
    check(question)?;
    let client = Ends {
        from: question.client,
        to: question.vip,
    };
    let came_by = site.interface(question.interface.as_deref(), None)?;
    let from_client = Asked {
        site,
        question,
        ends: client,
        interface: came_by,
        addresses: Addresses {
            source: frame::SOMEBODY,
            destination: came_by.mac,
        },
    };
    if question.from_backend {
        return answer_of_backend(explainer, &from_client, flags);
    }
    if let Some(flags) = flags {
        return from_client.ask(explainer, flags);
    }
    let (frame, explained) = from_client.run(explainer, Flags(Flags::ACK))?;
    let is_known = matches!(explained.last(Decision::FromClient), Some((_, value)) if value != 0);
    if is_known || question.protocol == Protocol::Udp {
        return from_client.answer(&frame, &explained);
    }
    from_client.ask(explainer, Flags(Flags::SYN))
}

/// The answer to what the client sends.
fn answer_of_backend(
    explainer: &mut Explainer,
    asked: &Asked<'_>,
    flags: Option<Flags>,
) -> Result<Answer, Refusal> {
    let (site, question) = (asked.site, asked.question);
    let (_, explained) = asked.run(explainer, Flags(Flags::ACK))?;
    let Some((listener, value)) = explained.last(Decision::FromClient) else {
        return Err(Refusal::Unknown(format!(
            "no service listens on {}; `lbctl service list` shows all",
            question.vip
        )));
    };
    let known = (value != 0).then_some(Value(value));
    let backend = match (&question.backend, known) {
        (Some(name), _) => site.backend_of(listener as u16, name)?,
        (None, Some(value)) => site.backend(value.backend()).ok_or_else(gone)?,
        (None, None) => {
            return Err(Refusal::Unknown(format!(
                "{} has no connection to {}, so that nobody is there to answer; say which backend does",
                question.client, question.vip
            )));
        }
    };
    let mut from = backend.endpoint;
    if from.port() == 0 {
        from.set_port(question.vip.port());
    }
    let to = match (backend.forwarding, known) {
        (Forwarding::Nat, _) => question.client,
        (Forwarding::FullNat { source, .. }, Some(value)) if value.backend() == backend.id => {
            SocketAddr::new(source, value.port())
        }
        (Forwarding::FullNat { .. }, _) => {
            return Err(Refusal::Unknown(format!(
                "{} has no connection to {} that {} has, so that no port of the balancer's own is known for its answer",
                question.client, question.vip, backend.name
            )));
        }
        (Forwarding::Dsr | Forwarding::Ipip { .. }, _) => {
            return Err(Refusal::Invalid(format!(
                "{} answers its clients itself: its answers do not come by here",
                backend.name
            )));
        }
    };
    let hop = backend.next_hop;
    let interface = site.interface(question.interface.as_deref(), hop.map(|hop| hop.interface_index))?;
    let reply = Asked {
        ends: Ends { from, to },
        interface,
        addresses: Addresses {
            source: hop.map_or(frame::SOMEBODY, |hop| hop.destination_mac),
            destination: interface.mac,
        },
        ..*asked
    };
    reply.ask(explainer, flags.unwrap_or(Flags(Flags::ACK)))
}

fn gone() -> Refusal {
    Refusal::Conflict("the configuration has just changed; ask again".to_owned())
}

/// A packet that is asked about.
struct Asked<'a> {
    site: &'a Site,
    question: &'a Question,
    ends: Ends,
    interface: &'a Interface,
    addresses: Addresses,
}

impl Asked<'_> {
    fn run(&self, explainer: &mut Explainer, flags: Flags) -> Result<(Vec<u8>, Explained), Refusal> {
        let frame = frame::build(
            self.question.protocol,
            self.addresses,
            self.ends,
            flags,
            self.question.length,
        )
        .map_err(Refusal::Invalid)?;
        let explained = explainer
            .explain(&frame, self.interface.index)
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok((frame, explained))
    }

    fn ask(&self, explainer: &mut Explainer, flags: Flags) -> Result<Answer, Refusal> {
        let (frame, explained) = self.run(explainer, flags)?;
        self.answer(&frame, &explained)
    }

    fn answer(&self, frame: &[u8], explained: &Explained) -> Result<Answer, Refusal> {
        let told = Told {
            site: self.site,
            notes: &explained.notes,
            came: frame,
            left: Some(&explained.frame),
        };
        let (outcome, _) = explained
            .outcome()
            .ok_or_else(|| Refusal::Failed("the program did not say what becomes of it".to_owned()))?;
        Ok(Answer {
            packet: packet::words(frame),
            interface: self.interface.name.clone(),
            decisions: told.decisions(),
            service: told.service(),
            backend: told.backend(),
            outcome: outcome.name().to_owned(),
            action: action(outcome, explained.action).to_owned(),
            meaning: outcome.meaning().to_owned(),
        })
    }
}

/// What is done with it: what is redirected to where it came from is transmitted.
fn action(outcome: Outcome, ran: u32) -> &'static str {
    /// `enum xdp_action`.
    const XDP_TX: u32 = 3;
    if ran == XDP_TX {
        lb_common::outcome::Action::Transmit.name()
    } else {
        outcome.action().name()
    }
}

fn check(question: &Question) -> Result<(), Refusal> {
    let refused = |why: String| Err(Refusal::Invalid(why));
    if question.client.is_ipv4() != question.vip.is_ipv4() {
        return refused(format!(
            "client {} and VIP {} are of two families; a packet is of one",
            question.client, question.vip
        ));
    }
    if question.protocol == Protocol::Udp && question.flags.is_some() {
        return refused("flags: a UDP datagram has none".to_owned());
    }
    if question.backend.is_some() && !question.from_backend {
        return refused("backend: only says whose answer it is, with from_backend".to_owned());
    }
    Ok(())
}

/// Flags by name, with commas in between.
fn parse_flags(typed: &str) -> Result<Flags, Refusal> {
    let mut flags = 0;
    for name in typed.split(',') {
        flags |= match name {
            "syn" => Flags::SYN,
            "ack" => Flags::ACK,
            "fin" => Flags::FIN,
            "rst" => Flags::RST,
            _ => {
                return Err(Refusal::Invalid(format!(
                    "flags: {name:?} is none; there are syn, ack, fin and rst, with commas in between"
                )));
            }
        };
    }
    Ok(Flags(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            protocol: Protocol::Tcp,
            client: "198.18.0.2:40000".parse().unwrap(),
            vip: "203.0.113.10:443".parse().unwrap(),
            flags: None,
            from_backend: false,
            backend: None,
            interface: None,
            length: None,
        }
    }

    #[test]
    fn flags_are_read_and_what_is_none_is_named() {
        assert_eq!(parse_flags("syn").unwrap(), Flags(Flags::SYN));
        assert_eq!(parse_flags("fin,ack").unwrap(), Flags(Flags::FIN | Flags::ACK));
        for typed in ["", "syn,", "SYN", "psh"] {
            let error = parse_flags(typed).unwrap_err().to_string();
            assert!(error.contains("there are syn, ack, fin and rst"), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(check(&question()).is_ok());
        let families = Question {
            vip: "[2001:db8::10]:443".parse().unwrap(),
            ..question()
        };
        let flags = Question {
            protocol: Protocol::Udp,
            flags: Some("syn".to_owned()),
            ..question()
        };
        let backend = Question {
            backend: Some("web1".to_owned()),
            ..question()
        };
        for (wrong, why) in [
            (families, "two families"),
            (flags, "a UDP datagram has none"),
            (backend, "with from_backend"),
        ] {
            let error = check(&wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_question_survives_the_query() {
        let asked = Question {
            flags: Some("syn,ack".to_owned()),
            from_backend: true,
            backend: Some("web1".to_owned()),
            length: Some(1500),
            client: "[2001:db8::2]:40000".parse().unwrap(),
            ..question()
        };
        for asked in [question(), asked] {
            let query = serde_urlencoded::to_string(&asked).unwrap();
            assert_eq!(serde_urlencoded::from_str::<Question>(&query).unwrap(), asked);
        }
    }
}
