//! `trace`: packets as they come, and what is decided about them.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;

use super::failure::Failure;
use super::pcapng::Capture;
use super::screen::{Colour, Screen};
use super::units::{clean, plural};
use crate::api::client::Client;
use crate::api::trace::{Filter, TraceRequest, TracedPacket, TracedProtocol};

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Only packets of which all of this is true: any of "tcp", "udp", "icmp", "ip4", "ip6", "host ADDRESS", "port NUMBER", "outcome NAME"
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    filter: TraceFilter,
    /// End after so many packets [default: with Ctrl-C]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// At most so many packets a second; the others are counted [default: 100]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Every decision on a line of its own
    #[arg(long, short)]
    verbose: bool,
    /// Write the packets' first 256 bytes to a file for Wireshark, the decisions as comments; "-": to the standard output
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
}

/// A filter as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TraceFilter(Filter);

impl FromStr for TraceFilter {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let mut filter = Filter::default();
        let mut words = typed.split_whitespace();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word:?} needs something after it"))
            };
            match word {
                "tcp" => once(word, &mut filter.protocol, TracedProtocol::Tcp)?,
                "udp" => once(word, &mut filter.protocol, TracedProtocol::Udp)?,
                "icmp" => once(word, &mut filter.protocol, TracedProtocol::Icmp)?,
                "ip4" => once(word, &mut filter.family, 4)?,
                "ip6" => once(word, &mut filter.family, 6)?,
                "host" => once(word, &mut filter.host, host(value()?)?)?,
                "port" => once(word, &mut filter.port, port(value()?)?)?,
                "outcome" => filter.outcomes.push(value()?.to_owned()),
                "and" => {}
                _ => {
                    return Err(format!(
                        "{word:?}: expected tcp, udp, icmp, ip4, ip6, host ADDRESS, port NUMBER or outcome NAME"
                    ));
                }
            }
        }
        Ok(Self(filter))
    }
}

/// Two of a kind would both have to be true.
fn once<T>(word: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{word:?}: there is one of that kind already")),
    }
}

fn host(typed: &str) -> Result<IpAddr, String> {
    typed
        .parse()
        .map_err(|_| format!("host {typed:?}: expected an address, such as 198.18.0.2 or 2001:db8::2"))
}

fn port(typed: &str) -> Result<NonZeroU16, String> {
    typed
        .parse()
        .map_err(|_| format!("port {typed:?}: expected a number from 1 to 65535"))
}

/// Where packets go.
enum Sink<'a> {
    Lines { screen: &'a Screen, verbose: bool },
    Capture(Capture<Box<dyn Write>>),
}

/// Shows packets until there were enough, or until Ctrl-C.
pub(super) async fn run(lbd: &Client, screen: &Screen, args: TraceArgs) -> Result<(), Failure> {
    let mut sink = match &args.pcapng {
        None => Sink::Lines {
            screen,
            verbose: args.verbose,
        },
        Some(file) => {
            let writer: Box<dyn Write> = if file.as_os_str() == "-" {
                Box::new(io::stdout())
            } else {
                Box::new(File::create(file).map_err(|error| {
                    Failure::Failed(format!("{}: cannot write there: {error}", file.display()))
                })?)
            };
            Sink::Capture(Capture::new(writer)?)
        }
    };
    let mut request = TraceRequest {
        filter: args.filter.0,
        rate: args.rate,
        ..TraceRequest::default()
    };
    let enough = args.count.unwrap_or(u64::MAX);
    let (mut seen, mut left_out) = (0, 0);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let answer = tokio::select! {
            answer = lbd.trace(&request) => answer?,
            _ = &mut interrupted => break,
        };
        request.session = Some(answer.session);
        left_out = answer.left_out;
        for packet in &answer.packets {
            if seen < enough {
                sink.take(packet)?;
                seen += 1;
            }
        }
        if seen >= enough {
            break;
        }
    }
    if request.session.is_some() {
        request.end = true;
        // If this does not get there, tracing ends since nobody asks any more.
        left_out = lbd.trace(&request).await.map_or(left_out, |last| last.left_out);
    }
    screen.note(&format!(
        "{}, {left_out} more were left out",
        plural(seen, "packet")
    ));
    Ok(())
}

impl Sink<'_> {
    fn take(&mut self, packet: &TracedPacket) -> Result<(), Failure> {
        match self {
            Self::Capture(capture) => Ok(capture.add(packet)?),
            Self::Lines { screen, .. } if screen.json() => {
                let line = serde_json::to_string(packet).map_err(io::Error::from)?;
                screen.print(&(line + "\n"))
            }
            Self::Lines { screen, verbose } => screen.print(&line(screen, packet, *verbose)),
        }
    }
}

fn line(screen: &Screen, packet: &TracedPacket, verbose: bool) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(packet.time);
    let colour = match &*packet.action {
        "drop" => Colour::Bad,
        "pass" => Colour::Notice,
        _ => Colour::Good,
    };
    let mut text = format!(
        "{} {} {}: {}",
        humantime::format_rfc3339_micros(time),
        clean(&packet.interface),
        clean(&packet.packet),
        screen.paint(colour, &clean(&packet.outcome))
    );
    if let Some(backend) = &packet.backend {
        text += &format!(" {}", clean(backend));
    }
    text.push('\n');
    if verbose {
        for decision in &packet.decisions {
            text += &format!("  {}: {}\n", clean(&decision.about), clean(&decision.says));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_typed() {
        let typed = "tcp host 198.18.0.2 and port 443 outcome to_backend outcome not_ours ip4";
        let TraceFilter(filter) = typed.parse().unwrap();
        assert_eq!(
            filter,
            Filter {
                host: Some("198.18.0.2".parse().unwrap()),
                port: NonZeroU16::new(443),
                protocol: Some(TracedProtocol::Tcp),
                family: Some(4),
                outcomes: vec!["to_backend".to_owned(), "not_ours".to_owned()],
            }
        );
        assert_eq!("".parse(), Ok(TraceFilter::default()));
    }

    #[test]
    fn what_is_no_filter_is_named() {
        for (typed, says) in [
            ("sctp", "\"sctp\": expected tcp, udp"),
            ("host", "\"host\" needs something after it"),
            ("host www", "host \"www\": expected an address"),
            ("port 0", "port \"0\": expected a number from 1"),
            ("tcp udp", "\"udp\": there is one of that kind already"),
            ("port 1 port 2", "\"port\": there is one of that kind already"),
        ] {
            let error = typed.parse::<TraceFilter>().unwrap_err();
            assert!(error.starts_with(says), "{typed}: {error}");
        }
    }
}
