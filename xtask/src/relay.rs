//! A long wire (`cargo xtask lab-relay`, hidden): two TAP devices in two network namespaces, and between them every frame
//! takes a while. Some may take longer and be overtaken. The kernel's own netem is not in every kernel.
//!
//! The devices live as long as this process.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::lab::Namespace;

/// `lab-relay`: a long wire.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One end, as NAMESPACE:DEVICE
    one: End,
    /// The other end
    other: End,
    /// What each frame takes, in microseconds
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// So many frames in a hundred take longer
    #[arg(long, default_value_t = 0)]
    reorder_percent: u8,
}

/// A device that is to be made in a namespace.
#[derive(Debug, Clone)]
pub struct End {
    namespace: String,
    device: String,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((namespace, device)) if device.len() < libc::IFNAMSIZ && !device.is_empty() => Ok(Self {
                namespace: namespace.to_owned(),
                device: device.to_owned(),
            }),
            _ => Err("write NAMESPACE:DEVICE".to_owned()),
        }
    }
}

/// By how much longer an overtaken frame takes.
pub const OVERTAKEN_BY: Duration = Duration::from_millis(2);
/// What is under way in one direction, at most; what comes on top is lost, as in a router.
const ROOM: usize = 20_000;
/// More than a TAP's frame ever has.
const LONGEST_FRAME: usize = 1 << 16;
/// So many frames are read before it is looked what is due.
const BATCH: usize = 64;

/// Relays until a device is gone.
///
/// # Errors
/// When a device cannot be made.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (one, other) = (args.one.open()?, args.other.open()?);
    let way = |from: &File, to: &File| -> Result<Way> {
        Ok(Way {
            from: from.try_clone()?,
            to: to.try_clone()?,
            delay: Duration::from_micros(args.delay),
            reorder_percent: args.reorder_percent,
            on_time: VecDeque::new(),
            late: VecDeque::new(),
        })
    };
    let ways = [way(&one, &other)?, way(&other, &one)?].map(|mut way| thread::spawn(move || way.carry()));
    for thread in ways {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(ExitCode::SUCCESS)
}

impl End {
    fn open(&self) -> Result<File> {
        Namespace::named(self.namespace.clone()).run(|| {
            let tap = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .context("cannot open /dev/net/tun")?;
            // SAFETY: integers, and a union of them; all zeros are valid.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (place, byte) in request.ifr_name.iter_mut().zip(self.device.bytes()) {
                *place = byte.cast_signed();
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: the request lives through the call, which reads and writes no more than an ifreq.
            if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
                return Err(io::Error::last_os_error())
                    .with_context(|| format!("cannot make {} in {}", self.device, self.namespace));
            }
            nix::fcntl::fcntl(&tap, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
            Ok(tap)
        })
    }
}

/// One direction.
struct Way {
    from: File,
    to: File,
    delay: Duration,
    reorder_percent: u8,
    /// Frames under way with the time at which they arrive, the next one first.
    on_time: VecDeque<(Instant, Vec<u8>)>,
    /// Likewise, those that take longer.
    late: VecDeque<(Instant, Vec<u8>)>,
}

impl Way {
    fn carry(&mut self) -> Result<()> {
        let mut frame = vec![0; LONGEST_FRAME];
        loop {
            let due = self.deliver();
            let wait = due.map(|due| TimeSpec::from(due.saturating_duration_since(Instant::now())));
            let mut readable = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut readable, wait, None) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for a frame"),
            }
            for _ in 0..BATCH {
                match self.from.read(&mut frame) {
                    Ok(length) => self.take(&frame[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => bail!("a device is gone: {error}"),
                }
            }
        }
    }

    fn take(&mut self, frame: &[u8]) {
        if self.on_time.len() + self.late.len() >= ROOM {
            return;
        }
        let due = Instant::now() + self.delay;
        if fastrand::u8(0..100) < self.reorder_percent {
            self.late.push_back((due + OVERTAKEN_BY, frame.to_vec()));
        } else {
            self.on_time.push_back((due, frame.to_vec()));
        }
    }

    /// Delivers what is due. When the next one is.
    fn deliver(&mut self) -> Option<Instant> {
        loop {
            let (on_time, late) = (self.on_time.front(), self.late.front());
            let (next, queue_is_late) = match (on_time, late) {
                (Some((on_time, _)), Some((late, _))) => (*on_time.min(late), late < on_time),
                (Some((due, _)), None) => (*due, false),
                (None, Some((due, _))) => (*due, true),
                (None, None) => return None,
            };
            if next > Instant::now() {
                return Some(next);
            }
            let queue = if queue_is_late {
                &mut self.late
            } else {
                &mut self.on_time
            };
            if let Some((_, frame)) = queue.pop_front() {
                // While the device is down nobody is there to get it.
                let _ = self.to.write(&frame);
            }
        }
    }
}
