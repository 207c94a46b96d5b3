//! A program with a known profile: three quarters of its CPU time in one function, one quarter in another.
//!
//! `cargo run --release -p afterglow-agent --example busy -- http://127.0.0.1:4100 60` works for 60 s and sends its profiles there;
//! with `none` for the server it does the same work unprofiled. It prints how much it got done and what CPU time that took, so that
//! two runs show what profiling costs.

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use afterglow_agent::ProfilerBuilder;

// Through `black_box`, for a call in the last place becomes a jump and leaves no frame.
#[inline(never)]
fn three_quarters(unit: u64) -> u64 {
    black_box(spin(3 * unit))
}

#[inline(never)]
fn one_quarter(unit: u64) -> u64 {
    black_box(spin(unit))
}

// Not inlined: a copy in each caller may be compiled to loops of different speed, and the shares would be others.
#[inline(never)]
fn spin(n: u64) -> u64 {
    (0..n).fold(1, |hash, i| black_box(hash ^ i).wrapping_mul(0x0100_0000_01b3))
}

/// Returns the CPU time of this process so far, in seconds (man 5 proc_pid_stat: utime and stime, in ticks of 10 ms).
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks: Result<Vec<u64>, _> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / 100.0)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "http://127.0.0.1:4100".to_owned());
    let seconds: u64 = arguments.next().map_or(Ok(60), |text| text.parse())?;

    let profiler = match server.as_str() {
        "none" => None,
        _ => Some(ProfilerBuilder::new(&server, "busy-rust").label("version", "1.0").start()?),
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let work = tokio::task::spawn_blocking(move || {
        let mut rounds = 0u64;
        while Instant::now() < end {
            // Rounds of equal length could keep step with the kernel's ticks, and samples would all fall into one part.
            let unit = 50_000 + rounds * 61_803 % 100_000;
            black_box(three_quarters(unit) ^ one_quarter(unit));
            rounds += 1;
        }
        rounds
    });
    let rounds = work.await?;
    let cpu = cpu_seconds()?;
    println!("{rounds} rounds, {cpu:.2} s of CPU time, {:.3} ms a round", cpu * 1000.0 / rounds as f64);
    if let Some(profiler) = profiler {
        let stats = profiler.client().stats();
        println!("{} profiles left without an outcome; before that {stats:?}", profiler.stop().await);
    }
    Ok(())
}
