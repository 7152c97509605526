//! The Unix socket of the API: made so that only the right people can open it, and only one daemon.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{self as sys, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use tokio::net::UnixListener;

/// Where `lbd` listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lbd.sock";

/// Owner and group may use the API; who may use it may do everything.
const MODE: u32 = 0o660;

/// Why the API's socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error(
        "{path}: another lbd is running and listens here: stop it first, or give this one another daemon.socket"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has that name, and it is not ours to remove.
    #[error("{path}: exists and is not a socket: remove it, or set daemon.socket to another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}; check daemon.socket and who owns its directory")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

/// As [`claim`], for the caller's own group, and ready to be served. Must be called inside a tokio runtime.
///
/// # Errors
/// As [`claim`].
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    UnixListener::from_std(claim(path, None)?).map_err(failed(path, "wait for connections"))
}

/// Listens on a Unix socket at `path` (at most 107 bytes), mode 0660, for the user that this runs as and, if one is given
/// (needs `CAP_CHOWN`), a group, in a directory that is made (0755) if need be. The socket of a daemon that died is
/// replaced; a live daemon's is left alone.
///
/// # Errors
/// When a daemon answers on `path`, when something else is there, or when the operating system refuses.
pub fn claim(path: &Path, group: Option<u32>) -> Result<StdUnixListener, SocketError> {
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.map_err(failed(directory, "make the directory"))?;
    }
    // Held until the socket listens: of two daemons that start at once, the second finds the first one listening.
    let _lock = lock(path)?;
    let address = UnixAddr::new(path).map_err(failed(path, "use this as a socket's name"))?;
    remove_stale(path, &address)?;

    let socket = new_socket().map_err(failed(path, "make a socket"))?;
    sys::bind(socket.as_raw_fd(), &address).map_err(failed(path, "bind the socket"))?;
    // Before `listen`, so that nobody gets in by the mode that the umask happened to leave.
    std::os::unix::fs::chown(path, None, group)
        .map_err(failed(path, "give the socket to daemon.socket_group"))?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed(path, "set the socket's mode"))?;
    sys::listen(&socket, Backlog::MAXCONN).map_err(failed(path, "listen on the socket"))?;
    Ok(StdUnixListener::from(socket))
}

/// Takes `<path>.lock`, waiting for a daemon that is starting at the same moment. The file stays: removing it would let
/// two daemons hold locks on two files of that name.
fn lock(path: &Path) -> Result<Flock<File>, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name);
    let file = file.map_err(failed(&name, "open the lock file"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(&name, "take the lock")(errno))
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path, address: &UnixAddr) -> Result<(), SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, "look at what is there")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket {
            path: path.to_owned(),
        });
    }
    let probe = new_socket().map_err(failed(path, "make a socket"))?;
    match sys::connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed(path, "remove the old socket")),
        // EAGAIN: its backlog is full, so somebody listens.
        Ok(()) | Err(Errno::EAGAIN) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(errno) => Err(failed(path, "find out whether a daemon listens here")(errno)),
    }
}

/// A Unix stream socket that never blocks and does not leak into child processes.
fn new_socket() -> nix::Result<OwnedFd> {
    sys::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )
}

fn failed<E: Into<io::Error>>(path: &Path, action: &'static str) -> impl FnOnce(E) -> SocketError {
    let path = path.to_owned();
    move |error| SocketError::Io {
        path,
        action,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn makes_its_directory_and_lets_owner_and_group_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/lb/lbd.sock");
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        let parent = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(parent.permissions().mode() & 0o7777, 0o755);
        UnixStream::connect(&path).await.unwrap();
    }

    #[test]
    fn is_given_to_a_group() {
        if !nix::unistd::geteuid().is_root() {
            return println!("skipped: only root may give files to any group");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        let _listener = claim(&path, Some(4242)).unwrap();
        let socket = fs::metadata(&path).unwrap();
        assert_eq!((socket.uid(), socket.gid()), (0, 4242));
        assert_eq!(socket.permissions().mode() & 0o7777, 0o660);
    }

    #[tokio::test]
    async fn replaces_a_dead_daemons_socket_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        let first = bind(&path).unwrap();
        let refused = bind(&path).unwrap_err();
        assert!(matches!(refused, SocketError::InUse { .. }), "{refused}");
        assert!(
            refused.to_string().contains("another lbd is running"),
            "{refused}"
        );
        UnixStream::connect(&path).await.unwrap();

        drop(first);
        assert!(path.exists(), "the test needs a stale socket");
        let _second = bind(&path).unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_live_daemon_with_a_full_backlog_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        let socket = new_socket().unwrap();
        let address = UnixAddr::new(&path).unwrap();
        sys::bind(socket.as_raw_fd(), &address).unwrap();
        sys::listen(&socket, Backlog::new(0).unwrap()).unwrap();
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let client = new_socket().unwrap();
                (sys::connect(client.as_raw_fd(), &address), client)
            })
            .collect();
        assert!(
            clients.iter().any(|(result, _)| *result == Err(Errno::EAGAIN)),
            "the test needs a full backlog"
        );
        assert!(matches!(bind(&path), Err(SocketError::InUse { .. })));
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        for _ in 0..100 {
            let together = std::sync::Arc::new(std::sync::Barrier::new(8));
            let starting: Vec<_> = (0..8)
                .map(|_| {
                    let (path, together) = (path.clone(), together.clone());
                    let runtime = tokio::runtime::Handle::current();
                    std::thread::spawn(move || {
                        let _inside = runtime.enter();
                        together.wait();
                        bind(&path)
                    })
                })
                .collect();
            let results: Vec<_> = starting
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            let listening = results.iter().filter(|result| result.is_ok()).count();
            assert_eq!(listening, 1, "{results:?}");
        }
    }

    #[tokio::test]
    async fn leaves_other_peoples_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");

        let long = directory.path().join("x".repeat(200));
        assert!(matches!(bind(&long), Err(SocketError::Io { .. })));
    }
}
