//! `lbd --cleanup`: the host as it was before the first start.

use std::path::Path;

use super::notes::Notes;
use super::vips;
use crate::dataplane::{Pins, pinned_notes};

/// Takes away everything that daemons have left that used a pin directory: links, programs, tables, and the VIPs that they had put
/// on interfaces.
///
/// # Errors
/// A daemon is running, or the system refuses; what could be taken away is gone.
pub async fn clean_up(directory: &Path) -> anyhow::Result<()> {
    let pins = Pins::take(directory)?;
    // The VIPs first: a client is told by silence that nobody is there, not by a RST of this host's.
    let notes = pinned_notes(&pins).map_err(|error| anyhow::anyhow!("{error}"));
    let vips = match notes.and_then(|notes| match notes {
        Some(bytes) => Notes::read(&bytes)
            .map(|notes| notes.vips)
            .map_err(anyhow::Error::msg),
        None => Ok(Vec::new()),
    }) {
        Ok(vips) => vips,
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot tell which VIPs are on interfaces because of lbd; `ip -d address` shows them as proto 76"
            );
            Vec::new()
        }
    };
    vips::take_off(&vips).await;
    let left = pins.remove()?;
    if left.is_empty() {
        tracing::info!(directory = %directory.display(), "nothing is left");
    } else {
        tracing::info!(directory = %directory.display(), left = left.join(", "), "nothing of lbd is left");
    }
    Ok(())
}
