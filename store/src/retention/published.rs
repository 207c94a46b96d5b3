//! What maintainers say of their retention, for readers to tell: the bucket itself has none.
//!
//! Each policy in force lies in an object of its own, whose name follows from what it says. Whoever maintains by it writes it again every
//! hour, so what was not written of late is in force no more. Where maintainers differ there are several, and all of them delete.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::{Policy, Rule};
use crate::compaction::Error;
use crate::{Store, paths};

/// How long it is from one time to the next that a maintainer writes its policy.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_secs(3_600);
/// How much older than the newest an object may be for its policy to be in force: as long as a maintainer may be busy with other things.
const IN_FORCE: Duration = Duration::from_secs(3 * 3_600);
/// How long what was read is believed.
const READ_AGE_MAX: Duration = Duration::from_secs(60);
/// The most policies that are read.
const POLICIES_MAX: usize = 16;

/// Writes that this process maintains the bucket by `policy`. Costs a PUT.
///
/// # Errors
/// Where it could not be written.
pub(crate) async fn publish(store: &Store, policy: &Policy) -> Result<(), Error> {
    let text = text(policy);
    let key = paths::retention(xxh3_64(text.as_bytes()));
    let put = store.objects().put(&key, PutPayload::from(text.into_bytes())).await;
    put.map(|_| ()).map_err(|source| Error::Write { key, source: source.into() })
}

/// Reads what maintainers of a bucket say, now and then.
#[derive(Debug)]
pub struct Published {
    store: Store,
    read: tokio::sync::Mutex<Option<(Instant, Arc<[Policy]>)>>,
}

impl Published {
    /// Makes it. Makes no request.
    pub fn new(store: Store) -> Self {
        Self { store, read: tokio::sync::Mutex::default() }
    }

    /// Returns the policies in force, in no order of meaning; none where nobody maintains the bucket. Once a minute it costs a LIST, and a
    /// GET for each policy.
    ///
    /// # Errors
    /// Where the bucket could not be read.
    pub async fn policies(&self) -> Result<Arc<[Policy]>, object_store::Error> {
        let mut read = self.read.lock().await;
        if let Some((at, policies)) = &*read
            && at.elapsed() < READ_AGE_MAX
        {
            return Ok(Arc::clone(policies));
        }
        let at = Instant::now();
        let policies: Arc<[Policy]> = self.fetch().await?.into();
        *read = Some((at, Arc::clone(&policies)));
        Ok(policies)
    }

    async fn fetch(&self) -> Result<Vec<Policy>, object_store::Error> {
        let objects = self.store.objects();
        let mut listed: Vec<ObjectMeta> = objects.list(Some(&paths::retentions())).try_collect().await?;
        let newest = listed.iter().map(|meta| meta.last_modified).max();
        let is_in_force = |meta: &ObjectMeta| {
            newest.is_some_and(|newest| (newest - meta.last_modified).num_seconds() <= IN_FORCE.as_secs() as i64)
        };
        listed.retain(is_in_force);
        listed.truncate(POLICIES_MAX);
        let fetch = async |meta: ObjectMeta| match objects.get(&meta.location).await {
            Ok(found) => Ok(parse(&found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let fetched: Vec<Option<Policy>> =
            futures::stream::iter(listed.into_iter().map(fetch)).buffered(POLICIES_MAX).try_collect().await?;
        Ok(fetched.into_iter().flatten().collect())
    }
}

/// Writes a policy down, a line each for what it says.
fn text(policy: &Policy) -> String {
    let age = |age: Option<Duration>| humantime::format_duration(age.unwrap_or_default());
    let mut text = format!("age {}\n", age(policy.age_max));
    if let Some(bytes) = policy.bytes_max {
        text.push_str(&format!("bytes {bytes}\n"));
    }
    for rule in &policy.rules {
        text.push_str(&format!("rule {}={}\n", rule.selector, age(rule.age_max)));
    }
    text
}

/// Reads it back; none where it says what this program does not know.
fn parse(bytes: &[u8]) -> Option<Policy> {
    let mut policy = Policy { age_max: None, rules: Vec::new(), bytes_max: None };
    for line in std::str::from_utf8(bytes).ok()?.lines() {
        match line.split_once(' ')? {
            ("age", age) => {
                let age = humantime::parse_duration(age).ok()?;
                policy.age_max = (!age.is_zero()).then_some(age);
            }
            ("bytes", bytes) => policy.bytes_max = Some(bytes.parse().ok()?),
            ("rule", rule) => policy.rules.push(rule.parse::<Rule>().ok()?),
            _ => return None,
        }
    }
    Some(policy)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::StoreOptions;

    fn policy(age: Option<u64>, rules: &[&str]) -> Policy {
        let rules = rules.iter().map(|rule| rule.parse().expect("valid")).collect();
        Policy { age_max: age.map(Duration::from_secs), rules, bytes_max: age }
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let rules = ["{service=\"a\\nb\",dc=~\"x y=.*\"}=36h", "{service=\"keep\"}=0s", "{service!=\"x\"}=1500ms"];
        for policy in [policy(None, &[]), policy(Some(90), &rules), Policy::default()] {
            let read = parse(text(&policy).as_bytes()).expect("it was just written");
            assert_eq!(text(&read), text(&policy));
            assert_eq!(
                (read.age_max, read.bytes_max, read.rules.len()),
                (policy.age_max, policy.bytes_max, policy.rules.len())
            );
            let ages = |policy: &Policy| policy.rules.iter().map(|rule| rule.age_max).collect::<Vec<_>>();
            assert_eq!(ages(&read), ages(&policy));
        }
        assert!(parse(b"age 30days\ncolour blue\n").is_none(), "what is not known is not guessed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_maintainers_say_is_read_once_a_minute() {
        let objects = Arc::new(InMemory::new());
        let store = Store::new(objects, "memory://".to_owned(), StoreOptions::default());
        let published = Published::new(store.clone());
        let ages = async || {
            let policies = published.policies().await.expect("it is in memory");
            let mut ages: Vec<_> = policies.iter().map(|policy| policy.age_max.map(|age| age.as_secs())).collect();
            ages.sort_unstable();
            ages
        };
        assert_eq!(ages().await, []);
        for age in [Some(100), None, Some(100)] {
            publish(&store, &policy(age, &[])).await.expect("it is in memory");
        }
        assert_eq!(ages().await, [], "it is believed for a minute");
        tokio::time::sleep(READ_AGE_MAX).await;
        assert_eq!(ages().await, [None, Some(100)]);
    }
}
