//! Goal: a client that does not take its answers loses its connection, and they their memory; one that is slow, or has nothing to take, does not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use afterglow_proto::v1::PushRequest;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::abuse::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};
use super::{Bytes, Options, PATIENCE, Running};
use crate::testing::LARGE_BYTES;

fn options(stall: Duration) -> Options {
    let mut options = Options::default();
    options.limits.stall_timeout = stall;
    options
}

#[test]
fn a_stall_has_bounds() {
    for (stall, said) in [
        (Duration::ZERO, "limits.stall-timeout is 0: nothing could be served"),
        (Duration::from_millis(1), "limits.stall-timeout 1ms is below 10ms"),
        (Duration::from_secs(3601), "limits.stall-timeout 1h 1s is above 1h"),
    ] {
        assert_eq!(options(stall).limits.problems(), [said]);
    }
    assert_eq!(options(Duration::from_secs(3600)).limits.problems(), [""; 0]);
}

/// Opens a connection for which the system keeps little.
async fn connect(server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a size");
    socket.connect(server.address).await.expect("a connection")
}

/// Waits until answers of `/large` hold so many bytes.
async fn holds(server: &Running, bytes: usize) {
    let held = async {
        while server.held.load(Ordering::SeqCst) != bytes {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, held).await;
    held.unwrap_or_else(|_| panic!("{} bytes are held, not {bytes}", server.held.load(Ordering::SeqCst)));
}

/// Asks for `path` on streams that have no room for an answer.
fn without_window(path: &str, streams: u32) -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let settings = [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    let mut frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat();
    // `:method GET`, `:scheme http`, `:path` as it is, `:authority a` (RFC 7541, A and 6.2.2).
    let head = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x41, 0x01, b'a']].concat();
    for stream in 0..streams {
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &head));
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_of_an_answer_is_cut() {
    let stall = Duration::from_millis(500);
    let server = Running::start(options(stall)).await;
    let begin = Instant::now();
    let mut http2 = connect(&server).await;
    http2.write_all(&without_window("/large", 3)).await.expect("written");
    holds(&server, 3 * LARGE_BYTES).await;
    let mut heads = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(PATIENCE, http2.read_to_end(&mut heads)).await.expect("cut");
    assert!(begin.elapsed() >= stall && heads.len() < 4096, "{} bytes after {:?}", heads.len(), begin.elapsed());
    holds(&server, 0).await;
    server.metric("afterglow_server_connections_cut_total 1").await;

    let mut http1 = connect(&server).await;
    http1.write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    holds(&server, LARGE_BYTES).await;
    server.metric("afterglow_server_connections_cut_total 2").await;
    holds(&server, 0).await;
    let mut some = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, http1.read_to_end(&mut some)).await.expect("cut");
    assert!(some.starts_with(b"HTTP/1.1 200 OK") && some.len() < LARGE_BYTES, "{} bytes", some.len());
    server.metric("afterglow_server_connections 0").await;
}

/// Goal: what operators read is bounded as well: without a token, it can be had by whoever reaches the port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_of_the_metrics_is_cut() {
    let server = Running::start(options(Duration::from_millis(200))).await;
    let mut client = connect(&server).await;
    client.write_all(&without_window("/metrics", 2)).await.expect("written");
    server.metric("afterglow_server_connections_cut_total 1").await;
}

/// Goal: a slow client is served whole, though it takes many times as long as one may stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_and_steady_is_served_whole() {
    let stall = Duration::from_millis(1500);
    let server = Running::start(options(stall)).await;
    let pause = 4 * stall / (LARGE_BYTES / (64 << 10)) as u32;
    let http1 = async {
        let mut client = connect(&server).await;
        let request = b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.expect("written");
        let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
        loop {
            match client.read_exact(&mut buffer).await {
                Ok(bytes) => read += bytes,
                Err(_) => return read + buffer.len(),
            }
            sleep(pause).await;
        }
    };
    let http2 = async {
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(64 << 10)
            .handshake(TokioIo::new(connect(&server).await))
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let request = http::Request::get("http://localhost/large").body(Empty::<Bytes>::new()).expect("a request");
        let mut body = sender.send_request(request).await.expect("an answer").into_body();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let bytes = frame.expect("not cut").into_data().map_or(0, |data| data.len());
            read += bytes;
            sleep(pause * bytes as u32 / (64 << 10)).await;
        }
        read
    };
    let begin = Instant::now();
    let (http1, http2) = tokio::join!(http1, http2);
    assert!(http1 >= LARGE_BYTES && http2 == LARGE_BYTES, "{http1} and {http2} bytes of {LARGE_BYTES}");
    assert!(begin.elapsed() > 2 * stall, "they are slow");
    server.metric("afterglow_server_connections_cut_total 0").await;
    holds(&server, 0).await;
}

/// Goal: a stream on which there is nothing to say stays, for as long as it lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_nothing_to_take_is_not_cut() {
    let stall = Duration::from_millis(100);
    let server = Running::start(options(stall)).await;
    let mut watch = HealthClient::new(server.channel().await)
        .watch(HealthCheckRequest { service: String::new() })
        .await
        .expect("a stream")
        .into_inner();
    watch.message().await.expect("no error").expect("a status");
    let mut client = server.ingest().await;
    let (mut sender, requests) = futures::channel::mpsc::channel(1);
    sender.try_send(PushRequest { seq: 1, ..PushRequest::default() }).expect("room");
    let mut answers = client.push(requests).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("no error").expect("an answer").seq, 1);
    let mut silent = connect(&server).await;

    sleep(10 * stall).await;

    sender.try_send(PushRequest { seq: 2, ..PushRequest::default() }).expect("room");
    assert_eq!(answers.message().await.expect("no error").expect("an answer").seq, 2);
    server.health.part("store").not_ready("probe failed");
    watch.message().await.expect("no error").expect("a status");
    silent.write_all(b"GET /things/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    silent.read_to_string(&mut answer).await.expect("not cut");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    server.metric("afterglow_server_connections_cut_total 0").await;
}
