//! What `cargo xtask run` shows once the site is up: a gentle load, and what the balancer and the servers make of it.

use std::io::{IsTerminal, Write, stdout};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use crate::lab::{AppStats, Lab, Node, Status, VIP};
use crate::signals;

/// From the start of one request to the start of the next: about ten a second.
const PACE: Duration = Duration::from_millis(100);

/// What has come of the load so far.
#[derive(Debug, Clone, Default)]
struct Load {
    answered: u64,
    failed: u64,
    last_failure: String,
}

/// Makes requests and shows what happens, until the user interrupts.
///
/// # Errors
/// When nothing can be shown: standard output is closed.
pub fn show(lab: &Lab) -> Result<()> {
    let load = Mutex::new(Load::default());
    thread::scope(|scope| {
        scope.spawn(|| make_requests(lab, &load));
        let shown = show_until_interrupted(lab, &load);
        // However it ended, it ends for the other thread too.
        signals::interrupt();
        shown
    })
}

fn make_requests(lab: &Lab, load: &Mutex<Load>) {
    while !signals::interrupted() {
        let started = Instant::now();
        let outcome = match lab.https_requests(VIP, 1) {
            Ok(requests) => requests.failures.into_iter().next(),
            Err(error) => Some(format!("{error:#}")),
        };
        // Ctrl-C reaches curl too.
        if let Ok(mut load) = load.lock()
            && !signals::interrupted()
        {
            match outcome {
                None => load.answered += 1,
                Some(failure) => {
                    load.failed += 1;
                    load.last_failure = failure;
                }
            }
        }
        thread::sleep(PACE.saturating_sub(started.elapsed()));
    }
}

fn show_until_interrupted(lab: &Lab, load: &Mutex<Load>) -> Result<()> {
    let (on_terminal, started) = (stdout().is_terminal(), Instant::now());
    let mut next = started;
    while !signals::interrupted() {
        if Instant::now() < next {
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        next += Duration::from_secs(1);
        let load = load.lock().map(|load| load.clone()).unwrap_or_default();
        let moment = Moment {
            seconds: started.elapsed().as_secs(),
            load,
            status: lab.status(),
            lbctl: lab.lbctl_for_humans(),
            servers: Node::WEB.map(|node| (node, lab.app_stats(node).ok())),
        };
        if signals::interrupted() {
            break;
        }
        let mut output = stdout().lock();
        if on_terminal {
            // Home, then each line to its end, then the rest of the screen: no flicker.
            let frame = moment.frame().replace('\n', "\x1b[K\n");
            write!(
                output,
                "\x1b[H{}{frame}\x1b[J",
                if moment.seconds == 0 { "\x1b[2J" } else { "" }
            )?;
        } else {
            writeln!(output, "{}", moment.line())?;
        }
        output.flush()?;
    }
    Ok(())
}

/// All that is known at one moment.
struct Moment {
    seconds: u64,
    load: Load,
    status: Result<Status>,
    lbctl: String,
    servers: [(Node, Option<AppStats>); 2],
}

impl Moment {
    /// A screen full.
    fn frame(&self) -> String {
        let Load {
            answered,
            failed,
            last_failure,
        } = &self.load;
        let mut text = format!(
            "client → https://www.foobar.com ({VIP})   {} s   {answered} requests answered, {failed} failed\n",
            self.seconds
        );
        if *failed > 0 {
            text.push_str(&format!("last failure: {last_failure}\n"));
        }
        text.push_str(&format!("\n{}\n\n", self.backends()));
        for (node, stats) in &self.servers {
            text.push_str(&match stats {
                Some(stats) => {
                    format!(
                        "{node} has answered {} requests and {} probes\n",
                        stats.requests, stats.health
                    )
                }
                None => format!("{node} is stopped\n"),
            });
        }
        text.push_str(&format!(
            "\nin another terminal:\n\
             \x20 cargo xtask lab stop web1      cargo xtask lab start web1\n\
             \x20 cargo xtask lab exec client -- curl https://www.foobar.com\n\
             \x20 {} status\n\
             Ctrl-C takes everything down\n",
            self.lbctl
        ));
        text
    }

    fn backends(&self) -> String {
        let status = match &self.status {
            Ok(status) => status,
            Err(error) => return format!("lbd does not answer: {error:#}"),
        };
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "backend",
            "state",
            "connections",
            "opened",
            "packets in",
            "out",
            "bytes in",
            "out",
            "health",
        ]);
        for column in 2..8 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for (service, backend) in status.backends() {
            let traffic = &backend.traffic;
            let numbers = [
                traffic.connections,
                traffic.opened,
                traffic.packets_in,
                traffic.packets_out,
                traffic.bytes_in,
                traffic.bytes_out,
            ];
            let mut row = vec![format!("{service}/{}", backend.name), backend.state.clone()];
            row.extend(numbers.map(|number| number.to_string()));
            row.push(backend.health.reason.clone());
            table.add_row(row);
        }
        table.trim_fmt()
    }

    /// One line, for where output is not a terminal.
    fn line(&self) -> String {
        let Load { answered, failed, .. } = &self.load;
        let mut words = vec![format!(
            "{} s: {answered} answered, {failed} failed",
            self.seconds
        )];
        match &self.status {
            Ok(status) => words.extend(status.backends().map(|(service, it)| {
                format!("{service}/{} {} {} opened", it.name, it.state, it.traffic.opened)
            })),
            Err(error) => words.push(format!("lbd does not answer: {error:#}")),
        }
        words.join("; ")
    }
}
