//! Requests that are larger than anybody needs: refused before they are read, and their connection given up.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::client::get;
use crate::harness::{Cluster, request_of};

/// What a caller announces, or sends for as long as it is let.
const HUGE: usize = 100_000_000;
/// What the node reads of a body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What the system may hold between two processes besides.
const BUFFERS: usize = 16 << 20;
/// For a read or a write that must not take long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `head`, then at most `HUGE` bytes of body in `chunks`, until the node has had enough.
///
/// Returns how much was sent, and what the node answered before it closed the connection.
fn send(address: &str, head: &str, is_chunked: bool) -> (usize, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The answer is read meanwhile: the node may close the connection while it is still being written to.
    let mut reader = stream.try_clone().unwrap();
    let answer = std::thread::spawn(move || {
        let mut answer = Vec::new();
        let ended = reader.read_to_end(&mut answer);
        let is_timeout = ended.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(!is_timeout, "the connection was left open after {}", String::from_utf8_lossy(&answer));
        String::from_utf8_lossy(&answer).into_owned()
    });
    stream.write_all(head.as_bytes()).unwrap();
    let block = [b' '; 1 << 16];
    let mut sent = 0;
    while sent < HUGE {
        let framed = if is_chunked { [b"10000\r\n", &block[..], b"\r\n"].concat() } else { block.to_vec() };
        if stream.write_all(&framed).is_err() {
            break;
        }
        sent += block.len();
    }
    (sent, answer.join().expect("the node closed the connection"))
}

fn check(answer: &str, sent: usize) {
    assert!(sent < BODY_BYTES_MAX + BUFFERS, "the node took {sent} bytes");
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        // A reset may overtake the answer where the caller goes on writing.
        return;
    };
    assert!(head.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(head.contains("application/problem+json"), "{answer}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], "body_too_large", "{problem:#}");
    assert_eq!(problem["field"], "body", "{problem:#}");
    assert_eq!(problem["rule"], "is larger than 1048576 bytes", "{problem:#}");
}

#[test]
fn a_body_of_a_hundred_megabytes_is_refused_and_not_read() {
    let cluster = Cluster::start(&["a"]);
    let node = &cluster.nodes[0];
    let address = node.http.strip_prefix("http://").expect("an address");
    for path in ["POST /v1/candidates:retrieve", "PUT /v1/users/u1/events"] {
        let head = format!("{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n");
        let (sent, answer) = send(address, &format!("{head}content-length: {HUGE}\r\n\r\n"), false);
        check(&answer, sent);
        let (sent, answer) = send(address, &format!("{head}transfer-encoding: chunked\r\n\r\n"), true);
        check(&answer, sent);
    }
    // A caller that waits for the answer, as most do, gets it.
    let body = vec![b' '; BODY_BYTES_MAX + 1];
    let url = format!("{}/v1/candidates:retrieve", node.http);
    let reply = crate::client::send(reqwest::Method::POST, &url, Some(body)).expect(413);
    assert_eq!(reply.json()["code"], "body_too_large");
    get(&format!("{}/readyz", node.http)).expect(200);
    assert_eq!(node.retrieve(&request_of("u1"))["status"], "full");
    cluster.assert_no_panic();
}

#[test]
fn a_path_of_a_megabyte_is_refused() {
    let cluster = Cluster::start(&["a"]);
    let node = &cluster.nodes[0];
    let address = node.http.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let answer = std::thread::spawn(move || {
        let mut answer = [0; 64];
        let read = reader.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    let request = format!("PUT /v1/users/{}/events HTTP/1.1\r\nhost: {address}\r\n\r\n", "x".repeat(1_000_000));
    // The node may have closed the connection before all was sent.
    drop(stream.write_all(request.as_bytes()));
    let answer = answer.join().unwrap();
    // By the HTTP library itself, before there is a path that could be routed.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    get(&format!("{}/readyz", node.http)).expect(200);
    cluster.assert_no_panic();
}
