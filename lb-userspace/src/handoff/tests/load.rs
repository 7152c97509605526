//! Hand-offs under load: clients that never pause keep their connections as long as they are let, and lose no request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::rig::{Files, NAME, Web, application, connect, detail, free_port, get, hand_over, site, text};
use crate::config::Site;
use crate::handoff::certificate::wanted;
use crate::handoff::drain::{DrainOutcome, Drainer};

const CLIENTS: usize = 8;

/// What the engine does, as far as new connections and their number go: it sends each client's next connection to a
/// server that is not drained.
#[derive(Default)]
struct Balancer {
    servers: Mutex<HashMap<String, Backend>>,
    next: AtomicUsize,
}

struct Backend {
    address: SocketAddr,
    drained: bool,
    connections: u64,
}

impl Balancer {
    fn change<T>(&self, server: &str, change: impl FnOnce(&mut Backend) -> T) -> T {
        change(self.servers.lock().unwrap().get_mut(server).unwrap())
    }

    /// The server of a new connection.
    fn choose(&self) -> (String, SocketAddr) {
        let mut servers = self.servers.lock().unwrap();
        let mut eligible: Vec<_> = servers
            .iter_mut()
            .filter(|(_, backend)| !backend.drained)
            .collect();
        eligible.sort_by_key(|(name, _)| (*name).clone());
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % eligible.len();
        let (name, backend) = eligible.swap_remove(turn);
        backend.connections += 1;
        (name.clone(), backend.address)
    }
}

impl Drainer for Balancer {
    async fn drain(&self, server: &str) -> Result<DrainOutcome, String> {
        self.change(server, |backend| backend.drained = true);
        Ok(DrainOutcome::Draining)
    }

    async fn connections(&self, server: &str) -> Result<u64, String> {
        Ok(self.change(server, |backend| backend.connections))
    }

    async fn undrain(&self, server: &str) -> Result<(), String> {
        self.change(server, |backend| backend.drained = false);
        Ok(())
    }

    fn undrain_later(&self, _server: &str) {}
}

/// Requests without a pause; connects anew only when told to by `Connection: close`. Returns how many were answered.
async fn client(balancer: Arc<Balancer>, stop: Arc<AtomicBool>) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let (server, address) = balancer.choose();
        let mut requests = connect(address).await;
        loop {
            let response = requests
                .send_request(get(NAME, &[]))
                .await
                .expect("no request is lost");
            assert_eq!(response.status(), 200);
            let last = response
                .headers()
                .get("connection")
                .is_some_and(|value| value == "close");
            assert!(!text(response).await.is_empty());
            answered += 1;
            if last || stop.load(Ordering::Relaxed) {
                break;
            }
        }
        balancer.change(&server, |backend| backend.connections -= 1);
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_end_by_themselves_and_no_request_is_lost() {
    let (files, application) = (Files::new(), application().await);
    let webs = ["web1", "web2"].map(|name| Web::new(name, free_port()));
    // Web servers on one host cannot share a port, and a site has one: a site each.
    let sites = webs.each_ref().map(|web| Site {
        keepalive_time: Duration::from_millis(700),
        drain_timeout: Duration::from_secs(20),
        ..site(&files, &[web], application)
    });
    let balancer = Arc::new(Balancer::default());
    for web in &webs {
        let backend = Backend {
            address: web.server.address,
            drained: false,
            connections: 0,
        };
        balancer
            .servers
            .lock()
            .unwrap()
            .insert(web.server.name.clone(), backend);
    }
    for site in &sites {
        assert!(hand_over(site, &*balancer).await.ok);
    }

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(balancer.clone(), stop.clone())))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    files.renew();
    for (site, web) in sites.iter().zip(&webs) {
        let applied = hand_over(site, &*balancer).await;
        assert!(applied.ok, "{applied:#?}");
        let [server] = &applied.servers[..] else {
            panic!("one server")
        };
        assert_eq!(detail(server, "drain"), "no connections left");
        let took = server
            .steps
            .iter()
            .find(|step| step.step == "drain")
            .unwrap()
            .took;
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(web.served().await, Some(wanted(site).unwrap().fingerprint));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let answered = client.await.expect("the client lost no request");
        assert!(answered > 100, "{answered}");
    }
}
