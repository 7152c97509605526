//! Requests as lines.

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

/// What a client asks on a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Ping { sequence: u64 },
    Get { length: u64 },
    Put { length: u64 },
}

/// What a client asks in a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datagram {
    Ping {
        sequence: u64,
    },
    Get {
        sequence: u64,
        offset: u64,
        length: usize,
    },
    Put {
        sequence: u64,
        offset: u64,
    },
}

impl Datagram {
    pub(super) fn sequence(self) -> u64 {
        match self {
            Self::Ping { sequence } | Self::Get { sequence, .. } | Self::Put { sequence, .. } => sequence,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping { sequence } => writeln!(formatter, "ping {sequence}"),
            Self::Get { length } => writeln!(formatter, "get {length}"),
            Self::Put { length } => writeln!(formatter, "put {length}"),
        }
    }
}

impl fmt::Display for Datagram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping { sequence } => writeln!(formatter, "ping {sequence}"),
            Self::Get {
                sequence,
                offset,
                length,
            } => writeln!(formatter, "get {sequence} {offset} {length}"),
            Self::Put { sequence, offset } => writeln!(formatter, "put {sequence} {offset}"),
        }
    }
}

/// A line that is no request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRequest;

impl FromStr for Request {
    type Err = NoRequest;

    fn from_str(line: &str) -> Result<Self, NoRequest> {
        let mut words = Words(line.split_ascii_whitespace());
        let request = match words.word()? {
            "ping" => Self::Ping {
                sequence: words.number()?,
            },
            "get" => Self::Get {
                length: words.number()?,
            },
            "put" => Self::Put {
                length: words.number()?,
            },
            _ => return Err(NoRequest),
        };
        words.end().map(|()| request)
    }
}

impl FromStr for Datagram {
    type Err = NoRequest;

    fn from_str(line: &str) -> Result<Self, NoRequest> {
        let mut words = Words(line.split_ascii_whitespace());
        let request = match words.word()? {
            "ping" => Self::Ping {
                sequence: words.number()?,
            },
            "get" => Self::Get {
                sequence: words.number()?,
                offset: words.number()?,
                length: usize::try_from(words.number()?).map_err(|_| NoRequest)?,
            },
            "put" => Self::Put {
                sequence: words.number()?,
                offset: words.number()?,
            },
            _ => return Err(NoRequest),
        };
        words.end().map(|()| request)
    }
}

struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, NoRequest> {
        self.0.next().ok_or(NoRequest)
    }

    fn number(&mut self) -> Result<u64, NoRequest> {
        self.word()?.parse().map_err(|_| NoRequest)
    }

    fn end(&mut self) -> Result<(), NoRequest> {
        self.0.next().map_or(Ok(()), |_| Err(NoRequest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_being_written() {
        for request in [
            Request::Ping { sequence: 7 },
            Request::Get { length: 0 },
            Request::Put { length: u64::MAX },
        ] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        for request in [
            Datagram::Ping { sequence: 7 },
            Datagram::Get {
                sequence: 1,
                offset: 2,
                length: 3,
            },
            Datagram::Put {
                sequence: 1,
                offset: 2,
            },
        ] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
    }

    #[test]
    fn anything_else_is_none() {
        for line in ["", "ping", "ping x", "get 1 2", "put -1", "GET / HTTP/1.1"] {
            assert_eq!(line.parse::<Request>(), Err(NoRequest), "{line}");
        }
        for line in ["get 1 2", "put 1", "ping 1 2"] {
            assert_eq!(line.parse::<Datagram>(), Err(NoRequest), "{line}");
        }
    }
}
