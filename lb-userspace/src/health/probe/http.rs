//! An HTTP request gets one of the expected statuses.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Deadline, Failed, in_words, tcp};
use crate::config::HttpProbe;

/// So much of a response's body is read; the rest is not asked for.
const BODY_LIMIT: usize = 64 * 1024;

pub(super) async fn probe(
    http: &HttpProbe,
    address: SocketAddr,
    deadline: &Deadline,
) -> Result<String, Failed> {
    let stream = tcp::connect(address, deadline).await?;
    exchange(stream, http, &address_as_host(address), deadline).await
}

/// An address as a Host header writes it: IPv6 in brackets.
fn address_as_host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Sends the request over an open connection and judges the response.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    http: &HttpProbe,
    default_host: &str,
    deadline: &Deadline,
) -> Result<String, Failed> {
    let request = Request::get(&http.path)
        .header(HOST, http.host.as_deref().unwrap_or(default_host))
        .header(
            USER_AGENT,
            concat!("lbd/", env!("CARGO_PKG_VERSION"), " (health check)"),
        )
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| {
            format!(
                "path {:?} or host {:?} cannot be sent: {error}",
                http.path, http.host
            )
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| explain(&error, "before the response"))?;
    let converse = async {
        let response = deadline
            .during("waiting for the response", sender.send_request(request))
            .await?
            .map_err(|error| explain(&error, "before the response"))?;
        judge(response, &http.expect_status, deadline).await
    };
    // The connection moves the bytes for the conversation. It may end first, its last words already handed over.
    match select(pin!(converse), pin!(connection)).await {
        Either::Left((result, _)) => result,
        Either::Right((_, converse)) => converse.await,
    }
}

async fn judge(
    response: Response<Incoming>,
    expected: &[u16],
    deadline: &Deadline,
) -> Result<String, Failed> {
    let status = response.status().as_u16();
    if !expected.contains(&status) {
        let expected: Vec<_> = expected.iter().map(u16::to_string).collect();
        return Err(Failed::Backend(format!(
            "HTTP {status}, expected {}",
            expected.join(" or ")
        )));
    }
    deadline
        .during("reading the response", drain(response.into_body()))
        .await??;
    Ok(format!("HTTP {status}"))
}

/// Reads the body to its end or to the limit, so that a server that fails halfway is seen.
async fn drain(mut body: Incoming) -> Result<(), Failed> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| explain(&error, "in the midst of the response"))?;
        read += frame.data_ref().map_or(0, Bytes::len);
        if read >= BODY_LIMIT {
            break;
        }
    }
    Ok(())
}

/// What went wrong between two HTTP speakers, in an operator's words; `when` says how far they had got.
fn explain(error: &hyper::Error, when: &str) -> Failed {
    let socket = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    Failed::Backend(match socket {
        _ if error.is_parse_too_large() => "response header too large".to_owned(),
        _ if error.is_parse() => "the answer is not HTTP".to_owned(),
        Some(error) => format!("{} {when}", in_words(error)),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            format!("connection closed {when}")
        }
        None => format!("{error} {when}"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::testing::*;
    use super::*;
    use crate::config::Probe;

    fn get(expect_status: &[u16]) -> Probe {
        Probe::Http(HttpProbe {
            path: "/health".to_owned(),
            host: None,
            expect_status: expect_status.to_vec(),
        })
    }

    async fn ask(answer: Answer) -> Result<String, String> {
        run(&get(&[200]), serve(answer).await.address, LONG).await
    }

    #[tokio::test]
    async fn an_expected_status_succeeds() {
        let reason = ask(Answer::text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
            .await
            .expect("success");
        assert!(reason.starts_with("HTTP 200 in "), "{reason}");
        let backend = serve(Answer::text("HTTP/1.0 204 No Content\r\n\r\n")).await;
        assert!(run(&get(&[200, 204]), backend.address, LONG).await.is_ok());
    }

    #[tokio::test]
    async fn another_status_fails() {
        let unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            ask(Answer::text(unavailable)).await,
            Err("HTTP 503, expected 200".to_owned())
        );
        let backend = serve(Answer::text(unavailable)).await;
        let result = run(&get(&[200, 204]), backend.address, LONG).await;
        assert_eq!(result, Err("HTTP 503, expected 200 or 204".to_owned()));
    }

    #[tokio::test]
    async fn the_request_is_what_was_configured() {
        let mut backend = serve(Answer::text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
        run(&get(&[200]), backend.address, LONG).await.expect("success");
        let request = backend.requests.recv().await.expect("a request");
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: 127.0.0.1\r\n"), "{request}");
        let named = HttpProbe {
            path: "/".to_owned(),
            host: Some("www.foobar.com".to_owned()),
            expect_status: vec![200],
        };
        run(&Probe::Http(named), backend.address, LONG)
            .await
            .expect("success");
        let request = backend.requests.recv().await.expect("a request");
        assert!(request.contains("host: www.foobar.com\r\n"), "{request}");
    }

    #[test]
    fn an_ipv6_address_is_a_host_in_brackets() {
        assert_eq!(
            address_as_host("[2001:db8::1]:80".parse().expect("address")),
            "[2001:db8::1]"
        );
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_sent_fails_with_a_reason() {
        let split = HttpProbe {
            path: "/".to_owned(),
            host: Some("a\r\nb: c".to_owned()),
            expect_status: vec![200],
        };
        let backend = serve(Answer::Hang).await;
        let reason = run(&Probe::Http(split), backend.address, LONG)
            .await
            .expect_err("failure");
        assert!(reason.contains("cannot be sent"), "{reason}");
    }

    #[tokio::test]
    async fn liars_and_quitters_fail() {
        for (answer, reason) in [
            (
                Answer::text("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
                "the answer is not HTTP",
            ),
            (Answer::Bytes(vec![0xff; 100]), "the answer is not HTTP"),
            (Answer::text(""), "connection closed before the response"),
            (
                Answer::text("HTTP/1.1 200 O"),
                "connection closed before the response",
            ),
            (
                Answer::text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
                "connection closed early in the midst of the response",
            ),
            (Answer::Reset, "connection reset before the response"),
        ] {
            assert_eq!(ask(answer.clone()).await, Err(reason.to_owned()), "{answer:?}");
        }
        let endless = Answer::Bytes([b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'x'; 1 << 20]].concat());
        assert_eq!(ask(endless).await, Err("response header too large".to_owned()));
    }

    #[tokio::test]
    async fn only_the_beginning_of_a_huge_body_is_read() {
        let mut backend = serve(Answer::Endless).await;
        let reason = run(&get(&[200]), backend.address, LONG).await.expect("success");
        assert!(reason.starts_with("HTTP 200 in "), "{reason}");
        let sent = backend.sent.recv().await.expect("the connection has ended");
        // What was read, and what the two sockets' buffers hold (up to 4 MiB to send, 6 MiB to receive).
        assert!(sent < 16 << 20, "{sent} bytes were taken");
    }

    #[tokio::test]
    async fn silence_and_slow_drips_end_at_the_timeout() {
        for (answer, step) in [
            (Answer::Hang, "waiting for the response"),
            (Answer::Drip("HTTP/1.1 200 OK\r\n"), "waiting for the response"),
            (
                Answer::Drip("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
                "reading the response",
            ),
        ] {
            let begin = Instant::now();
            let backend = serve(answer.clone()).await;
            let result = run(&get(&[200]), backend.address, SHORT).await;
            assert_eq!(
                result,
                Err(format!("timed out after 300ms ({step})")),
                "{answer:?}"
            );
            assert!(begin.elapsed() < LONG);
        }
    }
}
