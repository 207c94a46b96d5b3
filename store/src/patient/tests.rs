//! Reads are made again where that may help, as often and as long as stated, and give what was asked for.

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::clock::SeededRandom;
use crate::testing::faults::{Faulty, Operation, Trouble};

const CONTENT: &[u8] = b"0123456789";

async fn patient(troubles: impl IntoIterator<Item = Trouble>) -> (Faulty, Patient<Faulty>, Path) {
    let faulty = Faulty::new(Arc::new(InMemory::new()));
    let path = Path::from("x");
    faulty.inner().put(&path, PutPayload::from_static(CONTENT)).await.expect("memory works");
    faulty.script(Operation::Get, troubles);
    let patient = Patient::new(faulty.clone(), Policy::default(), Arc::new(SeededRandom::new(1)), Metrics::default());
    (faulty, patient, path)
}

async fn suffix(patient: &Patient<Faulty>, path: &Path) -> object_store::Result<Bytes> {
    let options = GetOptions { range: Some(GetRange::Suffix(4)), ..GetOptions::default() };
    patient.get_opts(path, options).await?.bytes().await
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_read_again() {
    use Trouble::{CutBody, LoseAnswer, Refuse, Stall, Unreachable};
    for trouble in [Refuse(500), Refuse(503), LoseAnswer, Unreachable, Stall, CutBody(0), CutBody(2)] {
        let (faulty, patient, path) = patient([trouble]).await;
        assert_eq!(suffix(&patient, &path).await.expect("the second attempt works"), "6789", "{trouble:?}");
        assert_eq!((faulty.count(Operation::Get), patient.metrics.read_retries.get()), (2, 1), "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lasting_failure_is_told_at_once() {
    for status in [400, 401, 403, 404, 412] {
        let (faulty, patient, path) = patient([Trouble::Refuse(status)]).await;
        assert!(suffix(&patient, &path).await.is_err());
        assert_eq!(faulty.count(Operation::Get), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_and_time_are_bounded() {
    let (faulty, patient, path) = patient([]).await;
    faulty.always(Operation::Get, Trouble::Refuse(500));
    assert!(suffix(&patient, &path).await.is_err());
    assert_eq!(faulty.count(Operation::Get), 4);
    faulty.always(Operation::Get, Trouble::Stall);
    let began = Instant::now();
    let error = suffix(&patient, &path).await.expect_err("nobody answers");
    assert!(error.to_string().contains("no answer within 3"), "{error}");
    let millis = began.elapsed().as_millis();
    assert!((12_000..12_400).contains(&millis), "four attempts of three seconds and three short pauses: {millis}");
}

#[tokio::test(start_paused = true)]
async fn several_ranges_are_each_read_again() {
    let (faulty, patient, path) = patient([Trouble::Refuse(500)]).await;
    let several = patient.get_ranges(&path, &[0..2, 8..10]).await.expect("the second attempt works");
    assert_eq!(several, ["01", "89"]);
    assert_eq!(faulty.count(Operation::Get), 2, "near ranges are read in one request");
}

#[tokio::test(start_paused = true)]
async fn a_read_without_end_is_retried_until_its_head_has_come() {
    let (faulty, patient, path) = patient([Trouble::Refuse(500), Trouble::CutBody(3)]).await;
    let found = patient.get(&path).await.expect("the second attempt has a head");
    assert!(found.bytes().await.is_err(), "a body that streams is not begun anew");
    assert_eq!(faulty.count(Operation::Get), 2);
}

#[tokio::test(start_paused = true)]
async fn writes_are_never_repeated() {
    let (faulty, patient, path) = patient([]).await;
    faulty.script(Operation::Put, [Trouble::Refuse(500)]);
    assert!(patient.put(&path, PutPayload::from_static(CONTENT)).await.is_err());
    assert_eq!(faulty.count(Operation::Put), 1);
}
