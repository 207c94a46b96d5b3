//! Answers that their clients do not take: they are counted where questions are, and bounded as they are.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::trouble::{gauge, wait_until};
use crate::world::{World, fixture};

const MIB: i64 = 1 << 20;

/// More than can be held, and than may wait besides.
const STREAMS: u32 = 200;

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(3);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Asks for `path` over one connection, on streams that have no room for an answer (RFC 9113, 4.1; RFC 7541, A and 6.2.2).
async fn ask_without_window(world: &World, path: &str, streams: u32) -> TcpStream {
    let settings = [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    let mut frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &settings)[..]].concat();
    let head = [&[0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()], path.as_bytes(), &[0x41, 0x01, b'a']].concat();
    for stream in 0..streams {
        frames.extend(frame(1, 0x4 | 0x1, 2 * stream + 1, &head));
    }
    let mut client = TcpStream::connect(world.url().strip_prefix("http://").unwrap()).await.unwrap();
    client.write_all(&frames).await.unwrap();
    client
}

/// Returns how many questions were refused for want of memory.
fn refused(metrics: &str, question: &str) -> i64 {
    let name = format!("afterglow_query_requests_total{{question=\"{question}\",outcome=\"exhausted\"}}");
    if metrics.contains(&name) { gauge(metrics, &name) } else { 0 }
}

/// Goal: what 200 answers hold that nobody takes is within --query.memory, those beyond are refused, and nothing is held once their client
/// is cut.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_is_within_the_budget() {
    let stall = format!("--limits.stall-timeout={}s", STALL.as_secs());
    let world = World::with(&["--query.memory=8MiB", &stall]).await;
    let sent = fixture("svc-heap-i1-0039.pb.gz", 7, &[("service", "shop")]);
    world.put(std::slice::from_ref(&sent)).await;
    let bytes = sent.raw.len() as i64;
    assert!(bytes > MIB, "{bytes}");
    let profile = format!("/api/v1/profiles/{}?raw=true", sent.meta.id);
    let memory = |metrics: &str| gauge(metrics, "afterglow_query_memory_bytes");

    let mut client = ask_without_window(&world, &profile, STREAMS).await;
    wait_until(&world, |metrics| refused(metrics, "get_profile") > 0 && memory(metrics) >= 3 * bytes).await;
    let metrics = world.get("/metrics", &[]).await.to_string();
    assert!(memory(&metrics) <= 8 * MIB, "{metrics}");
    // What is small has what is left for it.
    assert_eq!(world.get("/api/v1/services", &[]).await.status, 200);

    let mut heads = Vec::new();
    let cut = tokio::time::timeout(4 * STALL, client.read_to_end(&mut heads)).await;
    assert!(cut.is_ok() && (heads.len() as i64) < bytes, "{cut:?}, {} bytes", heads.len());
    wait_until(&world, |metrics| memory(metrics) == 0).await;
    let again = world.get(&profile, &[]).await;
    assert_eq!((again.status, &*again.body), (200, &*sent.raw));
}

/// Goal: of a merge, which takes many times what its answer does, that alone is held on.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_is_made_holds_its_answer_alone() {
    let world = World::new().await;
    world.put(&[fixture("svc-heap-i1-0039.pb.gz", 7, &[("service", "shop")])]).await;
    let merge = "/api/v1/merge?query=%7B%7D&type=heap&format=folded&start=-1d";
    let answer = world.get(merge, &[]).await;
    assert_eq!(answer.status, 200, "{answer}");
    let bytes = answer.body.len() as i64;
    assert!(bytes > 16 << 10, "{bytes}");

    let client = ask_without_window(&world, merge, 2).await;
    let held = 2 * ((bytes + 1023) & !1023);
    wait_until(&world, |metrics| gauge(metrics, "afterglow_query_memory_bytes") == held).await;
    drop(client);
    wait_until(&world, |metrics| gauge(metrics, "afterglow_query_memory_bytes") == 0).await;
}
