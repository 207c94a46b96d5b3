//! HTTP/2 is abused by one while another asks as ever: what that costs the server in memory, and the other in time (P29).
//!
//! Frames are written by hand (RFC 9113, 4.1), since no client library would send them. How soon a connection that abuses it ends is shown
//! in `service/src/listen/tests/abuse.rs`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test keeps its own pace, and its figures are for whoever reads them"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, client, workspace};

/// How long each part lasts; parts with and without an attack take turns, so that what else the machine does meets both.
const PART: Duration = Duration::from_secs(2);
const TURNS: usize = 5;

/// The pace of the other's questions: it is a client, no benchmark.
const PACE: Duration = Duration::from_millis(2);

/// Frames a second, in bunches.
const FRAMES_PER_SECOND: u32 = 100_000;
const BUNCH: u32 = 500;

/// Connections that say their greeting and nothing more: nearly as many as a server takes by default (`--limits.max-connections`).
const IDLE: usize = 4_000;

/// Answers that nobody takes: connections, and questions on each of them, as many as a server takes by default (`--limits.max-streams`).
const UNREADERS: usize = 4;
const UNREAD: u32 = 100;

/// What questions may take, in MiB: an eighth of what these answers come to.
const UNREAD_MEMORY_MIB: u64 = 64;

/// What an attack may add to the memory of the server.
const RESIDENT_MAX: u64 = 64 << 20;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `:method GET`, `:scheme http`, `:path /` by their places in the static table, `:authority a` (RFC 7541, A).
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

type Frames = fn(u32) -> Vec<u8>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens and resets a stream.
fn reset(n: u32) -> Vec<u8> {
    let stream = 2 * n + 1;
    [frame(HEADERS, END_STREAM | END_HEADERS, stream, HEAD), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
        .concat()
}

/// Goes on with a head that never ends.
fn continued(n: u32) -> Vec<u8> {
    match n {
        0 => frame(HEADERS, END_STREAM, 1, HEAD),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }
}

/// Writes frames at their pace until told to stop, over a new connection whenever the server has ended the last.
fn attack(address: &str, frames: Frames, stop: &AtomicBool, written: &AtomicU64) {
    let begin = Instant::now();
    let mut bunches = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        if stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).is_err() {
            continue;
        }
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = begin + Duration::from_secs_f64(f64::from(bunches * BUNCH) / f64::from(FRAMES_PER_SECOND));
            thread::sleep(due.saturating_duration_since(Instant::now()));
            bunches += 1;
            let bunch: Vec<u8> = (n..n + BUNCH).flat_map(frames).collect();
            if stream.write_all(&bunch).is_err() {
                break;
            }
            written.fetch_add(u64::from(BUNCH), Ordering::Relaxed);
            n += BUNCH;
        }
    }
}

/// Asks over one connection, as a client does, and returns how long each answer took.
fn ask(address: &str) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let end = Instant::now() + PART;
    let mut took = Vec::new();
    while Instant::now() < end {
        thread::sleep(PACE);
        let begin = Instant::now();
        stream.write_all(b"GET /api/v1/services HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("written");
        read_answer(&mut stream);
        took.push(begin.elapsed());
    }
    took.sort_unstable();
    took
}

/// Reads an answer whole.
fn read_answer(stream: &mut TcpStream) {
    let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        let bytes = stream.read(&mut piece).expect("answered");
        answer.extend_from_slice(&piece[..bytes]);
        let text = String::from_utf8_lossy(&answer);
        assert!(bytes > 0 && text.starts_with("HTTP/1.1 200"), "{text}");
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if body.len() >= length.parse().expect("a number") {
                return;
            }
        }
    }
}

/// Reads how much memory a process has.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Looks at the memory of a process until told to stop, and returns the most it had.
fn watch(pid: u32, stop: &AtomicBool) -> u64 {
    let mut most = resident(pid);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(10));
        most = most.max(resident(pid));
    }
    most
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Each test has the machine to itself.
static ALONE: Mutex<()> = Mutex::new(());

fn serve() -> Program {
    Program::start("afterglow", &["serve", "--storage", "memory://", "--no-self-profile"], &[])
}

/// Goal: an attack costs the server less than 64 MiB, and the other less than another wait as long.
#[test]
fn an_attack_costs_little_memory_and_the_others_little_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, frames) in [("rapid reset", reset as Frames), ("continuation", continued)] {
        let server = serve();
        let address = server.address();
        // Connections, caches and the allocator are as they will be.
        ask(&address);
        let before = resident(server.pid());
        let (mut calm, mut attacked, mut most) = (Vec::new(), Vec::new(), before);
        let written = Arc::new(AtomicU64::new(0));
        for _ in 0..TURNS {
            calm.push(p99(&ask(&address)));
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let attacker = scope.spawn(|| attack(&address, frames, &stop, &written));
                let watcher = scope.spawn(|| watch(server.pid(), &stop));
                attacked.push(p99(&ask(&address)));
                stop.store(true, Ordering::Relaxed);
                attacker.join().expect("no panic");
                most = most.max(watcher.join().expect("no panic"));
            });
        }
        let frames_a_second = written.load(Ordering::Relaxed) as f64 / (PART * TURNS as u32).as_secs_f64();
        let (calm, attacked, grown) = (median(calm), median(attacked), most - before);
        let ratio = attacked.as_secs_f64() / calm.as_secs_f64();
        println!(
            "{what}: {frames_a_second:.0} a second; p99 of the other {calm:?} without, {attacked:?} with, {ratio:.2} times; \
             memory {:.1} MiB before, {:.1} more at most",
            mib(before),
            mib(grown)
        );
        assert!(frames_a_second > 1_000.0, "{what}: it is an attack");
        assert!(grown < RESIDENT_MAX, "{what}: {:.1} MiB more", mib(grown));
        assert!(ratio < 2.0, "{what}: p99 {calm:?} without, {attacked:?} with");
    }
}

/// Goal: as many connections as a server takes by default, which do nothing, cost it less than 64 MiB, and hold up nobody who is there.
#[test]
fn idle_connections_cost_little_memory_and_the_others_little_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, other) = (serve(), serve());
    let (address, calm) = (server.address(), other.address());
    ask(&calm);
    ask(&address);
    let before = resident(server.pid());
    let idle: Vec<TcpStream> = (0..IDLE)
        .map(|n| {
            let mut stream = TcpStream::connect(&address).unwrap_or_else(|error| panic!("connection {n}: {error}"));
            stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).expect("written");
            stream
        })
        .collect();
    // The server has greeted all of them: what it has to do for a connection that begins is not meant here.
    for mut stream in &idle {
        stream.read_exact(&mut [0; 9]).expect("greeted");
    }
    // By turns with a server that holds none, so that what else the machine does meets both.
    let (calm, held) = (0..TURNS).map(|_| (p99(&ask(&calm)), p99(&ask(&address)))).unzip();
    let (calm, held) = (median(calm), median(held));
    let grown = resident(server.pid()) - before;
    let ratio = held.as_secs_f64() / calm.as_secs_f64();
    println!(
        "{} idle connections: p99 of the other {calm:?} without, {held:?} with, {ratio:.2} times; memory {:.1} MiB before, {:.1} \
         more, {} bytes each",
        idle.len(),
        mib(before),
        mib(grown),
        grown / IDLE as u64
    );
    assert!(grown < RESIDENT_MAX, "{:.1} MiB more", mib(grown));
    assert!(ratio < 2.0, "p99 {calm:?} without, {held:?} with");
}

/// Asks for `path` on streams that have no room for an answer: the window of each is 0 bytes.
fn ask_without_window(address: &str, path: &str) -> TcpStream {
    let settings = [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    let mut frames = [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat();
    // The path as it is, among the others of HEAD (RFC 7541, 6.2.2).
    let length = u8::try_from(path.len()).expect("a short path");
    let head = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x41, 0x01, b'a']].concat();
    for n in 0..UNREAD {
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &head));
    }
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(&frames).expect("written");
    stream
}

/// Goal: answers that nobody takes, half a gigabyte of them, cost the server what its questions may take, and what making so many does.
#[test]
fn answers_that_nobody_takes_cost_what_questions_may() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = format!("--query.memory={UNREAD_MEMORY_MIB}MiB");
    let flags = ["serve", "--storage", "memory://", "--no-self-profile", &memory, "--limits.stall-timeout=1h"];
    let server = Program::start("afterglow", &flags, &[]);
    let address = server.address();
    let file = workspace().join("tests/fixtures/profiles/svc-heap-i1-0039.pb.gz");
    let file = file.to_str().expect("a path of text");
    let pushed = client(&["push", file, "--service", "shop", "--type", "heap", "--time", "now"], &server.url());
    let pushed = String::from_utf8(pushed).expect("text");
    let id = pushed.split_whitespace().next().expect("an id");
    // What a first answer leaves behind, in caches and in the allocator, is there.
    (0..8).for_each(|_| drop(client(&["fetch", id, "--raw"], &server.url())));
    ask(&address);
    let before = resident(server.pid());
    let stop = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(server.pid(), &stop));
        let path = format!("/api/v1/profiles/{id}?raw=true");
        let unread: Vec<TcpStream> = (0..UNREADERS).map(|_| ask_without_window(&address, &path)).collect();
        // Each is answered in its head: with what was asked for, or that there is no memory for it.
        let is_answered = |stream: &TcpStream| heads(stream) == UNREAD;
        assert!(unread.iter().all(is_answered), "a question was not answered");
        // Others still are.
        ask(&address);
        stop.store(true, Ordering::Relaxed);
        watcher.join().expect("no panic")
    });
    let grown = most - before;
    println!(
        "{} answers that nobody takes, --query.memory {UNREAD_MEMORY_MIB} MiB: memory {:.1} MiB before, {:.1} more at most",
        UNREADERS as u32 * UNREAD,
        mib(before),
        mib(grown)
    );
    assert!(grown > UNREAD_MEMORY_MIB << 19, "{:.1} MiB more: nothing waits", mib(grown));
    // Besides them there is what was used to make them, which the allocator keeps for a while, and questions that wait for memory: 118 to 137
    // in all. What is allocated is 60 once those are refused.
    assert!(grown < 3 * (UNREAD_MEMORY_MIB << 20), "{:.1} MiB more", mib(grown));
}

/// Reads frames until as many answers have begun as were asked for, or nothing has come for a while, and returns how many have.
fn heads(mut stream: &TcpStream) -> u32 {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut begun = 0;
    while begun < UNREAD {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        std::io::copy(&mut stream.take(u64::from(length)), &mut std::io::sink()).expect("the rest of a frame");
        begun += u32::from(head[3] == HEADERS);
    }
    begun
}
