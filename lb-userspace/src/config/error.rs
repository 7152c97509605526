//! Why a configuration is refused, in lines that an operator reads as they are.

use std::fmt;
use std::path::PathBuf;

/// A configuration that is refused, with everything that is wrong with it; prints one problem a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// In the order of the file, at least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, printed as `FILE:LINE: KEY = VALUE: what is wrong; what is allowed or what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as named on the command line.
    pub file: PathBuf,
    /// The line, from 1; `None`: the file as a whole.
    pub line: Option<usize>,
    /// The rest.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.what)
    }
}
