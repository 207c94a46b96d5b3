//! Any body as a question of Grafana's, by any method, in both codecs, plain and as gzip: answered or refused, never by a fault of ours, and
//! the same question in the other codec alike.

#![no_main]

use std::cell::OnceCell;
use std::fmt;

use afterglow_fuzz::querier::{Answer, Bucket, read};
use afterglow_proto::pyroscope::querier::v1 as querier;
use afterglow_proto::pyroscope::types::v1 as types;
use axum::Router;
use axum::body::Body;
use http::Request;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

const PROTO: &str = "application/proto";
const JSON: &str = "application/json";

thread_local! {
    static WORLD: OnceCell<(Bucket, Router)> = const { OnceCell::new() };
}

fn ask(method: &str, codec: &str, encoding: Option<&str>, body: &[u8]) -> Answer {
    WORLD.with(|world| {
        let (bucket, routes) = world.get_or_init(|| {
            let bucket = Bucket::default();
            bucket.put(1);
            let routes = bucket.querier(&[]).routes();
            (bucket, routes)
        });
        let mut request = Request::post(format!("/querier.v1.QuerierService/{method}")).header("content-type", codec);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let answered = async { read(routes.clone().oneshot(request).await.expect("routes answer")).await };
        let answer = bucket.runtime.block_on(answered);
        // Refused for what it asks, for what is not there, for how it is written, for what has no place here, or as too large; nothing else is
        // wrong.
        let said = String::from_utf8_lossy(&answer.body);
        assert!(matches!(answer.status, 200 | 400 | 404 | 413 | 415 | 501), "{method} {}: {said}", answer.status);
        answer
    })
}

/// Asks a question that came in one codec in the other as well.
fn both<Q, A>(method: &str, codec: &str, body: &[u8], answer: &Answer)
where
    Q: Message + Default + Serialize + DeserializeOwned,
    A: Message + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned,
{
    let question = if codec == JSON { serde_json::from_slice(body).ok() } else { Q::decode(body).ok() };
    let Some(question) = question else {
        assert_eq!(answer.status, 400, "{method}: what is no question is refused as that");
        return;
    };
    // What JSON has no word for, such as a number that stands for no name.
    let Ok(json) = serde_json::to_vec(&question) else { return };
    let (proto, other) = (question.encode_to_vec(), if codec == JSON { PROTO } else { JSON });
    let again = ask(method, other, None, if other == JSON { &json } else { &proto });
    // A pprof is not written as JSON.
    if answer.status == 501 || again.status == 501 {
        return;
    }
    assert_eq!(again.status, answer.status, "{method}: {}", String::from_utf8_lossy(&json));
    if answer.status == 200 {
        let (json, proto) = if codec == JSON { (answer, &again) } else { (&again, answer) };
        let said: A = serde_json::from_slice(&json.body).expect("an answer is JSON");
        assert_eq!(said, A::decode(&*proto.body).expect("an answer is protobuf"), "{method}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[method, how], body)) = input.split_first_chunk::<2>() else { return };
    let codec = if how & 1 == 0 { PROTO } else { JSON };
    let encoding = [None, Some("gzip"), Some("identity"), Some("br")][usize::from(how >> 1) % 4];
    macro_rules! methods {
        ($($number:literal: $name:literal, $question:ty, $answer:ty;)*) => {
            match method % 8 {
                $($number => {
                    let answer = ask($name, codec, encoding, body);
                    if encoding.is_none() {
                        both::<$question, $answer>($name, codec, body, &answer);
                    }
                })*
                _ => unreachable!("it is less than eight"),
            }
        };
    }
    methods! {
        0: "ProfileTypes", querier::ProfileTypesRequest, querier::ProfileTypesResponse;
        1: "LabelNames", types::LabelNamesRequest, types::LabelNamesResponse;
        2: "LabelValues", types::LabelValuesRequest, types::LabelValuesResponse;
        3: "Series", querier::SeriesRequest, querier::SeriesResponse;
        4: "SelectSeries", querier::SelectSeriesRequest, querier::SelectSeriesResponse;
        5: "SelectMergeStacktraces", querier::SelectMergeStacktracesRequest, querier::SelectMergeStacktracesResponse;
        6: "SelectMergeSpanProfile", querier::SelectMergeSpanProfileRequest, querier::SelectMergeSpanProfileResponse;
        // It is answered as protobuf alone.
        7: "SelectMergeProfile", querier::SelectMergeProfileRequest, querier::Pprof;
    }
});
