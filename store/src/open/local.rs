//! A local folder that keeps the promise of a bucket: what was put is there after the power fails.
//!
//! [`LocalFileSystem`] with `fsync` on does most of it. Of one put, in this order: write to `<key>#<n>`, fsync the file, rename it to
//! its key (for a create: hard-link, which fails where the key exists), fsync the folder; where it had to make folders it syncs
//! each and the one above. One gap is left, and [`Folder`] closes it: of two puts that race for a new folder, the loser finds the
//! folder there and may return before the winner has synced the entry that names it; and a process that starts finds folders
//! whose maker may have been killed before its sync. So the first put into any folder also syncs all folders above, once a process.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path as FolderPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};

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
    Ok(Folder { inner, synced: Arc::default(), root: root.into() })
}

/// A store in a folder.
#[derive(Debug)]
pub(super) struct Folder {
    inner: LocalFileSystem,
    root: Arc<FolderPath>,
    /// The folders, relative to the root, whose names are durable.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Folder {
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
        let result = self.inner.put_opts(location, payload, options).await?;
        self.sync_above(location).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
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
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        // A folder that is gone would list as one that is empty.
        if let Err(source) = tokio::fs::metadata(&*self.root).await {
            return Err(object_store::Error::Generic { store: "folder", source: source.into() });
        }
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
