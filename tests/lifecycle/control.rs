//! Clients of the control socket that do not behave.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::Lab;

use crate::row::unnoticed;
use crate::support::shared::Shared;
use crate::support::site;

/// The rows.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    vec![
        unnoticed(lab, "a control client that sends garbage", garbage),
        unnoticed(lab, "control clients with half a request", halves),
        unnoticed(lab, "1,000 control requests at once", many),
    ]
}

fn connect(lab: &Lab) -> Result<UnixStream> {
    let stream = UnixStream::connect(lab.file("lbd.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn garbage(lab: &mut Lab) -> Result<()> {
    for (number, text) in [
        &b"\0\0\0\0\0\0\0\0"[..],
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    .into_iter()
    .cycle()
    .take(200)
    .enumerate()
    {
        let mut stream = connect(lab)?;
        // It may have hung up on the first bytes.
        let _ = stream.write_all(text);
        let noise: Vec<u8> = (0..4096u32)
            .map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let _ = stream.write_all(&noise);
        if number % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.take(1 << 20).read_to_end(&mut answer);
        }
    }
    answers(lab)
}

fn halves(lab: &mut Lab) -> Result<()> {
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(lab)?;
        stream.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: lb\r\nContent-Length: 100\r\n\r\n{\"half\":")?;
        waiting.push(stream);
    }
    answers(lab)
}

fn many(lab: &mut Lab) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut stream = connect(lab)?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")?;
        streams.push(stream);
    }
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("an answer")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    answers(lab)
}

/// `lbctl` is served as ever.
fn answers(lab: &Lab) -> Result<()> {
    let asked = Instant::now();
    site::status(lab)?;
    ensure!(
        asked.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        asked.elapsed()
    );
    Ok(())
}
