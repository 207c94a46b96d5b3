//! A local folder that keeps the promise of a bucket: what was put is there after the power fails.
//!
//! [`LocalFileSystem`] with `fsync` on does most of it. Of one put, in this order: write to `<key>#<n>`, fsync the file, rename it to
//! its key (for a create: hard-link, which fails where the key exists), fsync the folder; where it had to make folders it syncs
//! each and the one above. One gap is left, and [`Folder`] closes it: of two puts that race for a new folder, the loser finds the
//! folder there and may return before the winner has synced the entry that names it; and a process that starts finds folders
//! whose maker may have been killed before its sync. So the first put into any folder also syncs all folders above, once a process.
//!
//! A process that is killed in a put leaves its `<key>#<n>`, which no listing shows and nobody would ever delete: whoever opens the
//! folder next does, once they are too old to be somebody's who still writes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path as FolderPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};

use crate::clock::TakenAt;

/// Opens the store in `folder`, which is made if need be, durably.
pub(super) fn open(folder: &FolderPath) -> io::Result<Folder> {
    let there_before = folder.ancestors().find(|above| above.exists()).map(FolderPath::canonicalize).transpose()?;
    std::fs::create_dir_all(folder)?;
    let root = folder.canonicalize()?;
    let got_an_entry = |above: &FolderPath| there_before.as_ref().is_some_and(|before| above.starts_with(before));
    for above in root.ancestors() {
        match sync_folder(above) {
            Err(error) if got_an_entry(above) => return Err(error),
            // Folders that were there may be closed to us or on a medium that is only read; their maker has had time to sync them.
            Ok(()) | Err(_) => {}
        }
    }
    let inner = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
    let identity = identity(&std::fs::metadata(&root)?);
    Ok(Folder { inner, synced: Arc::default(), root: root.into(), identity })
}

/// What a folder is known by, whatever its name.
type Identity = (u64, u64);

/// Returns the device and the number of a folder.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere it is only known whether there is one.
#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> Identity {
    (0, 0)
}

/// How long the file of a put that has not ended is left alone: many times what any put may take.
const UNFINISHED_AGE: Duration = Duration::from_secs(300);

/// Deletes what puts left that never ended, as of now.
#[expect(clippy::disallowed_methods, reason = "files carry the time of the system, not that of a clock of ours")]
pub(super) fn sweep_now(root: &FolderPath) {
    sweep(root, SystemTime::now());
}

/// Deletes what puts left that never ended. What cannot be read or deleted stays: the folder may belong to others or be only read.
fn sweep(folder: &FolderPath, now: SystemTime) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            sweep(&path, now);
        } else if kind.is_file() && is_unfinished(&entry.file_name()) {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= UNFINISHED_AGE));
            if is_old && std::fs::remove_file(&path).is_ok() {
                tracing::info!(file = %path.display(), "deleted what a put left that never ended");
            }
        }
    }
}

/// Whether a file has the name under which [`LocalFileSystem`] writes what will be an object. Keys of objects have no `#`.
fn is_unfinished(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A store in a folder.
#[derive(Debug)]
pub(super) struct Folder {
    inner: LocalFileSystem,
    root: Arc<FolderPath>,
    /// What the root was when it was opened.
    identity: Identity,
    /// The folders, relative to the root, whose names are durable.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Folder {
    /// Makes sure that the root is what it was. Where its medium is not mounted any more, or somebody moved it, [`LocalFileSystem`] would make
    /// a new one, and what is acknowledged would be in neither.
    fn check(&self) -> impl Future<Output = object_store::Result<()>> + Send + use<> {
        let (folder, before) = (Arc::clone(&self.root), self.identity);
        async move {
            let root = folder.display();
            let source = match tokio::fs::metadata(&*folder).await.map(|metadata| identity(&metadata)) {
                Ok(identity) if identity == before => return Ok(()),
                Ok(_) => io::Error::other(format!(
                    "{root} is another folder than when this process began; start it again if that is meant"
                )),
                Err(error) => {
                    io::Error::new(error.kind(), format!("{root}, which was there when this process began: {error}"))
                }
            };
            Err(object_store::Error::Generic { store: "folder", source: source.into() })
        }
    }

    /// Lists nothing but that the root is not what it was, where that is so.
    fn checked(
        &self,
        listed: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let checked = self.check();
        stream::once(async move { checked.await.map(|()| listed) }).try_flatten().boxed()
    }

    /// Makes the names of all folders above `location` durable.
    async fn sync_above(&self, location: &Path) -> object_store::Result<()> {
        let file = self.inner.path_to_filesystem(location)?;
        let Some(folder) = file.parent().map(FolderPath::to_owned) else { return Ok(()) };
        if self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(&folder) {
            return Ok(());
        }
        let (root, synced) = (Arc::clone(&self.root), Arc::clone(&self.synced));
        let sync = move || -> io::Result<()> {
            let above = folder.ancestors().skip(1).take_while(|above| above.starts_with(&root));
            above.into_iter().try_for_each(sync_folder)?;
            synced.lock().unwrap_or_else(PoisonError::into_inner).insert(folder);
            Ok(())
        };
        let done = tokio::task::spawn_blocking(sync).await?;
        done.map_err(|source| object_store::Error::Generic { store: "folder", source: source.into() })
    }
}

#[cfg(unix)]
fn sync_folder(folder: &FolderPath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; the system's journal must do.
#[cfg(not(unix))]
fn sync_folder(_folder: &FolderPath) -> io::Result<()> {
    Ok(())
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.check().await?;
        let mut result = self.inner.put_opts(location, payload, options).await?;
        self.sync_above(location).await?;
        // The folder may lie on another machine, whose clock stamps its files.
        if let Ok(file) = self.inner.path_to_filesystem(location)
            && let Ok(modified) = tokio::fs::metadata(file).await.and_then(|metadata| metadata.modified())
            && let Ok(since) = modified.duration_since(UNIX_EPOCH)
        {
            result.extensions.insert(TakenAt(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.check().await?;
        let upload = self.inner.put_multipart_opts(location, options).await?;
        self.sync_above(location).await?;
        Ok(upload)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.checked(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.checked(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        // A folder that is gone would list as one that is empty.
        self.check().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync_above(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync_above(to).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;

    use super::*;

    /// Goal: a root that was moved away is not made again, and one that takes its place is not taken for it.
    #[tokio::test]
    async fn a_root_that_is_gone_is_not_made_anew() {
        let above = tempfile::tempdir().expect("a folder");
        let (root, away) = (above.path().join("data"), above.path().join("away"));
        let folder = open(&root).expect("it is made");
        let put = async |key: &str| folder.put(&Path::from(key), PutPayload::from_static(b"some")).await;
        put("v1/a").await.expect("it is there");
        std::fs::rename(&root, &away).expect("moved");
        let text = put("v1/b").await.expect_err("it is gone").to_string();
        assert!(text.contains("which was there when this process began"), "{text}");
        assert!(!root.exists() && folder.list(None).next().await.is_some_and(|listed| listed.is_err()));
        std::fs::create_dir(&root).expect("another");
        let text = put("v1/b").await.expect_err("it is another").to_string();
        assert!(text.contains("is another folder"), "{text}");
        std::fs::remove_dir(&root).expect("it is empty");
        std::fs::rename(&away, &root).expect("moved back");
        put("v1/b").await.expect("it is there again");
        assert_eq!(folder.list(None).count().await, 2);
    }

    /// Goal: what a killed put left is deleted when it is old, and nothing else is.
    #[test]
    fn what_killed_puts_left_is_deleted_once_it_is_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("v1/t/anonymous/l0");
        std::fs::create_dir_all(&deep).expect("a folder");
        let names = ["a.agb", "a.agb#1", "b#x", "b.agb#27", "c#"];
        names.iter().for_each(|name| std::fs::write(deep.join(name), "some").expect("a file"));
        let left = || {
            let entries = std::fs::read_dir(&deep).expect("a folder");
            let mut left: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
            left.sort();
            left
        };
        sweep_now(folder.path());
        assert_eq!(left(), names, "all are too young");
        let written = std::fs::metadata(deep.join("a.agb")).and_then(|file| file.modified()).expect("a time");
        sweep(folder.path(), written + 2 * UNFINISHED_AGE);
        assert_eq!(left(), ["a.agb", "b#x", "c#"]);
    }
}
