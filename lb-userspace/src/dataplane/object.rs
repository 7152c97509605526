//! The compiled kernel program: embedded in the daemon, or from a file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use lb_common::abi::{ABI_SECTION, ABI_VERSION};
use object::{Object as _, ObjectSection as _};

static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o"));

/// An eBPF object whose ABI is this daemon's.
#[derive(Debug, Clone)]
pub struct Object {
    bytes: Cow<'static, [u8]>,
}

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The file cannot be read.
    #[error("{file}: cannot read the eBPF object: {source}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no ELF file, or none of ours.
    #[error("{origin}: not an eBPF object of this project ({reason}); `cargo xtask build` makes one")]
    Foreign {
        /// The file, or that it is the embedded one.
        origin: String,
        /// What is missing.
        reason: String,
    },
    /// It was built for a daemon of another version.
    #[error(
        "{origin}: the eBPF object has ABI version {found}, this lbd needs {ABI_VERSION}; use the object that was built \
         with this lbd (leave --object away for the embedded one)"
    )]
    OtherAbi {
        /// The file, or that it is the embedded one.
        origin: String,
        /// Its version.
        found: u32,
    },
}

impl Object {
    /// The object that was built with this daemon.
    ///
    /// # Errors
    /// A build that mixed two versions.
    pub fn embedded() -> Result<Self, ObjectError> {
        Self::checked(Cow::Borrowed(EMBEDDED), "embedded object".to_owned())
    }

    /// An object from a file.
    ///
    /// # Errors
    /// It cannot be read, is not ours, or has another ABI version.
    pub fn from_file(file: &Path) -> Result<Self, ObjectError> {
        let bytes = std::fs::read(file)
            .map_err(|source| ObjectError::Unreadable { file: file.to_owned(), source })?;
        Self::checked(Cow::Owned(bytes), file.display().to_string())
    }

    fn checked(bytes: Cow<'static, [u8]>, origin: String) -> Result<Self, ObjectError> {
        match abi_version(&bytes) {
            Ok(ABI_VERSION) => Ok(Self { bytes }),
            Ok(found) => Err(ObjectError::OtherAbi { origin, found }),
            Err(reason) => Err(ObjectError::Foreign { origin, reason }),
        }
    }

    /// The ELF file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn abi_version(bytes: &[u8]) -> Result<u32, String> {
    let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
    let section = file.section_by_name(ABI_SECTION).ok_or_else(|| format!("no section {ABI_SECTION}"))?;
    let data = section.data().map_err(|error| error.to_string())?;
    let version = data.first_chunk::<4>().ok_or_else(|| format!("section {ABI_SECTION} is too short"))?;
    Ok(u32::from_le_bytes(*version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_fits() {
        Object::embedded().unwrap();
    }

    #[test]
    fn another_abi_is_named_and_refused() {
        let mut bytes = EMBEDDED.to_vec();
        let at = {
            let file = object::File::parse(EMBEDDED).unwrap();
            file.section_by_name(ABI_SECTION).unwrap().file_range().unwrap().0 as usize
        };
        bytes[at] += 1;
        let error = Object::checked(Cow::Owned(bytes), "other.o".into()).unwrap_err().to_string();
        let other = ABI_VERSION + 1;
        assert!(error.starts_with(&format!("other.o: the eBPF object has ABI version {other}, this lbd needs")), "{error}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bytes in [&b""[..], b"no ELF", &EMBEDDED[..100]] {
            assert!(matches!(
                Object::checked(Cow::Owned(bytes.to_vec()), "x".into()),
                Err(ObjectError::Foreign { .. })
            ));
        }
    }
}
