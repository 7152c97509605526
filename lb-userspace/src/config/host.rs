//! What validation asks of the machine, behind a trait so that it is tested without root and without the interfaces.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::net::if_::if_nameindex;

/// What validation asks of the machine.
pub trait Host {
    /// The names of the network interfaces.
    ///
    /// # Errors
    /// The kernel would not list them.
    fn interfaces(&self) -> io::Result<Vec<String>>;

    /// The whole of a file.
    ///
    /// # Errors
    /// It is missing, unreadable, or no file that a configuration would name.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;
}

/// The machine that this runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisHost;

impl ThisHost {
    /// Configuration, certificates and keys are far smaller; a device or the wrong file might never end.
    const LARGEST_FILE: u64 = 4 << 20;
}

impl Host for ThisHost {
    fn interfaces(&self) -> io::Result<Vec<String>> {
        let names = if_nameindex()?;
        Ok(names
            .iter()
            .map(|interface| interface.name().to_string_lossy().into_owned())
            .collect())
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?
            .take(Self::LARGEST_FILE + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > Self::LARGEST_FILE {
            return Err(io::Error::other("it is larger than 4 MiB"));
        }
        Ok(bytes)
    }
}

/// An I/O error as an operator reads it, without the number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
