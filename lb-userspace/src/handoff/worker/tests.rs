//! The worker in this process, real shells, and a configuration file that it reads by itself.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::config::{self, Config, Site, ThisHost};
use crate::handoff::certificate::Material;

const LONG: Duration = Duration::from_secs(10);

/// A configuration, its certificate, and the worker that reads them.
struct Rig {
    directory: TempDir,
    worker: Arc<SiteWorker>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

impl Rig {
    /// `test` and `stage` are the scripts of these steps, which are run in the rig's directory.
    fn new(scripts: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (orders, theirs) = protocol::pair().unwrap();
        let file = directory.path().join("lb.toml");
        let serving = tokio::spawn(async move { serve(theirs, &file).await });
        // Stands for the process, and ends by itself.
        let process = Command::new("true").spawn().unwrap();
        let worker = Arc::new(SiteWorker {
            orders,
            process: Mutex::new(process),
        });
        let rig = Self {
            directory,
            worker,
            serving,
        };
        rig.renew();
        rig.write(scripts);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn renew(&self) {
        let pair = rcgen::generate_simple_self_signed(["www.foobar.com".to_owned()]).unwrap();
        fs::write(self.path("site.pem"), pair.cert.pem()).unwrap();
        fs::write(self.path("site.key"), pair.signing_key.serialize_pem()).unwrap();
    }

    fn write(&self, scripts: &str) {
        let directory = self.directory.path().display();
        let text = format!(
            "[daemon]\ninterfaces = [\"lo\"]\n[[service]]\nname = \"www\"\nvip = \"203.0.113.10\"\nport = 443\n\
             [site]\nserver_names = [\"www.foobar.com\"]\ncertificate = \"site.pem\"\nkey = \"site.key\"\n\
             upstream = [\"127.0.0.1:8080\"]\n[[site.server]]\nname = \"web1\"\naddress = \"198.18.1.2:443\"\n\
             directory = \"{directory}/lb\"\nvia = [\"env\", \"-C\", \"{directory}\", \"sh\", \"-c\"]\n\
             [site.server.scripts]\n{scripts}"
        );
        fs::write(self.path("lb.toml"), text).unwrap();
    }

    /// As `lbd` has read it.
    fn site(&self) -> Site {
        let config: Config = config::load(&self.path("lb.toml"), &ThisHost).unwrap();
        config.site.unwrap()
    }

    fn release(site: &Site) -> Release {
        Release::new(site, &site.servers[0], &Material::read(site).unwrap()).unwrap()
    }

    async fn run(&self, step: Step, site: &Site, release: &Release) -> Result<(), String> {
        self.worker.run(step, &site.servers[0], release, LONG).await
    }
}

#[tokio::test]
async fn it_stages_the_release_that_is_meant_and_tells_what_failed() {
    let rig = Rig::new("stage = \"cat > staged\"\ntest = \"echo no good; exit 3\"\n");
    let site = rig.site();
    let release = Rig::release(&site);
    rig.run(Step::Stage, &site, &release).await.unwrap();
    assert_eq!(fs::read(rig.path("staged")).unwrap(), release.tar);
    let error = rig.run(Step::Test, &site, &release).await.unwrap_err();
    assert_eq!(error, "exit status: 3: no good");
}

#[tokio::test]
async fn it_runs_nothing_but_what_the_file_says_now() {
    let rig = Rig::new("test = \"touch ran\"\nstage = \"touch ran\"\n");
    let read_before = rig.site();
    let release = Rig::release(&read_before);
    rig.write("test = \"touch ran_otherwise\"\nstage = \"touch ran\"\n");
    let error = rig.run(Step::Test, &read_before, &release).await.unwrap_err();
    assert!(
        error.contains("another [[site.server]] than lbd means"),
        "{error}"
    );
    assert!(error.contains("`lbctl reload`, then apply again"), "{error}");

    let mut elsewhere = rig.site();
    elsewhere.servers[0].name = "web2".to_owned();
    let error = rig.run(Step::Test, &elsewhere, &release).await.unwrap_err();
    assert!(
        error.contains("another [[site.server]] than lbd means"),
        "{error}"
    );

    rig.renew();
    let error = rig.run(Step::Stage, &rig.site(), &release).await.unwrap_err();
    assert!(error.contains("another [site], certificate or key"), "{error}");

    fs::write(rig.path("lb.toml"), "[daemon]\n").unwrap();
    let error = rig.run(Step::Test, &read_before, &release).await.unwrap_err();
    assert!(
        error.contains("lb.toml:1: daemon interfaces is missing"),
        "{error}"
    );
    assert!(!rig.path("ran").exists() && !rig.path("ran_otherwise").exists());
}

#[tokio::test]
async fn a_release_does_not_lead_out_of_the_directory() {
    let rig = Rig::new("test = \"touch ran\"\n");
    let site = rig.site();
    let release = Release {
        id: "../../../../tmp/x".to_owned(),
        ..Rig::release(&site)
    };
    let error = rig.run(Step::Test, &site, &release).await.unwrap_err();
    assert_eq!(error, "\"../../../../tmp/x\" is no release");
    assert!(!rig.path("ran").exists());
}

/// Waits for a file with a process's number, then for the end of that process.
async fn started(rig: &Rig) -> String {
    for _ in 0..500 {
        if let Ok(pid) = fs::read_to_string(rig.path("pid"))
            && pid.ends_with('\n')
        {
            return pid.trim().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the script did not start");
}

async fn is_gone(pid: &str) -> bool {
    for _ in 0..500 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

const SLEEPS: &str = "test = \"echo $$ > pid; exec sleep 60\"\n";

#[tokio::test]
async fn an_order_that_is_taken_back_ends_the_script() {
    let rig = Rig::new(SLEEPS);
    let site = rig.site();
    let release = Rig::release(&site);
    let pid = tokio::select! {
        result = rig.run(Step::Test, &site, &release) => panic!("{result:?}"),
        pid = started(&rig) => pid,
    };
    assert!(is_gone(&pid).await);
    rig.write("test = \"exit 0\"\n");
    rig.run(Step::Test, &rig.site(), &release).await.unwrap();
}

#[tokio::test]
async fn a_script_has_its_time_and_no_more() {
    let rig = Rig::new(SLEEPS);
    let (site, begun) = (rig.site(), Instant::now());
    let limit = Duration::from_millis(300);
    let release = Rig::release(&site);
    let error = rig
        .worker
        .run(Step::Test, &site.servers[0], &release, limit)
        .await;
    assert_eq!(error.unwrap_err(), "killed: not done after 300ms");
    assert!(begun.elapsed() < LONG);
}

#[tokio::test]
async fn without_lbd_it_ends_with_all_that_it_runs() {
    let rig = Rig::new(SLEEPS);
    let site = rig.site();
    let release = Rig::release(&site);
    let (worker, server) = (rig.worker.clone(), site.servers[0].clone());
    let order = tokio::spawn(async move { worker.run(Step::Test, &server, &release, LONG).await });
    let pid = started(&rig).await;
    // As if killed: its end of everything is closed.
    nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(&rig.worker.orders),
        nix::sys::socket::Shutdown::Both,
    )
    .unwrap();
    rig.serving.await.unwrap().unwrap();
    assert!(is_gone(&pid).await);
    let error = order.await.unwrap().unwrap_err();
    assert!(
        error.contains("has ended (exit status: 0); restart lbd"),
        "{error}"
    );
}

#[tokio::test]
async fn a_worker_that_is_gone_is_named() {
    let rig = Rig::new("test = \"exit 0\"\n");
    let (site, id) = (rig.site(), rig.worker.id());
    assert!(is_gone(&id.to_string()).await);
    rig.serving.abort();
    let release = Rig::release(&site);
    for _ in 0..2 {
        let error = rig.run(Step::Test, &site, &release).await.unwrap_err();
        let named = "the site worker, which runs the scripts, has ended (exit status: 0); restart lbd to have one again";
        assert_eq!(error, named);
    }
}

#[tokio::test]
async fn what_is_no_order_is_refused() {
    let rig = Rig::new("test = \"exit 0\"\n");
    for text in ["\n", "{}\n", "rm -rf /\n", "{\"step\":\"test\"}\n"] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        protocol::pass(&rig.worker.orders, &std::os::fd::AsFd::as_fd(&theirs)).unwrap();
        drop(theirs);
        let mut ours = BufReader::new(ours);
        ours.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        ours.read_line(&mut answer).await.unwrap();
        assert!(answer.contains("not an order"), "{answer}");
    }
}
