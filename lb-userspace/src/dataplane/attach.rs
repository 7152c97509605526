//! Attaching the program to interfaces.

use std::borrow::Cow;

use aya::programs::{ProgramError, XdpMode as AyaMode};

use super::load::{PROGRAM, program_mut};
use super::{Dataplane, DataplaneError};
use crate::config::XdpMode;

/// An interface that the program is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Whether the driver runs the program (else the kernel does, later and slower).
    pub native: bool,
}

impl Dataplane {
    /// Attaches the program to interfaces. `Auto` means native on all of them or generic on all of them: a driver without
    /// native XDP does not take frames that are redirected from one with it, and the kernel drops them silently.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_all(&mut self, interfaces: &[String], mode: XdpMode) -> Result<(), DataplaneError> {
        for interface in interfaces {
            self.attach(interface, mode)?;
        }
        let has = |native| self.attachments.iter().any(|it| it.native == native);
        if has(true) && has(false) {
            tracing::warn!("not all interfaces can have native XDP, so all get the generic one");
            self.detach_all()?;
            for interface in interfaces {
                self.attach(interface, XdpMode::Generic)?;
            }
        }
        Ok(())
    }

    fn detach_all(&mut self) -> Result<(), DataplaneError> {
        self.attachments.clear();
        for (_, _, link) in self.links.drain(..) {
            program_mut(&mut self.ebpf, PROGRAM)?
                .detach(link)
                .map_err(|source| DataplaneError::Program {
                    program: PROGRAM,
                    source: Box::new(source),
                })?;
        }
        Ok(())
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    /// The interface has a program already, or the mode asked for is not to be had.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attachment, DataplaneError> {
        let native = match mode {
            XdpMode::Native => self.attach_as(interface, true).map(|()| true),
            XdpMode::Generic => self.attach_as(interface, false).map(|()| false),
            XdpMode::Auto => match self.attach_as(interface, true) {
                Ok(()) => Ok(true),
                Err(error) if is_busy(&error) => Err(error),
                Err(error) => {
                    let reason = attach_reason(&error);
                    tracing::warn!(
                        interface,
                        reason,
                        "no native XDP here, falling back to generic, which is slower"
                    );
                    self.attach_as(interface, false).map(|()| false)
                }
            },
        };
        let native = native.map_err(|error| DataplaneError::Attach {
            interface: interface.to_owned(),
            mode: if mode == XdpMode::Generic {
                "generic"
            } else {
                "native"
            },
            reason: attach_reason(&error),
        })?;
        let attachment = Attachment {
            interface: interface.to_owned(),
            native,
        };
        self.attachments.push(attachment.clone());
        Ok(attachment)
    }

    fn attach_as(&mut self, interface: &str, native: bool) -> Result<(), ProgramError> {
        let Ok(program) = program_mut(&mut self.ebpf, PROGRAM) else {
            return Err(ProgramError::NotLoaded);
        };
        let mode = if native { AyaMode::Driver } else { AyaMode::Skb };
        let link = program.attach(interface, mode)?;
        self.links.push((interface.to_owned(), native, link));
        Ok(())
    }

    /// The interfaces that the program is attached to.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }
}

fn io_error(error: &ProgramError) -> Option<&std::io::Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(
        io_error(error).and_then(std::io::Error::raw_os_error),
        Some(libc::EBUSY | libc::EEXIST)
    )
}

fn attach_reason(error: &ProgramError) -> String {
    if is_busy(error) {
        return "another XDP program is attached there, perhaps another lbd's; `ip link show` and `bpftool net` name \
                it; stop it first"
            .to_owned();
    }
    match io_error(error) {
        Some(error) if error.raw_os_error() == Some(libc::EPERM) => {
            "not permitted: lbd needs CAP_NET_ADMIN and CAP_BPF".to_owned()
        }
        Some(error) => error.to_string(),
        None => Cow::from(error.to_string()).into_owned(),
    }
}
