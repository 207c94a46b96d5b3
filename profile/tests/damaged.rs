//! P24. Goal: whatever real profiles become when they are cut off, or when one byte of them changes, is refused or consistent, and costs no
//! more than eight times its bytes in memory and 50 ms of CPU a megabyte.
//!
//! Twenty profiles of all producers at hand, whole: every prefix of each, as it is sent and as protobuf; 100,000 changed bytes of the
//! protobuf, and a fifth as many of what is sent. Which bytes is decided by a seed, so each run is the same. One test, for the allocator counts
//! everything in the process.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

mod consistent;

use std::path::Path;
use std::time::Duration;

use afterglow_profile::{Limits, compress, decode};
use consistent::check_accepted;
use peak_alloc::PeakAlloc;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Of each producer some, in `tests/fixtures`.
const PROFILES: [&str; 20] = [
    "producers/cpp/a-cpu",
    "producers/go/a-block",
    "producers/go/a-cpu",
    "producers/go/a-goroutine",
    "producers/go/a-heap",
    "producers/go/a-mutex",
    "producers/jvm/a-alloc",
    "producers/jvm/a-cpu",
    "producers/node/a-heap",
    "producers/node/a-wall",
    "producers/pprof/a-cpu",
    "producers/python/b-all",
    "producers/rust/a-cpu",
    "producers/rust/a-heap",
    "profiles/parca-block-1795481626",
    "profiles/parca-cpu-1795481626",
    "profiles/parca-goroutine-1795481626",
    "profiles/profefe-goroutine-1795481626",
    "profiles/svc-goroutine-i1-0036",
    "profiles/svc-mutex-i1-0036",
];

/// How many bytes are changed in the protobufs, one at a time.
const CHANGES: usize = 100_000;
/// How many in what is sent: there the checksum finds nearly all of them.
const CHANGES_AS_SENT: usize = CHANGES / 5;

/// What an input may take, in multiples of its bytes after gunzip.
const MEMORY_RATIO_MAX: usize = 8;
/// What it may take besides: the state of an inflater, which is the same for a profile of any size.
const MEMORY_BASE: usize = 96 << 10;
/// CPU a megabyte.
const CPU_MAX: Duration = Duration::from_millis(50);
/// The smallest input that the clock can judge.
const CPU_BYTES_MIN: usize = 64 << 10;
/// How often a measurement that is over is taken again: a page fault or a cold cache is not the decoder's.
const TRIES: usize = 5;

/// What the inputs of a kind came to.
#[derive(Default)]
struct Costs {
    inputs: usize,
    accepted: usize,
    bytes: usize,
    cpu: Duration,
    /// The most memory of any, in thousandths of its bytes, the base apart.
    memory_most: usize,
}

/// The CPU time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Reads an input as a server does; returns whether it was accepted, what it took at most, and for how long.
fn read(input: &[u8], limits: &Limits) -> (bool, usize, Duration) {
    let (at_rest, began) = (MEMORY.current_usage(), cpu());
    MEMORY.reset_peak_usage();
    let is_accepted = match compress::inflate(input, limits) {
        Ok(raw) => decode::decode(&raw, limits).is_ok(),
        Err(_) => false,
    };
    let took = cpu() - began;
    (is_accepted, MEMORY.peak_usage() - at_rest, took)
}

impl Costs {
    /// Reads an input that is `inflated` bytes long where it inflates, and checks what it cost and what came of it.
    fn check(&mut self, what: &dyn Fn() -> String, input: &[u8], inflated: usize, limits: &Limits) {
        let bytes = input.len().max(inflated);
        let (is_accepted, peak, mut took) = read(input, limits);
        let memory_max = MEMORY_RATIO_MAX * bytes + MEMORY_BASE;
        assert!(peak <= memory_max, "{} took {peak} bytes of at most {memory_max}", what());
        let cpu_max = CPU_MAX.mul_f64(bytes.max(CPU_BYTES_MIN) as f64 / 1e6);
        for _ in 1..TRIES {
            if took > cpu_max {
                took = took.min(read(input, limits).2);
            }
        }
        assert!(took <= cpu_max, "{} took {took:?} of at most {cpu_max:?}", what());
        if is_accepted {
            let raw = compress::inflate(input, limits).expect("it did before");
            check_accepted(&raw, &decode::decode(&raw, limits).expect("it did before"));
        }
        self.inputs += 1;
        self.accepted += usize::from(is_accepted);
        self.bytes += bytes;
        self.cpu += took;
        self.memory_most = self.memory_most.max(peak.saturating_sub(MEMORY_BASE) * 1000 / bytes.max(1));
    }

    fn say(&self, kind: &str) {
        let per_megabyte = self.cpu.as_secs_f64() * 1e3 / (self.bytes as f64 / 1e6);
        println!(
            "{kind}: {} inputs, {} accepted, {} MB, {per_megabyte:.1} ms of CPU a MB, at most {:.2} times their bytes beyond {} KiB",
            self.inputs,
            self.accepted,
            self.bytes / 1_000_000,
            self.memory_most as f64 / 1e3,
            MEMORY_BASE >> 10,
        );
    }
}

#[test]
fn what_is_cut_off_or_changed_is_refused_or_consistent_and_costs_little() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let (limits, mut random) = (Limits::default(), SmallRng::seed_from_u64(24));
    let [mut prefixes, mut prefixes_sent, mut changes, mut changes_sent] = [(); 4].map(|()| Costs::default());
    for name in PROFILES {
        let sent = std::fs::read(folder.join(format!("{name}.pb.gz"))).expect("the fixture is there");
        let raw = compress::inflate(&sent, &limits).expect("the fixture inflates").into_owned();
        for end in 0..raw.len() {
            prefixes.check(&|| format!("{name}: the first {end} bytes"), &raw[..end], 0, &limits);
        }
        for end in 0..sent.len() {
            prefixes_sent.check(&|| format!("{name}: the first {end} bytes sent"), &sent[..end], 0, &limits);
        }
        for (costs, bytes, count) in [(&mut changes, &raw, CHANGES), (&mut changes_sent, &sent, CHANGES_AS_SENT)] {
            let mut bytes = bytes.clone();
            for _ in 0..count / PROFILES.len() {
                let (at, change) = (random.random_range(0..bytes.len()), random.random_range(1..=255));
                bytes[at] ^= change;
                costs.check(&|| format!("{name}: byte {at} of {} ^ {change}", bytes.len()), &bytes, raw.len(), &limits);
                bytes[at] ^= change;
            }
        }
    }
    for (kind, costs) in [
        ("prefixes of protobufs", &prefixes),
        ("prefixes of what is sent", &prefixes_sent),
        ("changed bytes of protobufs", &changes),
        ("changed bytes of what is sent", &changes_sent),
    ] {
        costs.say(kind);
        assert!(costs.cpu <= CPU_MAX.mul_f64(costs.bytes as f64 / 1e6), "{kind} took {:?}", costs.cpu);
    }
    assert_eq!((changes.inputs, changes_sent.inputs), (CHANGES, CHANGES_AS_SENT));
    assert!(changes.accepted > CHANGES / 2, "most bytes are those of strings and numbers: {}", changes.accepted);
}
