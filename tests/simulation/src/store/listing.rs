//! Listings: page by page, each as of its own time.

use std::collections::BTreeSet;
use std::ops::Bound;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Extensions, ListResult, ObjectMeta, Result};
use tokio::time::sleep;

use super::{PAGE_KEYS, SimStore, State, meta};

/// Lists what lies under a prefix, behind a key.
pub(super) fn list(
    store: SimStore,
    prefix: Option<Path>,
    after: Option<Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let pages = stream::try_unfold(Some(after), move |after| {
        let (store, prefix) = (store.clone(), prefix.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let page = store.page(prefix.as_ref(), after.as_ref()).await?;
            let is_last = page.len() < PAGE_KEYS;
            let next = page.last().filter(|_| !is_last).map(|last| Some(last.location.clone()));
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

impl SimStore {
    async fn page(&self, prefix: Option<&Path>, after: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or(Path::ROOT);
        let fate = self.draw("list", &folder, false, false);
        self.wait(&fate, &folder).await?;
        let page = {
            let mut state = self.state();
            let State { objects, faults, chance, .. } = &mut *state;
            let from = match after {
                Some(after) if chance.is(faults.repeat_key) => Bound::Included(after.clone()),
                Some(after) => Bound::Excluded(after.clone()),
                None => Bound::Unbounded,
            };
            let is_in = |key: &Path| {
                prefix.is_none_or(|prefix| key.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some()))
            };
            let found = objects.range((from, Bound::Unbounded)).filter(|(key, _)| is_in(key));
            found.take(PAGE_KEYS).map(|(key, object)| meta(key, object)).collect()
        };
        sleep(fate.answer_after).await;
        Ok(page)
    }
}
