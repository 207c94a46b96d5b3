//! Listings: page by page, each as of its own time, or where so drawn all as of the first.

use std::collections::BTreeSet;
use std::ops::Bound;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Extensions, ListResult, ObjectMeta, Result};
use tokio::time::sleep;

use super::{PAGE_KEYS, SimStore, State, meta};
use crate::met::Met;

/// Lists what lies under a prefix, behind a key.
pub(super) fn list(
    store: SimStore,
    prefix: Option<Path>,
    after: Option<Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let first = Some(Cursor { after, is_first: true, frozen: None });
    let pages = stream::try_unfold(first, move |cursor| {
        let (store, prefix) = (store.clone(), prefix.clone());
        async move {
            let Some(mut cursor) = cursor else { return Ok(None) };
            let page = store.page(prefix.as_ref(), &mut cursor).await?;
            let is_last = page.len() < PAGE_KEYS;
            let next = page.last().filter(|_| !is_last).map(|last| Some(last.location.clone()));
            let next = next.map(|after| Cursor { after, is_first: false, ..cursor });
            Ok::<_, object_store::Error>(Some((stream::iter(page).map(Ok), next)))
        }
    });
    pages.try_flatten().boxed()
}

/// Lists a folder, without what lies in folders below it.
pub(super) async fn folder(store: &SimStore, prefix: Option<&Path>) -> Result<ListResult> {
    let all: Vec<ObjectMeta> = list(store.clone(), prefix.cloned(), None).try_collect().await?;
    let root = prefix.cloned().unwrap_or(Path::ROOT);
    let mut folders = BTreeSet::new();
    let mut objects = Vec::new();
    for meta in all {
        let below = {
            let mut parts = meta.location.prefix_match(&root).expect("what is listed has the prefix");
            let first = parts.next().expect("a key is not its own folder");
            parts.next().is_some().then(|| root.clone().join(first))
        };
        match below {
            Some(folder) => drop(folders.insert(folder)),
            None => objects.push(meta),
        }
    }
    Ok(ListResult { common_prefixes: folders.into_iter().collect(), objects, extensions: Extensions::default() })
}

/// How far a listing has come.
struct Cursor {
    /// The key behind which it goes on.
    after: Option<Path>,
    is_first: bool,
    /// What there was when it began, where all its pages tell that.
    frozen: Option<Vec<ObjectMeta>>,
}

impl SimStore {
    async fn page(&self, prefix: Option<&Path>, cursor: &mut Cursor) -> Result<Vec<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or(Path::ROOT);
        let fate = self.draw("list", &folder, false, false);
        self.wait(&fate, &folder).await?;
        let page = {
            let mut state = self.state();
            let State { objects, faults, chance, .. } = &mut *state;
            let from = match &cursor.after {
                Some(after) if chance.is(faults.repeat_key) => {
                    self.shared.world.meets(Met::RepeatsKey);
                    Bound::Included(after)
                }
                Some(after) => Bound::Excluded(after),
                None => Bound::Included(&folder),
            };
            // Keys of one folder are neighbours, but for those of folders whose names go on with what sorts before a slash.
            let is_near = |key: &Path| key.as_ref().starts_with(folder.as_ref());
            let is_in = |key: &Path| key.prefix_match(&folder).is_some_and(|mut rest| rest.next().is_some());
            let range = objects.range::<Path, _>((from, Bound::Unbounded));
            let found = range.take_while(|(key, _)| is_near(key)).filter(|(key, _)| is_in(key));
            let mut found = found.map(|(key, object)| meta(key, object));
            if cursor.is_first && chance.is(faults.old_pages) {
                cursor.frozen = Some(found.collect());
                cursor.frozen.iter().flatten().take(PAGE_KEYS).cloned().collect()
            } else if let Some(frozen) = &cursor.frozen {
                let is_left = |meta: &&ObjectMeta| match from {
                    Bound::Included(after) => meta.location >= *after,
                    Bound::Excluded(after) => meta.location > *after,
                    Bound::Unbounded => true,
                };
                let page: Vec<ObjectMeta> = frozen.iter().filter(is_left).take(PAGE_KEYS).cloned().collect();
                let last = page.last().filter(|_| page.len() == PAGE_KEYS).map(|last| last.location.clone());
                let is_of_page = |meta: &ObjectMeta| last.as_ref().is_none_or(|last| meta.location <= *last);
                let is_listed = |meta: &ObjectMeta| page.binary_search_by_key(&&meta.location, |m| &m.location).is_ok();
                if found.any(|meta| is_of_page(&meta) && !is_listed(&meta)) {
                    self.shared.world.meets(Met::OmitsKey);
                }
                page
            } else {
                found.take(PAGE_KEYS).collect()
            }
        };
        sleep(fate.answer_after).await;
        Ok(page)
    }
}
