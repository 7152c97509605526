//! The site is handed to the web servers while clients use it.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Result, bail, ensure};
use lb::api::types::{SiteApplied, SiteStatus};
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, SITE, VIP, run};

use crate::support::lbctl::{Said, json, lbctl};
use crate::support::wrk::Wrk;
use crate::support::{is_full, measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("handoff/new_certificate_under_load", new_certificate_under_load),
        Case::new("handoff/mismatched_key_is_refused", mismatched_key_is_refused),
        Case::new("handoff/broken_nginx_is_restored", broken_nginx_is_restored),
        Case::new("handoff/stopped_nginx_is_reported", stopped_nginx_is_reported),
    ]
}

fn new_certificate_under_load() -> Result<()> {
    let lab = site::up("lb-t-cert")?;
    let old = served(&lab, VIP)?;
    ensure!(states(&lab)? == ["current", "current"], "{:?}", states(&lab)?);
    let load = Wrk::start(&lab, if is_full() { 30 } else { 14 })?;
    lab.authority()?.issue("site", &[SITE])?;
    ensure!(states(&lab)? == ["another", "another"], "{:?}", states(&lab)?);

    let applied: SiteApplied = json(&lab, &["site", "apply"])?;
    let steps: Vec<_> = applied
        .servers
        .iter()
        .flat_map(|server| {
            server
                .steps
                .iter()
                .map(|it| format!("{} {} {} ms", server.server, it.step, it.took.as_millis()))
        })
        .collect();
    measured(&format!("hand-off under load: {}", steps.join(", ")));
    let drains = applied
        .servers
        .iter()
        .flat_map(|server| &server.steps)
        .filter(|it| it.step == "drain");
    for drain in drains {
        ensure!(drain.detail == "no connections left", "{drain:?}");
    }
    let figures = load.end()?;
    measured(&format!(
        "wrk meanwhile: {} requests, {:?}",
        figures.requests, figures.errors
    ));
    ensure!(figures.errors.is_empty(), "{figures:?}");

    ensure!(states(&lab)? == ["current", "current"], "{:?}", states(&lab)?);
    let wanted = fs::read_to_string(lab.file("site.pem"))?;
    for address in [VIP, Node::Web1.address(), Node::Web2.address()] {
        let new = served(&lab, address)?;
        ensure!(
            new != old && new.trim() == wanted.trim(),
            "{address} serves\n{new}"
        );
    }
    site::assert_split(&lab, 20, 10, 10)?;

    let rendered = lbctl(&lab, &["site", "render", "--server", "web1"])?;
    ensure!(rendered.code == 0, "{rendered:?}");
    let current = fs::read_to_string(lab.web(Node::Web1).handed_over().join("current/site.conf"))?;
    ensure!(
        rendered.out == current,
        "rendered\n{}\nin force\n{current}",
        rendered.out
    );
    ensure!(
        lbctl(&lab, &["site", "render", "--server", "web9"])?.code == 4,
        "web9 was rendered"
    );
    lab.down()
}

fn mismatched_key_is_refused() -> Result<()> {
    let lab = site::up("lb-t-key")?;
    let old = served(&lab, VIP)?;
    lab.authority()?.mismatched_key("site")?;
    let said = apply_that_fails(&lab)?;
    ensure!(
        said.out.contains("site.key is not that of the certificate") && said.err.contains("web1, web2"),
        "{said:?}"
    );
    ensure!(served(&lab, VIP)? == old, "another certificate is served");
    site::assert_split(&lab, 10, 5, 5)?;
    lab.down()
}

/// Its configuration is broken beside what is handed over: the test of that passes, the reload does not.
fn broken_nginx_is_restored() -> Result<()> {
    let lab = site::up("lb-t-broken")?;
    let old = served(&lab, VIP)?;
    let web2 = lab.web(Node::Web2).handed_over().with_file_name("nginx.conf");
    let whole = fs::read_to_string(&web2)?;
    let current = lab.web(Node::Web2).handed_over().join("current");
    let release = fs::read_link(&current)?;
    writeln!(File::options().append(true).open(&web2)?, "nonsense;")?;
    lab.authority()?.issue("site", &[SITE])?;
    let said = apply_that_fails(&lab)?;
    ensure!(
        said.out.contains("unknown directive \"nonsense\"") && said.err.contains("(failed: web2)"),
        "{said:?}"
    );
    ensure!(
        said.out.contains("web1  serves it") && said.out.contains("restore"),
        "{said:?}"
    );
    ensure!(states(&lab)? == ["current", "another"], "{:?}", states(&lab)?);
    ensure!(
        served(&lab, Node::Web2.address())? == old,
        "web2 does not serve what it served"
    );
    ensure!(
        fs::read_link(&current)? == release,
        "a later reload would bring {:?}",
        fs::read_link(&current)?
    );
    // The old one and the new one are both good, and neither server is left drained.
    site::assert_split(&lab, 20, 10, 10)?;

    fs::write(&web2, whole)?;
    lab.apply_site()?;
    ensure!(states(&lab)? == ["current", "current"], "{:?}", states(&lab)?);
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

fn stopped_nginx_is_reported() -> Result<()> {
    let mut lab = site::up("lb-t-nonginx")?;
    lab.stop_nginx(Node::Web2)?;
    lab.authority()?.issue("site", &[SITE])?;
    let said = apply_that_fails(&lab)?;
    ensure!(said.err.contains("web2"), "{said:?}");
    let status = states(&lab)?;
    ensure!(
        status.get(1).is_some_and(|web2| web2.contains("refused")),
        "{status:?}"
    );
    // Whatever web1 serves now, clients are served.
    let requests = lab.vip_requests(10)?;
    ensure!(requests.split().get("web1") == Some(&10), "{requests:?}");

    lab.start_nginx(Node::Web2)?;
    lab.wait_until_all_up(std::time::Duration::from_secs(5))?;
    lab.apply_site()?;
    ensure!(states(&lab)? == ["current", "current"], "{:?}", states(&lab)?);
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

fn apply_that_fails(lab: &Lab) -> Result<Said> {
    let said = lbctl(lab, &["site", "apply"])?;
    ensure!(said.code == 1, "{said:?}");
    Ok(said)
}

/// What `site status` says of each web server: `current`, `another`, or why there is none.
fn states(lab: &Lab) -> Result<Vec<String>> {
    let status: SiteStatus = json(lab, &["site", "status"])?;
    let page = lbctl(lab, &["site", "status"])?.out;
    let states = status.servers.into_iter().map(|server| {
        let state = match (server.current, server.error) {
            (true, _) => "current".to_owned(),
            (false, None) => "another".to_owned(),
            (false, Some(error)) => return Ok(error),
        };
        match page.contains(&format!("{}    {state}", server.server)) {
            true => Ok(state),
            false => bail!("--json says {state} of {}, without it\n{page}", server.server),
        }
    });
    states.collect()
}

/// The certificate that a verifying client gets, as PEM.
fn served(lab: &Lab, address: std::net::Ipv4Addr) -> Result<String> {
    let url = format!("https://{SITE}/");
    let mut curl = lab.curl(address)?;
    // Past the balancer from a port of which it has not just seen a connection to this server: it would take the answers
    // for that one's.
    curl.args(["--local-port", "20000-20999"]);
    let text = run(curl.args(["--output", "/dev/null", "--write-out", "%{certs}", &url]))?;
    let Some(begin) = text.find("-----BEGIN") else {
        bail!("curl shows no certificate: {text}")
    };
    Ok(text[begin..].to_owned())
}
