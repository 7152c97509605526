//! Hand-offs that fail: what stays, what is put back, what is said.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use super::rig::{Files, NAME, Notes, Web, application, detail, free_port, hand_over, site, steps};
use crate::config::Site;
use crate::handoff::apply::{Limits, apply};
use crate::handoff::certificate::wanted;
use crate::handoff::{Hands, render, verify};

/// A server that serves a first release, and a second one that waits to be handed over.
struct Served {
    files: Files,
    web: Web,
    site: Site,
    fingerprint: String,
    release: String,
}

impl Served {
    async fn new() -> Self {
        let (files, web) = (Files::new(), Web::new("web1", free_port()));
        let site = site(&files, &[&web], application().await);
        let applied = hand_over(&site, &Notes::new()).await;
        assert!(applied.ok, "{applied:#?}");
        let fingerprint = wanted(&site).unwrap().fingerprint;
        let release = web.link("current").unwrap();
        files.renew();
        Self {
            files,
            web,
            site,
            fingerprint,
            release,
        }
    }

    /// Everything is as after the first release.
    async fn assert_as_before(&self) {
        assert_eq!(self.web.link("current"), Some(self.release.clone()));
        assert_eq!(self.web.served().await, Some(self.fingerprint.clone()));
    }

    /// And the second one still can be handed over.
    async fn assert_can_be_completed(&mut self) {
        self.site.servers = vec![self.web.server.clone()];
        let applied = hand_over(&self.site, &Notes::new()).await;
        assert!(applied.ok, "{applied:#?}");
        assert_eq!(
            self.web.served().await,
            Some(wanted(&self.site).unwrap().fingerprint)
        );
        assert_eq!(self.web.link("previous"), Some(self.release.clone()));
    }
}

#[tokio::test]
async fn a_certificate_that_clients_would_refuse_is_not_handed_over() {
    let mut served = Served::new().await;
    for (years, words) in [
        ((2020, 2021), "the certificate expired on 2021-01-01T00:00:00Z"),
        (
            (3000, 3001),
            "the certificate is not valid before 3000-01-01T00:00:00Z",
        ),
    ] {
        served.files.renew_for(years);
        let notes = Notes::new();
        let applied = hand_over(&served.site, &notes).await;
        assert!(!applied.ok && !applied.servers[0].ok);
        assert_eq!(steps(&applied.servers[0]), "stage!");
        let said = detail(&applied.servers[0], "stage");
        assert!(said.contains(words), "{said}");
        assert_eq!(notes.calls(), "");
        served.assert_as_before().await;
    }
    served.files.renew();
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_before_anything_is_touched() {
    let mut served = Served::new().await;
    let other = Files::new();
    std::fs::copy(other.key(), served.files.key()).unwrap();
    let notes = Notes::new();
    let applied = hand_over(&served.site, &notes).await;
    assert!(!applied.ok && !applied.servers[0].ok);
    assert_eq!(steps(&applied.servers[0]), "stage!");
    let said = detail(&applied.servers[0], "stage");
    assert!(
        said.starts_with("not begun: the key ") && said.contains("site.key"),
        "{said}"
    );
    assert!(
        render(&served.site)
            .unwrap_err()
            .to_string()
            .contains("is not that of the certificate")
    );
    assert_eq!(notes.calls(), "");
    assert_eq!(served.web.releases(), [served.release.as_str()]);
    served.assert_as_before().await;
    served.files.renew();
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn files_that_are_no_certificate_or_key_are_named() {
    let files = Files::new();
    let web = Web::new("web1", free_port());
    let site = site(&files, &[&web], "127.0.0.1:1".parse().unwrap());
    std::fs::write(files.key(), "no key").unwrap();
    assert!(render(&site).unwrap_err().to_string().contains("site.key: "));
    std::fs::write(files.certificate(), "nothing").unwrap();
    assert!(
        render(&site)
            .unwrap_err()
            .to_string()
            .contains("site.pem: no certificate in it; ")
    );
    std::fs::remove_file(files.certificate()).unwrap();
    assert!(
        render(&site)
            .unwrap_err()
            .to_string()
            .contains("site.pem: No such file")
    );
}

#[tokio::test]
async fn a_configuration_that_one_nginx_refuses_is_switched_nowhere() {
    let mut served = Served::new().await;
    let second = Web::new("web2", free_port());
    let mut server = second.server.clone();
    // Its nginx does not understand what is staged.
    server.scripts.stage = Some(
        "mkdir -p \"$LB_DIRECTORY/releases/$LB_RELEASE\" && cd \"$LB_DIRECTORY/releases/$LB_RELEASE\" && tar -x && \
         echo 'nonsense;' >>site.conf"
            .to_owned(),
    );
    served.site.servers.push(server);
    let notes = Notes::new();
    let applied = hand_over(&served.site, &notes).await;
    assert!(!applied.ok);
    assert_eq!(
        applied.servers.iter().map(steps).collect::<Vec<_>>(),
        ["stage test swap!", "stage test!"]
    );
    assert_eq!(
        detail(&applied.servers[0], "swap"),
        "not begun: web2 failed; nothing was switched on any server"
    );
    let said = detail(&applied.servers[1], "test");
    assert!(
        said.contains("unknown directive \"nonsense\"") && said.contains("site.conf:"),
        "{said}"
    );
    assert_eq!(notes.calls(), "");
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_dead_nginx_gets_its_files_back() {
    let mut served = Served::new().await;
    served.web.stop();
    let notes = Notes::new();
    let applied = hand_over(&served.site, &notes).await;
    assert!(!applied.ok && !applied.servers[0].ok);
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload! restore! undrain"
    );
    let said = detail(&applied.servers[0], "reload");
    assert!(
        said.ends_with("nginx cannot be told to reload: is it running?"),
        "{said}"
    );
    let said = detail(&applied.servers[0], "restore");
    assert!(
        said.contains("as before the hand-off: it serves no certificate"),
        "{said}"
    );
    assert_eq!(notes.calls(), "drain web1, undrain web1");

    served.web.start();
    tokio::time::sleep(Duration::from_millis(300)).await;
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_hanging_script_is_killed_and_the_server_restored() {
    let mut served = Served::new().await;
    let pid_file = served.web.directory().with_file_name("pid");
    let server = &mut served.site.servers[0];
    server.scripts.reload = Some(format!(
        "echo $$ >'{}'; exec sleep 60",
        pid_file.display().to_string().replace('\'', r"'\''")
    ));
    server.scripts.restore = Some(
        "cd \"$LB_DIRECTORY\" && ln -sfn \"$(readlink previous)\" current && eval \"$LB_NGINX -s reload\""
            .to_owned(),
    );
    let begun = Instant::now();
    let limits = Limits {
        step: Duration::from_secs(2),
        verify: Duration::from_secs(2),
    };
    let applied = apply(&served.site, &Notes::new(), &Hands::Own, limits).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload! restore undrain"
    );
    assert_eq!(detail(&applied.servers[0], "reload"), "killed: not done after 2s");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert!(!std::fs::exists(format!("/proc/{}", pid.trim())).unwrap());
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_reload_that_does_nothing_is_found_out() {
    let mut served = Served::new().await;
    served.site.servers[0].scripts.reload = Some("true".to_owned());
    let applied = hand_over(&served.site, &Notes::new()).await;
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload verify! restore undrain"
    );
    let said = detail(&applied.servers[0], "verify");
    assert!(
        said.contains(&format!("it serves the certificate {}", served.fingerprint)),
        "{said}"
    );
    assert!(said.contains("current/site.conf*"), "{said}");
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_server_that_serves_another_certificate_is_restored() {
    // The address leads elsewhere, so the web server itself takes the new release and must be put back.
    let mut served = Served::new().await;
    let elsewhere = Served::new().await;
    served.site.servers[0].address = elsewhere.web.server.address;
    let applied = hand_over(&served.site, &Notes::new()).await;
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload verify! restore undrain"
    );
    let said = detail(&applied.servers[0], "restore");
    assert_eq!(
        said,
        format!(
            "as before the hand-off: it serves the certificate {}",
            elsewhere.fingerprint
        )
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_conflict_with_the_web_servers_own_configuration_is_found_before_the_reload() {
    let mut served = Served::new().await;
    let port = served.site.https_port;
    served
        .web
        .configure(&format!("server {{ listen {port} default_server; }}"));
    let applied = hand_over(&served.site, &Notes::new()).await;
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload! restore! undrain"
    );
    let said = detail(&applied.servers[0], "reload");
    assert!(said.contains("a duplicate default server"), "{said}");
    served.assert_as_before().await;
    served.web.configure("");
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_reload_that_fails_later_is_found_out_though_the_certificate_is_the_same() {
    // `nginx -t` does not mind a port in use; the running nginx then keeps its old configuration, and tells only its log.
    let (files, web) = (Files::new(), Web::new("web1", free_port()));
    let mut site = site(&files, &[&web], application().await);
    assert!(hand_over(&site, &Notes::new()).await.ok);
    let release = web.link("current");
    let taken = tokio::net::TcpListener::bind(("0.0.0.0", free_port()))
        .await
        .unwrap();
    site.http_port = NonZeroU16::new(taken.local_addr().unwrap().port());
    // nginx tries to bind for 2.5 s.
    let limits = Limits {
        step: Duration::from_secs(10),
        verify: Duration::from_secs(4),
    };
    let applied = apply(&site, &Notes::new(), &Hands::Own, limits).await;
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload verify! restore undrain"
    );
    assert!(web.error_log().contains("Address already in use"));
    assert_eq!(web.link("current"), release);
}

#[tokio::test]
async fn a_first_hand_off_that_fails_leaves_nothing_current() {
    let (files, web) = (Files::new(), Web::new("web1", free_port()));
    let mut site = site(&files, &[&web], application().await);
    site.servers[0].scripts.reload = Some("echo no >&2; exit 9".to_owned());
    let applied = hand_over(&site, &Notes::new()).await;
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload! restore! undrain"
    );
    assert_eq!(detail(&applied.servers[0], "reload"), "exit status: 9: no");
    assert_eq!((web.link("current"), web.link("previous")), (None, None));
    assert_eq!(web.served().await, None);
}

#[tokio::test]
async fn the_servers_before_a_failing_one_keep_the_new_release_and_those_after_it_the_old() {
    let webs = ["web1", "web2", "web3"].map(|name| Web::new(name, free_port()));
    let files = Files::new();
    let application = application().await;
    // Each has a port of its own; the site has one: so one hand-off each to begin with.
    for web in &webs {
        assert!(
            hand_over(&site(&files, &[web], application), &Notes::new())
                .await
                .ok
        );
    }
    let first = wanted(&site(&files, &[&webs[0]], application))
        .unwrap()
        .fingerprint;
    files.renew();
    let mut site = site(&files, &[&webs[0], &webs[1], &webs[2]], application);
    site.servers[1].scripts.swap = Some("echo 'no space' >&2; exit 1".to_owned());
    site.servers[1].scripts.stage = Some("cat >/dev/null".to_owned());
    site.servers[1].scripts.test = Some("true".to_owned());
    site.servers[2].scripts.test = Some("true".to_owned());
    let notes = Notes::new();
    let applied = hand_over(&site, &notes).await;
    assert!(!applied.ok);
    assert_eq!(
        applied.servers.iter().map(|server| server.ok).collect::<Vec<_>>(),
        [true, false, false]
    );
    assert_eq!(
        steps(&applied.servers[1]),
        "stage test drain swap! restore undrain"
    );
    assert_eq!(detail(&applied.servers[1], "swap"), "exit status: 1: no space");
    assert_eq!(steps(&applied.servers[2]), "stage test swap!");
    assert_eq!(
        detail(&applied.servers[2], "swap"),
        "not begun: the hand-off stopped at web2; the new configuration is served by web1"
    );
    assert_eq!(
        notes.calls(),
        "drain web1, undrain web1, drain web2, undrain web2"
    );
    let second = wanted(&site).unwrap().fingerprint;
    let served = [
        webs[0].served().await,
        webs[1].served().await,
        webs[2].served().await,
    ];
    assert_eq!(served, [Some(second), Some(first.clone()), Some(first)]);
}

#[tokio::test]
async fn a_load_balancer_that_cannot_drain_ends_the_hand_off() {
    let mut served = Served::new().await;
    let notes = Notes {
        outcome: Err("the table is gone".to_owned()),
        ..Notes::new()
    };
    let applied = hand_over(&served.site, &notes).await;
    assert_eq!(steps(&applied.servers[0]), "stage test drain! undrain");
    assert_eq!(detail(&applied.servers[0], "drain"), "the table is gone");
    assert_eq!(notes.calls(), "drain web1, undrain web1");
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn a_drain_that_cannot_be_taken_back_is_tried_again_and_ends_the_hand_off() {
    let served = Served::new().await;
    let notes = Notes {
        stuck: true,
        ..Notes::new()
    };
    let applied = hand_over(&served.site, &notes).await;
    assert_eq!(
        steps(&applied.servers[0]),
        "stage test drain swap reload verify undrain!"
    );
    assert!(!applied.ok && !applied.servers[0].ok);
    assert_eq!(notes.calls(), "drain web1, undrain web1, undrain later web1");
}

#[tokio::test]
async fn a_dropped_hand_off_is_undrained_and_completed_by_the_next() {
    let mut served = Served::new().await;
    let notes = Notes::new();
    // Stopped after the swap, before the reload.
    served.site.servers[0].scripts.reload = Some("sleep 60".to_owned());
    let dropped = tokio::time::timeout(Duration::from_secs(3), hand_over(&served.site, &notes)).await;
    assert!(dropped.is_err());
    assert_eq!(notes.calls(), "drain web1, undrain later web1");
    assert_ne!(served.web.link("current"), Some(served.release.clone()));
    assert_eq!(served.web.served().await, Some(served.fingerprint.clone()));

    // The same release fails on the next try: back to what nginx has been serving all along.
    served.site.servers[0].scripts.reload = Some("exit 1".to_owned());
    let _ = hand_over(&served.site, &notes).await;
    served.assert_as_before().await;
    served.assert_can_be_completed().await;
}

#[tokio::test]
async fn nothing_answers_where_nobody_listens() {
    let address = ([127, 0, 0, 1], free_port()).into();
    assert!(verify::leaf(address, NAME).await.unwrap_err().contains("refused"));
    // Somebody who accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = verify::leaf(silent.local_addr().unwrap(), NAME)
        .await
        .unwrap_err();
    assert!(error.contains("does not answer within 3 s"), "{error}");
}
