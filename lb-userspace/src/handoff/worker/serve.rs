//! The worker's end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::protocol::{self, Order};
use crate::config::{self, SiteServer, ThisHost};
use crate::handoff::bundle::Release;
use crate::handoff::certificate::Material;
use crate::handoff::scripts::{Step, script};
use crate::handoff::transport;

/// An order is a few hundred bytes.
const LONGEST_ORDER: u64 = 64 * 1024;

/// Carries out orders that come over `orders` until its other end is closed, by the configuration in `file`.
///
/// # Errors
/// The socket is none, or fails.
pub async fn serve(orders: OwnedFd, file: &Path) -> io::Result<()> {
    // SAFETY: it owns its descriptor and gives the same one for as long as it lives.
    let orders = unsafe { AsyncFd::register(orders)? };
    // Dropped at the end, and with it whatever still runs.
    let mut jobs = JoinSet::new();
    loop {
        let mut ready = orders.readable().await?;
        let connection = match ready.try_io(protocol::take) {
            Ok(Ok(Some(connection))) => connection,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_not_yet) => continue,
        };
        while jobs.try_join_next().is_some() {}
        let file = file.to_owned();
        jobs.spawn(async move {
            // Nobody is left to be told.
            let _ = attend(connection, &file).await;
        });
    }
}

/// One order: carried out, or given up when its connection is closed.
async fn attend(connection: OwnedFd, file: &Path) -> io::Result<()> {
    let connection = std::os::unix::net::UnixStream::from(connection);
    connection.set_nonblocking(true)?;
    let (from, mut to) = UnixStream::from_std(connection)?.into_split();
    let mut from = BufReader::new(from.take(LONGEST_ORDER));
    let mut order = String::new();
    from.read_line(&mut order).await?;
    let result = match serde_json::from_str(&order) {
        Ok(order) => tokio::select! {
            result = carry_out(&order, file) => result,
            _ = from.read_u8() => return Ok(()),
        },
        Err(error) => Err(format!("not an order: {error}; is lbd of the same version?")),
    };
    to.write_all(&protocol::line(&result)?).await
}

async fn carry_out(order: &Order, file: &Path) -> Result<(), String> {
    // It becomes part of a path.
    let is_id = order.release.len() == 16 && order.release.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Err(format!("{:?} is no release", order.release));
    }
    let config = config::load(file, &ThisHost).map_err(|error| error.to_string())?;
    let changed = |what: &str| {
        format!(
            "{} says another {what} than lbd means, which has read it before: `lbctl reload`, then apply again",
            file.display()
        )
    };
    let site = config.site.ok_or_else(|| changed("[site]"))?;
    let server: &SiteServer = site
        .servers
        .iter()
        .find(|server| server.name == order.server)
        .filter(|server| order.means(server))
        .ok_or_else(|| changed("[[site.server]]"))?;
    let input = if order.step == Step::Stage {
        let material = Material::read(&site).map_err(|error| error.to_string())?;
        let release = Release::new(&site, server, &material).map_err(|error| error.to_string())?;
        if release.id != order.release {
            return Err(changed("[site], certificate or key"));
        }
        release.tar
    } else {
        Vec::new()
    };
    let script = script(order.step, server, &order.release);
    transport::run(&server.via, &script, &input, order.limit).await
}
