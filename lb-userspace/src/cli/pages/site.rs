//! The hand-off to the web servers.

use crate::api::types::{SiteApplied, SiteRender, SiteServerStatus, SiteStatus};
use crate::cli::screen::{Colour, Screen};
use crate::cli::table::{Field, Rows, text};
use crate::cli::units::{clean, seconds};

/// `site render`: the configuration as it is, under its web server's name if there are several.
pub(in crate::cli) fn rendered(answer: &SiteRender) -> String {
    match answer.servers.as_slice() {
        [one] => one.nginx_conf.clone(),
        several => several
            .iter()
            .map(|server| {
                format!(
                    "# ---- {} ----\n{}\n",
                    server.server,
                    server.nginx_conf.trim_end()
                )
            })
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// `site apply`: each step on each web server.
pub(in crate::cli) fn applied(screen: &Screen, answer: &SiteApplied) -> String {
    let mut page = String::new();
    for server in &answer.servers {
        let (word, colour) = if server.ok {
            ("serves it", Colour::Good)
        } else {
            ("FAILED", Colour::Bad)
        };
        page += &format!("{}  {}\n", clean(&server.server), screen.paint(colour, word));
        let mut rows = Rows::new(screen, &["STEP", "RESULT", ">TOOK", "DETAIL"]);
        for step in &server.steps {
            let (word, colour) = if step.ok {
                ("ok", Colour::Good)
            } else {
                ("failed", Colour::Bad)
            };
            rows.row([
                text(&step.step),
                Field::Coloured(word.to_owned(), colour),
                Field::Took(step.took),
                text(step.detail.trim_end()),
            ]);
        }
        page += &rows.text(2);
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}

/// `site status`: what is served against what should be.
pub(in crate::cli) fn status(screen: &Screen, answer: &SiteStatus) -> String {
    let wanted = &answer.wanted;
    let mut page = format!(
        "wanted  {} for {}, {}\n\n",
        fingerprint(&wanted.fingerprint),
        clean(&wanted.names.join(", ")),
        expiry(wanted.expires_in_seconds)
    );
    let mut rows = Rows::new(screen, &["SERVER", "STATE", "CERTIFICATE", "EXPIRY"]);
    for server in &answer.servers {
        let (word, colour) = state(server);
        let (certificate, expires) = match &server.served {
            Some(served) => (
                fingerprint(&served.fingerprint),
                expiry(served.expires_in_seconds),
            ),
            None => (server.error.clone().unwrap_or_default(), String::new()),
        };
        rows.row([
            text(&server.server),
            Field::Coloured(word.to_owned(), colour),
            text(certificate),
            text(expires),
        ]);
    }
    page += &rows.text(0);
    page
}

fn state(server: &SiteServerStatus) -> (&'static str, Colour) {
    match (server.current, &server.served) {
        (true, _) => ("current", Colour::Good),
        (false, Some(_)) => ("another", Colour::Notice),
        (false, None) => ("no answer", Colour::Bad),
    }
}

/// Enough of it to tell certificates apart; `--json` has the whole.
fn fingerprint(whole: &str) -> String {
    clean(&whole.chars().take(16).collect::<String>())
}

fn expiry(expires_in_seconds: i64) -> String {
    let distance = seconds(expires_in_seconds.unsigned_abs());
    if expires_in_seconds < 0 {
        format!("EXPIRED {distance} ago")
    } else {
        format!("expires in {distance}")
    }
}
