//! Goal: without faults it is a store as good as S3; with each fault, it does what the fault says.

use afterglow_store::testing::conformance::{self, Order};
use object_store::ObjectStoreExt;
use tokio::time::{advance, timeout};

use super::*;

const KEY: &str = "v1/t/anonymous/l0/x";

fn store(faults: Faults) -> SimStore {
    let store = SimStore::new(&World::new(1, false));
    store.set_faults(faults);
    store
}

async fn create(store: &SimStore) -> Result<PutResult> {
    store.put_opts(&KEY.into(), "one".into(), PutMode::Create.into()).await
}

fn always(set: impl Fn(&mut Faults)) -> SimStore {
    let mut faults = Faults::none();
    set(&mut faults);
    store(faults)
}

#[tokio::test(start_paused = true)]
async fn it_keeps_what_every_store_must() {
    conformance::check(Arc::new(store(Faults::none())), "some/prefix".into(), Order::Sorted).await;
}

#[tokio::test(start_paused = true)]
async fn f2_a_lost_answer_is_of_what_was_done() {
    let store = always(|faults| faults.lose_answer = 1.0);
    let heard = timeout(Duration::from_secs(5), store.put(&KEY.into(), "one".into())).await;
    assert!(!matches!(heard, Ok(Ok(_))), "{heard:?}");
    assert!(store.was_written(&KEY.into()));
}

#[tokio::test(start_paused = true)]
async fn f3_a_write_lands_after_its_sender_gave_up() {
    let store = always(|faults| faults.later = 1.0);
    timeout(Duration::from_millis(1), store.put(&KEY.into(), "one".into())).await.expect_err("no answer");
    assert!(!store.was_written(&KEY.into()));
    advance(faults::LATE_MAX).await;
    sleep(Duration::from_secs(1)).await;
    assert!(store.was_written(&KEY.into()));
}

#[tokio::test(start_paused = true)]
async fn f5_and_f6_conflicts_say_nothing_of_what_was_done() {
    for (store, is_written) in
        [(always(|faults| faults.conflict = 1.0), false), (always(|faults| faults.own_conflict = 1.0), true)]
    {
        let heard = create(&store).await;
        assert!(matches!(heard, Err(object_store::Error::AlreadyExists { .. })), "{heard:?}");
        assert_eq!(store.was_written(&KEY.into()), is_written);
    }
}

#[tokio::test(start_paused = true)]
async fn f6_a_conflict_may_come_before_what_it_is_with() {
    let store = always(|faults| faults.conflict_before = 1.0);
    let heard = create(&store).await;
    assert!(matches!(heard, Err(object_store::Error::AlreadyExists { .. })), "{heard:?}");
    assert!(!store.was_written(&KEY.into()));
    sleep(faults::TWICE_MAX + Duration::from_secs(1)).await;
    assert!(store.was_written(&KEY.into()));
}

#[tokio::test(start_paused = true)]
async fn f4_a_write_that_lands_twice_brings_back_what_was_deleted() {
    let store = always(|faults| faults.twice = 1.0);
    store.put(&KEY.into(), "one".into()).await.expect("it is answered once");
    store.apply(&Write::Delete { key: KEY.into() }).expect("it is there");
    assert_eq!(store.objects(), 0);
    sleep(faults::TWICE_MAX + Duration::from_secs(1)).await;
    assert_eq!(store.objects(), 1);
}

#[tokio::test(start_paused = true)]
async fn f7_is_found_by_the_probe() {
    let store = always(|faults| faults.ignore_condition = 1.0);
    let store = afterglow_store::Store::new(Arc::new(store), "bad clone".to_owned(), Default::default());
    let error = store.probe().await.expect_err("the second create succeeds");
    assert!(matches!(error, afterglow_store::Error::ConditionalWrites { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn f8_a_damaged_body_is_not_what_was_written() {
    let store = always(|faults| faults.damage = 1.0);
    store.put(&KEY.into(), "some bytes".into()).await.expect("writes work");
    for _ in 0..100 {
        let body = store.get(&KEY.into()).await.expect("a head").bytes().await;
        assert!(body.is_err() || body.is_ok_and(|body| body != "some bytes"));
    }
}

#[tokio::test(start_paused = true)]
async fn f10_a_page_may_repeat_a_key_and_never_omits_one() {
    let store = always(|faults| faults.repeat_key = 1.0);
    for n in 0..3 * PAGE_KEYS {
        store.put(&format!("a/{n:03}").into(), "x".into()).await.expect("writes work");
    }
    let listed: Vec<Path> = store.list(None).map(|meta| meta.expect("listings work").location).collect().await;
    let distinct: BTreeSet<&Path> = listed.iter().collect();
    assert_eq!((distinct.len(), listed.is_sorted()), (3 * PAGE_KEYS, true));
    assert!(listed.len() > distinct.len());
}

#[tokio::test(start_paused = true)]
async fn f10_later_pages_may_be_as_of_the_first() {
    for (set, is_old) in [((|faults| faults.old_pages = 1.0) as fn(&mut Faults), true), (|_| {}, false)] {
        let store = always(set);
        for n in 0..2 * PAGE_KEYS {
            store.put(&format!("a/{n:03}").into(), "x".into()).await.expect("writes work");
        }
        let mut list = store.list(None);
        let mut listed = vec![list.next().await.expect("a key").expect("listings work").location];
        // Between the first page and the next, one goes and one comes.
        let (last, new) = (Path::from(format!("a/{:03}", 2 * PAGE_KEYS - 1)), Path::from("a/999"));
        store.delete(&last).await.expect("deletes work");
        store.put(&new, "x".into()).await.expect("writes work");
        while let Some(meta) = list.next().await {
            listed.push(meta.expect("listings work").location);
        }
        assert_eq!((listed.len(), listed.is_sorted()), (2 * PAGE_KEYS, true));
        assert_eq!((listed.contains(&last), listed.contains(&new)), (is_old, !is_old));
        assert_eq!(store.shared.world.met().of(Met::OmitsKey), u64::from(is_old));
    }
}

#[tokio::test(start_paused = true)]
async fn f12_a_delete_is_not_what_its_answer_says() {
    let store = always(|faults| faults.odd_delete = 1.0);
    let (mut late, mut failed) = (0, 0);
    for _ in 0..50 {
        store
            .apply(&Write::Put { key: KEY.into(), bytes: "x".into(), mode: PutMode::Overwrite })
            .expect("no condition");
        let heard = store.delete(&KEY.into()).await;
        late += usize::from(heard.is_ok() && store.objects() == 1);
        failed += usize::from(heard.is_err() && store.objects() == 0);
        sleep(faults::TWICE_MAX + Duration::from_secs(1)).await;
        assert_eq!(store.objects(), 0);
    }
    assert!(late > 0 && failed > 0 && late + failed == 50, "{late} {failed}");
}

#[tokio::test(start_paused = true)]
async fn f16_a_success_may_be_an_error() {
    let store = always(|faults| faults.error_body = 1.0);
    let (key, other) = (Path::from(KEY), Path::from("v1/t/anonymous/l0/y"));
    store
        .apply(&Write::Put { key: other.clone(), bytes: "there".into(), mode: PutMode::Overwrite })
        .expect("no condition");
    assert!(store.put(&key, "one".into()).await.is_err() && create(&store).await.is_err());
    assert!(!store.was_written(&key));
    assert!(store.delete(&other).await.is_err() && store.objects() == 1);
    assert!(store.head(&other).await.is_err() && store.get_range(&other, 0..2).await.is_err());
    assert!(store.list(None).collect::<Vec<_>>().await.iter().all(Result::is_err));
    // Of what is there and of what is not, a whole read fails or is an error document.
    for key in [key, other] {
        let (mut failed, mut documents) = (0, 0);
        for _ in 0..50 {
            match store.get(&key).await {
                Ok(got) => {
                    assert_eq!(got.bytes().await.expect("a body"), ERROR_BODY);
                    documents += 1;
                }
                Err(_) => failed += 1,
            }
        }
        assert!(failed > 0 && documents > 0, "{failed} {documents}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_sender_wrote_lands_or_not_by_chance() {
    let store = always(|faults| faults.orphan_lives = 0.5);
    for n in 0..100 {
        let key = Path::from(format!("a/{n}"));
        timeout(Duration::from_micros(10), store.put(&key, "x".into())).await.expect_err("too soon");
    }
    sleep(faults::LATE_MAX + Duration::from_secs(1)).await;
    assert!((20..80).contains(&store.objects()), "{}", store.objects());
}
