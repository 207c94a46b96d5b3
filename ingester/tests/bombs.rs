//! What a body of at most a mebibyte can cost a server, counted by the allocator of this process and by the kernel: bombs, and the
//! largest profiles that are none.
//!
//! One test, for everything in the process counts.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

mod support;

use std::time::Duration;

use libdeflater::{CompressionLvl, Compressor};
use peak_alloc::PeakAlloc;
use support::pprof::{FUNCTION, LOCATION, MAPPING, SAMPLE, STRING, body, bytes, gzip, head, number, when};
use support::{Outcome, TestServer};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The bodies' size.
const MEBIBYTE: usize = 1 << 20;
/// What is refused for a limit may take that much more memory than the server takes at rest: it is counted before anything is made of it.
/// Inflated it has 64 MiB at most, and it came in a mebibyte, which its sender holds as well.
const REFUSED_BYTES_MAX: usize = (64 + 3) << 20;
/// What is a profile, or turns out late to be none, is inflated to 64 MiB at most, too, and is worked on as arrays and becomes columns:
/// `docs/testing.md` says what that means.
const ACCEPTED_BYTES_MAX: usize = 192 << 20;
/// CPU of a body, both sides of the connection.
const CPU_MAX: Duration = Duration::from_secs(1);

/// A body and the status that answers it.
struct Bomb {
    name: &'static str,
    status: u16,
    body: Vec<u8>,
}

fn bomb(name: &'static str, status: u16, body: Vec<u8>) -> Bomb {
    assert!(body.len() <= MEBIBYTE, "{name} has {} bytes", body.len());
    Bomb { name, status, body }
}

/// `count` messages or strings of field `field` after a good beginning, each made of its number.
fn many(field: u64, count: u64, make: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let mut raw = [head(), when(), body(1)].concat();
    (0..count).for_each(|i| raw.extend(bytes(field, make(i))));
    raw
}

/// `count` empty ones.
fn empty(field: u64, count: usize) -> Vec<u8> {
    best(&[head(), when(), body(1), bytes(field, []).repeat(count)].concat())
}

/// As small as gzip gets.
fn best(raw: &[u8]) -> Vec<u8> {
    let level = CompressionLvl::new(9).expect("one of libdeflate's");
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(raw.len())];
    let len = compressor.gzip_compress(raw, &mut out).expect("the bound is enough");
    out.truncate(len);
    out
}

/// Stacks of 4,096 locations. Each differs from all others where it begins, at the caller of all, so that they share nothing.
fn stacks(count: u64) -> Vec<u8> {
    let mut raw = [head(), when(), body(1)].concat();
    (2..128).for_each(|id| raw.extend(bytes(LOCATION, [number(1, id), number(3, 4096 * id)].concat())));
    for i in 0..count {
        // A little disorder, or the ratio were refused.
        let odd = |at: u64| if at.is_multiple_of(256) { (i * at) >> 8 } else { 0 };
        let mut stack: Vec<u8> = (0..4_094).map(|at| 1 + ((at + odd(at)) % 127) as u8).collect();
        stack.extend([1 + (i % 127) as u8, 1 + (i / 127) as u8]);
        raw.extend(bytes(SAMPLE, [bytes(1, stack), bytes(2, [1])].concat()));
    }
    best(&raw)
}

/// What nobody sends by accident.
fn bombs() -> Vec<Bomb> {
    let zeros = best(&vec![0; 64 << 20]);
    let members: Vec<u8> = std::iter::repeat_n(gzip([0; 1400]), 25_000).flatten().collect();
    let packed = |field: u64, count: usize| {
        // Numbers of one byte that do not pack beyond the ratio that is refused for itself.
        let numbers: Vec<u8> = (0..count).map(|i| if i % 97 == 0 { (i / 97 % 100) as u8 } else { 1 }).collect();
        best(&[head(), when(), bytes(SAMPLE, bytes(field, numbers))].concat())
    };
    let single = |field: u64, count: u64| {
        let fields: Vec<u8> =
            (0..count).flat_map(|i| [(field << 3) as u8, if i % 97 == 0 { (i / 97 % 100) as u8 } else { 1 }]).collect();
        best(&[head(), when(), bytes(SAMPLE, fields)].concat())
    };
    vec![
        bomb("a thousand to one, in 15 members", 413, zeros.repeat(15)),
        bomb("gzip in gzip", 400, gzip(&zeros)),
        bomb("gzip in gzip, a thousand to one each", 400, best(&zeros.repeat(900))),
        bomb("25,000 members", 400, members),
        bomb("30 million empty samples", 413, empty(SAMPLE, 30_000_000)),
        bomb("30 million empty mappings", 413, empty(MAPPING, 30_000_000)),
        bomb("30 million empty locations", 413, empty(LOCATION, 30_000_000)),
        bomb("30 million empty functions", 413, empty(FUNCTION, 30_000_000)),
        bomb("30 million empty strings", 413, empty(STRING, 30_000_000)),
        bomb("3 million empty samples", 400, empty(SAMPLE, 3_000_000)),
        bomb("3 million empty strings", 400, empty(STRING, 3_000_000)),
        bomb("a stack of 40 million locations", 400, packed(1, 40_000_000)),
        bomb("40 million values of a sample", 400, packed(2, 40_000_000)),
        bomb("a stack of 20 million locations, each a field", 400, single(1, 20_000_000)),
        bomb("20 million values of a sample, each a field", 400, single(2, 20_000_000)),
        bomb("15,000 stacks of 4,096 locations", 400, stacks(15_000)),
    ]
}

/// Profiles as large as a mebibyte of gzip can be.
fn profiles() -> Vec<Bomb> {
    let strings = many(STRING, 990_000, |i| format!("{}", i % 10).into_bytes());
    let samples = many(SAMPLE, 990_000, |i| [bytes(1, [1]), bytes(2, [(i % 7) as u8])].concat());
    let functions = many(FUNCTION, 300_000, |i| [number(1, i + 2), number(2, 3)].concat());
    let locations = many(LOCATION, 300_000, |i| [number(1, i + 2), bytes(4, number(1, 1))].concat());
    vec![
        bomb("990,000 strings", 200, best(&strings)),
        bomb("990,000 samples", 200, best(&samples)),
        bomb("300,000 functions", 200, best(&functions)),
        bomb("300,000 locations", 200, best(&locations)),
        bomb("3,900 stacks of 4,096 locations", 200, stacks(3_900)),
    ]
}

/// The CPU time of this process, to a hundredth of a second (proc_pid_stat(5): `utime`, `stime`).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the kernel tells");
    let after_name = stat.rsplit(") ").next().expect("a name in parentheses");
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mebibyte_costs_little_whatever_is_in_it() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let url = format!("http://{}/api/v1/profiles?service=api&type=cpu", server.address);
    let client = reqwest::Client::new();
    for (kind, most, all) in [("refused", REFUSED_BYTES_MAX, bombs()), ("accepted", ACCEPTED_BYTES_MAX, profiles())] {
        for Bomb { name, status, body } in all {
            let sent = body.len();
            let (at_rest, cpu_before) = (MEMORY.current_usage(), cpu());
            MEMORY.reset_peak_usage();
            let answer = client.post(&url).body(body).send().await.expect("an answer");
            let outcome = Outcome::of_response(answer).await;
            let (peak, cpu) = (MEMORY.peak_usage().saturating_sub(at_rest), cpu() - cpu_before);
            println!("{kind} {name}: {sent} bytes, peak {} MiB, CPU {cpu:?}: {}", peak >> 20, outcome.message);
            assert_eq!(outcome.http, Some(status), "{name}: {outcome:?}");
            assert!(peak <= most, "{name} took {peak} bytes, {} MiB", peak >> 20);
            assert!(cpu <= CPU_MAX, "{name} took {cpu:?}");
        }
    }
}
