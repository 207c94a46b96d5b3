#![expect(clippy::single_range_in_vec_init, reason = "a list of one range is what is asked for")]

use std::collections::BTreeSet;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use super::super::Ranges;
use super::*;
use crate::metrics::Metered;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A store with objects of 4 MiB, and a folder.
struct World {
    store: Arc<InMemory>,
    folder: TempDir,
    bytes_max: u64,
}

/// A process: what it keeps in memory is nothing, so that all comes from disk or the store.
struct Process {
    ranges: Ranges,
    metrics: Metrics,
}

impl World {
    async fn new(bytes_max: u64) -> Self {
        let world =
            Self { store: Arc::new(InMemory::new()), folder: tempfile::tempdir().expect("a folder"), bytes_max };
        for path in [x(), y()] {
            let body: Vec<u8> = (0..4 * MIB).map(|at| byte(&path, at)).collect();
            world.store.put(&path, body.into()).await.expect("memory works");
        }
        world
    }

    fn options(&self) -> DiskOptions {
        DiskOptions { folder: self.folder.path().join("cache"), bytes_max: self.bytes_max }
    }

    fn start(&self) -> Process {
        let metrics = Metrics::default();
        let metered = Arc::new(Metered::new(Arc::clone(&self.store), metrics.clone()));
        Process { ranges: Ranges::new(metered, 0, Some(&self.options()), metrics.clone()), metrics }
    }

    /// The files of parts, and the bytes that they are charged.
    fn files(&self) -> (Vec<PathBuf>, u64) {
        let mut files = Vec::new();
        for folder in fs::read_dir(self.options().folder).expect("it is there").flatten() {
            if folder.path().is_dir() {
                files.extend(fs::read_dir(folder.path()).expect("it is there").flatten().map(|file| file.path()));
            }
        }
        files.sort();
        let charged = files.iter().map(|file| charge(fs::metadata(file).expect("it is there").len())).sum();
        (files, charged)
    }

    /// The only file.
    fn file(&self) -> PathBuf {
        let (files, _) = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

impl Process {
    /// Reads ranges, checks them byte for byte, and waits until they are kept. Returns how many requests that took.
    async fn read(&self, path: &Path, ranges: &[Range<u64>]) -> u64 {
        let before = self.metrics.requests();
        let parts = self.ranges.get_ranges(path, ranges).await.expect("memory works");
        assert_eq!(parts.len(), ranges.len());
        for (part, range) in parts.iter().zip(ranges) {
            assert!(part.iter().copied().eq(range.clone().map(|at| byte(path, at))), "{range:?}");
        }
        if let Some(disk) = &self.ranges.disk {
            disk.written().await;
        }
        self.metrics.requests() - before
    }

    /// Hits, misses and damaged parts.
    fn counts(&self) -> (u64, u64, u64) {
        (self.metrics.disk_found.get(), self.metrics.disk_missed.get(), self.metrics.disk_damaged.get())
    }
}

fn x() -> Path {
    Path::from("t/x")
}

fn y() -> Path {
    Path::from("t/y")
}

fn byte(path: &Path, at: u64) -> u8 {
    (at >> 10) as u8 ^ path.as_ref().as_bytes()[2]
}

fn pages(number: u64) -> Range<u64> {
    number * 8 * KIB..(number + 1) * 8 * KIB
}

/// Goal: what was read is read from disk, by the next process as well; of several ranges only those that are not there are asked for.
#[tokio::test]
async fn what_was_read_outlives_the_process() {
    let world = World::new(MIB).await;
    let first = world.start();
    assert_eq!(first.read(&x(), &[10..20, 5_000..9_000]).await, 1);
    assert_eq!(first.read(&x(), &[5_000..9_000, 10..20, 10..20]).await, 0);
    assert_eq!(first.counts(), (3, 2, 0));
    drop(first);
    let second = world.start();
    assert!(second.metrics.disk_bytes.get() > 4_010, "it knows what is there");
    assert_eq!(second.read(&x(), &[10..20, 5_000..9_000]).await, 0);
    assert_eq!(second.read(&x(), &[10..20, MIB..MIB + 1]).await, 1);
    assert_eq!(second.read(&y(), &[10..20]).await, 1, "another object is another");
    assert_eq!(second.counts(), (3, 2, 0));
}

/// Goal: whatever byte is flipped and wherever a file ends, that is a miss, counted, and never an answer; then it is kept anew.
#[tokio::test]
async fn damage_is_a_miss() {
    let world = World::new(MIB).await;
    let process = world.start();
    process.read(&x(), &[100..164]).await;
    let whole = fs::read(world.file()).expect("it is there");
    let flipped = (0..whole.len()).map(|at| {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        flipped
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    let mut damaged = 0;
    for damage in flipped.chain(cut).chain([[&whole[..], b"x"].concat()]) {
        fs::write(world.file(), damage).expect("a file");
        assert_eq!(process.read(&x(), &[100..164]).await, 1);
        damaged += 1;
        assert_eq!(
            (process.metrics.disk_damaged.get(), fs::read(world.file()).expect("it is there")),
            (damaged, whole.clone())
        );
    }
    assert_eq!(process.read(&x(), &[100..164]).await, 0);
    // A file that is whole, but of something else, as where two objects have one hash.
    for (path, range) in [(y(), 100..164), (x(), 101..165)] {
        fs::write(world.file(), encode(&path, &range, &[7; 64])).expect("a file");
        assert_eq!(process.read(&x(), &[100..164]).await, 1);
    }
}

/// Goal: whatever is read, files take no more than the bound, also after a start with a smaller one; what is larger is not kept.
#[tokio::test]
async fn the_bound_holds() {
    let mut world = World::new(256 * KIB).await;
    let process = world.start();
    for number in 0..100 {
        process.read(&x(), &[pages(number)]).await;
        let (files, charged) = world.files();
        assert!(charged <= 256 * KIB && files.len() as u64 >= 12.min(number + 1), "{} take {charged}", files.len());
        assert_eq!(charged, process.metrics.disk_bytes.get() as u64, "what is counted is what is there");
    }
    process.read(&x(), &[0..MIB]).await;
    assert!(world.files().1 <= 256 * KIB);
    assert_eq!(process.read(&x(), &[0..MIB]).await, 1);
    drop(process);
    world.bytes_max = 64 * KIB;
    let process = world.start();
    let (files, charged) = world.files();
    assert!((1..=64 * KIB).contains(&charged) && !files.is_empty(), "{files:?} take {charged}");
    assert_eq!(charged, process.metrics.disk_bytes.get() as u64);
}

/// Goal: a sweep over much more than the bound does not push out what is asked for again and again.
#[tokio::test]
async fn a_sweep_leaves_what_is_used() {
    let world = World::new(256 * KIB).await;
    let process = world.start();
    for _ in 0..3 {
        process.read(&x(), &[pages(0), pages(1)]).await;
    }
    for number in 2..200 {
        process.read(&x(), &[pages(number)]).await;
    }
    assert_eq!(process.read(&x(), &[pages(0), pages(1)]).await, 0);
}

/// Goal: what proved damaged further up is forgotten, and nothing else.
#[tokio::test]
async fn what_is_forgotten_is_read_again() {
    let world = World::new(MIB).await;
    let process = world.start();
    process.read(&x(), &[pages(0), pages(1)]).await;
    process.read(&y(), &[pages(0)]).await;
    process.ranges.forget(&x());
    assert_eq!(world.files().0.len(), 1);
    assert_eq!((process.read(&y(), &[pages(0)]).await, process.read(&x(), &[pages(0)]).await), (0, 1));
}

/// Goal: a start removes what a crash left half written, and leaves alone what is not the cache's.
#[tokio::test]
async fn what_is_not_ours_stays() {
    let world = World::new(MIB).await;
    drop(world.start());
    let folder = world.options().folder;
    let part = Part::new(&x(), &(0..8)).file(&folder);
    let of_part = part.parent().expect("it lies in a folder");
    for path in [&folder.join("photos"), &folder.join("ab"), &of_part.to_owned()] {
        fs::create_dir_all(path).expect("a folder");
    }
    let stay = [
        folder.join("photos/1-2-3"),
        folder.join("photos/0000000000000000-0-8.1.new"),
        folder.join("ab/letter.new"),
        folder.join("ab/letter"),
        folder.join("letter"),
    ];
    let half = part.with_extension("7.new");
    stay.iter().chain([&half]).for_each(|path| fs::write(path, "x").expect("a file"));
    let process = world.start();
    let there: BTreeSet<_> = stay.iter().filter(|path| path.exists()).collect();
    assert_eq!(there, stay.iter().collect());
    assert!(!half.exists());
    assert_eq!(process.metrics.disk_bytes.get(), 0);
}

/// Goal: a folder that cannot be used, or that another process uses, means no cache and right answers.
#[tokio::test]
async fn without_a_folder_all_is_as_without_a_cache() {
    let world = World::new(MIB).await;
    let first = world.start();
    let second = world.start();
    assert!(first.ranges.disk.is_some() && second.ranges.disk.is_none());
    assert_eq!((second.read(&x(), &[pages(0)]).await, second.read(&x(), &[pages(0)]).await), (1, 1));

    let world = World::new(MIB).await;
    fs::write(world.options().folder, "a file").expect("a file");
    let process = world.start();
    assert!(process.ranges.disk.is_none());
    assert_eq!(process.read(&x(), &[pages(0)]).await, 1);
}

/// Goal: a disk that takes nothing is left alone for a minute, in which what is there is still read; then it is tried again.
#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_is_left_alone() {
    let world = World::new(MIB).await;
    let process = world.start();
    process.read(&x(), &[pages(0)]).await;
    // A file where the folder of the next object's parts would be.
    let blocked = Part::new(&y(), &pages(0)).file(&world.options().folder);
    let blocked = blocked.parent().expect("it lies in a folder");
    fs::write(blocked, "x").expect("a file");
    assert_eq!(process.read(&y(), &[pages(0)]).await, 1);
    assert_eq!(process.metrics.disk_failed.get(), 1);
    fs::remove_file(blocked).expect("it is there");
    assert_eq!((process.read(&y(), &[pages(0)]).await, process.read(&y(), &[pages(0)]).await), (1, 1));
    assert_eq!((process.read(&x(), &[pages(0)]).await, process.metrics.disk_failed.get()), (0, 1));
    tokio::time::advance(LEFT_ALONE_FOR).await;
    assert_eq!((process.read(&y(), &[pages(0)]).await, process.read(&y(), &[pages(0)]).await), (1, 0));
}
