//! A web server fails under traffic by IPv6 and UDP: new connections go to the other one within the detection time, and so
//! does what comes from sockets that have talked to the failed one before.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, LabOptions, Mode, Node, ServiceText, TRANSFER_PORT, VIP, VIP6};
use xtask::transfer::Protocol;
use xtask::transfer::client::Datagrams;

use crate::failover::{DETECTION, SLACK};
use crate::support::measured;
use crate::support::shared::Shared;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    let lab = Shared::planned("lb-t-failover", |options| {
        add_services(options);
        Ok(())
    });
    vec![Case::new("failover/ipv6_and_udp", move || lab.with(ipv6_and_udp))]
}

fn add_services(options: &mut LabOptions) {
    options.add_service(&ServiceText::new("www6", VIP6, 443, Protocol::Tcp, Mode::Nat));
    options.add_transfer_services();
}

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(40);
/// How long a socket waits for an answer.
const PATIENCE: Duration = Duration::from_millis(200);
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(4);

/// Asks a lab something, and gives the name of the server that answered.
type Ask<'a> = Box<dyn FnMut(&Lab) -> Result<String> + Send + 'a>;

/// A client with what became of its requests.
struct Client<'a> {
    name: String,
    /// Whether all its requests go to one server, as long as that works.
    stays: bool,
    ask: Ask<'a>,
    attempts: Vec<Attempt>,
}

/// A request: when it began, and the server that answered it, or why none did.
struct Attempt {
    began: Instant,
    server: Result<String>,
}

fn ipv6_and_udp(lab: &mut Lab) -> Result<()> {
    let mut clients = vec![https_client(), https_client()];
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        // One for each server.
        for number in 0..2 {
            clients.push(socket(lab, vip, number)?);
        }
        clients.push(new_sockets(vip));
    }
    let clients = use_for(lab, clients, BEFORE)?;
    lab.stop_web(Node::Web1)?;
    let failed_at = Instant::now();
    let clients = use_for(lab, clients, AFTER)?;
    for client in &clients {
        assert_fails_over(client, failed_at).with_context(|| client.name.clone())?;
    }
    lab.start_web(Node::Web1)?;
    lab.wait_until_all_up(Duration::from_secs(10))?;
    // Back to both.
    for client in use_for(
        lab,
        vec![https_client(), new_sockets(VIP.into()), new_sockets(VIP6.into())],
        BEFORE,
    )? {
        let by_web1 = client
            .attempts
            .iter()
            .filter(|attempt| is_by(attempt, Node::Web1))
            .count();
        ensure!(
            by_web1 > 2,
            "{}: web1 answered {by_web1} of {}",
            client.name,
            client.attempts.len()
        );
    }
    Ok(())
}

fn client<'a>(name: String, ask: impl FnMut(&Lab) -> Result<String> + Send + 'a) -> Client<'a> {
    Client {
        name,
        stays: false,
        ask: Box::new(ask),
        attempts: Vec::new(),
    }
}

/// A connection for each request.
fn https_client() -> Client<'static> {
    client("HTTPS by IPv6".to_owned(), |lab| {
        let requests = lab.https_requests(VIP6, 1)?;
        let answer = requests.answers.into_iter().next();
        Ok(answer.with_context(|| format!("{:?}", requests.failures))?.server)
    })
}

/// One socket for all requests.
fn socket(lab: &Lab, vip: IpAddr, number: u64) -> Result<Client<'static>> {
    let mut datagrams = lab.namespace(Node::Client).run(|| {
        let mut datagrams = Datagrams::open((vip, TRANSFER_PORT).into())?;
        datagrams.set_patience(PATIENCE);
        Ok(datagrams)
    })?;
    let mut sequence = 0;
    let client = client(format!("socket {number} to {vip}"), move |_| {
        sequence += 1;
        Ok(datagrams.ping(sequence, 100)?.server)
    });
    Ok(Client {
        stays: true,
        ..client
    })
}

/// A socket for each request.
fn new_sockets(vip: IpAddr) -> Client<'static> {
    let mut number = 0;
    client(format!("new sockets to {vip}"), move |lab| {
        number += 1;
        (socket(lab, vip, number)?.ask)(lab)
    })
}

/// Lets all of them ask at their pace for a while.
fn use_for<'a>(lab: &Lab, clients: Vec<Client<'a>>, time: Duration) -> Result<Vec<Client<'a>>> {
    let over = Instant::now() + time;
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    while Instant::now() < over {
                        let began = Instant::now();
                        let server = (client.ask)(lab);
                        client.attempts.push(Attempt { began, server });
                        thread::sleep(PACE.saturating_sub(began.elapsed()));
                    }
                    client
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")))
            .collect()
    })
}

fn is_by(attempt: &Attempt, node: Node) -> bool {
    attempt.server.as_ref().is_ok_and(|server| server == node.name())
}

/// Nothing fails before, after the detection time nothing fails any more and all is answered by the other server, and
/// whatever fails in between would have been the failed server's.
fn assert_fails_over(client: &Client<'_>, failed_at: Instant) -> Result<()> {
    let (before, after): (Vec<_>, Vec<_>) = client
        .attempts
        .iter()
        .partition(|attempt| attempt.began < failed_at);
    for attempt in &before {
        attempt
            .server
            .as_ref()
            .map_err(|error| anyhow!("before: {error:#}"))?;
    }
    let failed: Vec<_> = after.iter().filter(|attempt| attempt.server.is_err()).collect();
    let last = failed.last().map(|attempt| attempt.began - failed_at);
    measured(&format!(
        "{}: {} requests, web1 answered {} before; {} of {} failed afterwards{}",
        client.name,
        client.attempts.len(),
        before.iter().filter(|attempt| is_by(attempt, Node::Web1)).count(),
        failed.len(),
        after.len(),
        last.map_or_else(String::new, |last| format!(
            ", the last after {} ms",
            last.as_millis()
        )),
    ));
    ensure!(
        last.is_none_or(|last| last <= DETECTION + SLACK),
        "a request failed after {last:?}"
    );
    let later: Vec<_> = after
        .iter()
        .filter(|attempt| attempt.began > failed_at + DETECTION + SLACK)
        .collect();
    ensure!(
        later.len() > 10 && later.iter().all(|attempt| is_by(attempt, Node::Web2)),
        "of {} late requests not all were answered by web2",
        later.len()
    );
    let talked_to_web1 = before.iter().any(|attempt| is_by(attempt, Node::Web1));
    ensure!(
        talked_to_web1 || failed.is_empty() || !client.stays,
        "requests of a client of web2 failed"
    );
    Ok(())
}
