//! Plain TCP connections from the client to the VIP's port 80, where the site only redirects: cheap, and many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xtask::lab::{Lab, Node, SITE, VIP};

/// An open connection to the VIP's port 80; it says nothing yet.
pub(crate) fn open(lab: &Lab) -> Result<TcpStream> {
    lab.namespace(Node::Client).run(connect)
}

/// Opens `count` connections, one after the other on each of the machine's CPUs, each with one request that must be
/// answered by a redirect.
pub(crate) fn make(lab: &Lab, count: usize) -> Result<()> {
    let cpus = thread::available_parallelism()?.get();
    lab.namespace(Node::Client).run(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..cpus)
                .map(|cpu| {
                    let share = count / cpus + usize::from(cpu < count % cpus);
                    scope.spawn(move || on_cpu(cpu, share))
                })
                .collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            Ok(())
        })
    })
}

fn on_cpu(cpu: usize, count: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    for number in 0..count {
        request(&mut connect()?).with_context(|| format!("connection {number} on CPU {cpu}"))?;
    }
    Ok(())
}

/// One request, after which the server closes the connection.
pub(crate) fn request(connection: &mut TcpStream) -> Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let location = format!("Location: https://{SITE}/");
    ensure!(
        answer.starts_with("HTTP/1.1 301 ") && answer.contains(&location),
        "answered {answer:?}"
    );
    Ok(())
}

fn connect() -> Result<TcpStream> {
    let vip = SocketAddr::from((VIP, 80));
    let connection = TcpStream::connect_timeout(&vip, Duration::from_secs(5))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(connection)
}
