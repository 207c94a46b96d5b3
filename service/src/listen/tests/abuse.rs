//! Goal: a client that abuses HTTP/2 loses its connection soon, however often it comes back, and others are served meanwhile.
//!
//! Frames are written by hand (RFC 9113, 4.1), since no client library would send them.

#![allow(clippy::print_stdout, reason = "the figures of an attack are for whoever reads them")]

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Options, PATIENCE, Running};

/// How long the server is under attack.
const ATTACK: Duration = Duration::from_secs(2);

/// How many frames are written at once.
const AT_ONCE: u32 = 500;

/// More frames than any connection may bring, and than the buffers of the system hold; who is still listened to then was not noticed.
const FRAMES_MAX: u32 = 4_000_000;

pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `:method GET`, `:scheme http`, `:path /` by their places in the static table, `:authority a` (RFC 7541, A).
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens and resets a stream.
fn reset(n: u32) -> Vec<u8> {
    let stream = 2 * n + 1;
    let cancel = 8_u32.to_be_bytes();
    [frame(HEADERS, END_STREAM | END_HEADERS, stream, HEAD), frame(RST_STREAM, 0, stream, &cancel)].concat()
}

/// Goes on with a head that never ends.
fn continued(n: u32) -> Vec<u8> {
    match n {
        0 => frame(HEADERS, END_STREAM, 1, HEAD),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }
}

/// Writes frames until the server closes the connection; returns how many were written, in bunches.
async fn flood(server: &Running, frames: fn(u32) -> Vec<u8>) -> io::Result<u32> {
    let (mut read, mut write) = TcpStream::connect(server.address).await?.into_split();
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let closed = tokio::spawn(async move {
        let mut answers = Vec::new();
        let _ = read.read_to_end(&mut answers).await;
    });
    let mut written = 0;
    while written < FRAMES_MAX && !closed.is_finished() {
        let bunch: Vec<u8> = (written..written + AT_ONCE).flat_map(frames).collect();
        if write.write_all(&bunch).await.is_err() {
            break;
        }
        written += AT_ONCE;
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(PATIENCE, closed).await.expect("the server closes the connection").expect("no panic");
    Ok(written)
}

/// What came of an attack.
#[derive(Debug, Default)]
struct Outcome {
    connections: u32,
    frames: u64,
    most_frames: u32,
    served: u32,
    slowest: Duration,
}

/// Attacks for a while, connection after connection, and asks as others do beside it.
async fn attack(server: &Running, frames: fn(u32) -> Vec<u8>) -> Outcome {
    let end = Instant::now() + ATTACK;
    let attacker = async {
        let mut outcome = Outcome::default();
        while Instant::now() < end {
            // A reset while it is still being opened is an end as well.
            let written = flood(server, frames).await.unwrap_or_default();
            outcome.connections += 1;
            outcome.frames += u64::from(written);
            outcome.most_frames = outcome.most_frames.max(written);
        }
        outcome
    };
    let other = async {
        let (mut served, mut slowest) = (0, Duration::ZERO);
        while Instant::now() < end {
            let begin = Instant::now();
            assert_eq!(server.get("/things/1").await.status, 200);
            slowest = slowest.max(begin.elapsed());
            served += 1;
        }
        (served, slowest)
    };
    let (outcome, (served, slowest)) = tokio::join!(attacker, other);
    Outcome { served, slowest, ..outcome }
}

fn assert_withstood(what: &str, outcome: &Outcome) {
    println!("{what}: {outcome:?}");
    assert!(outcome.connections > 1 && outcome.most_frames < FRAMES_MAX, "{what}: {outcome:?}");
    assert!(outcome.served > 10 && outcome.slowest < PATIENCE / 4, "{what}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection() {
    let server = Running::start(Options::default()).await;
    assert_withstood("rapid reset", &attack(&server, reset).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_an_end_ends_the_connection() {
    let server = Running::start(Options::default()).await;
    assert_withstood("continuation", &attack(&server, continued).await);
}

/// Goal: connections that do nothing hold nothing up, and a body that trickles ends with the time for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_and_slow_bodies_hold_nobody_up() {
    let mut options = Options::default();
    options.limits.request_timeout = Duration::from_millis(500);
    options.limits.requests_max = 64;
    let server = Running::start(options).await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("written");
        stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.expect("written");
        idle.push(stream);
    }
    let slow = |n: usize| {
        let address = server.address;
        async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let head = b"POST /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n";
            stream.write_all(head).await.expect("written");
            stream.write_all(b"a").await.expect("written");
            let mut answer = String::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
            read.expect("answered in time").expect("read");
            assert!(answer.starts_with("HTTP/1.1 408"), "{n}: {answer}");
        }
    };
    let others = async {
        for _ in 0..50 {
            assert_eq!(server.get("/things/1").await.status, 200);
        }
    };
    tokio::join!(futures::future::join_all((0..32).map(slow)), others);
    assert_eq!(idle.len(), 400);
}
