use super::*;

fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
    values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
}

#[test]
fn grpc_is_told_by_the_content_type() {
    for (value, grpc) in [("application/grpc", true), ("application/grpc+proto", true), ("application/json", false)] {
        assert_eq!(is_grpc(&headers(header::CONTENT_TYPE, &[value])), grpc, "{value}");
    }
    assert!(!is_grpc(&HeaderMap::new()));
}

/// Goal: a body is never taken for what it is not, and the refusal says what would do.
#[test]
fn encodings_known_and_unknown() {
    let of = |values: &[&'static str]| content_encoding(&headers(header::CONTENT_ENCODING, values));
    for (values, encoding) in [
        (&[][..], Encoding::Identity),
        (&["identity"], Encoding::Identity),
        (&["gzip"], Encoding::Gzip),
        (&["GZip"], Encoding::Gzip),
        (&["x-gzip"], Encoding::Gzip),
        (&["identity", "gzip"], Encoding::Gzip),
    ] {
        assert_eq!(of(values), Ok(encoding), "{values:?}");
    }
    for values in [&["br"][..], &["zstd"], &["gzip, gzip"], &["gzip", "gzip"], &["deflate"]] {
        let response = of(values).expect_err("an unknown encoding").into_response();
        assert_eq!(response.status(), 415, "{values:?}");
        assert_eq!(response.headers()[header::ACCEPT_ENCODING], "gzip, identity");
    }
}

/// Goal: a bad parameter is refused by name, in the form of every refusal.
#[tokio::test]
async fn query_parameters_are_refused_by_name() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only the refusal is looked at")]
    struct Window {
        limit: u32,
    }
    let (mut parts, ()) = ::http::Request::get("/?limit=many").body(()).expect("a request").into_parts();
    let failure = Query::<Window>::from_request_parts(&mut parts, &()).await.expect_err("not a number");
    assert_eq!(failure.kind(), Kind::Invalid);
    assert!(failure.message().starts_with("query parameters: limit: "), "{failure}");
}

#[tokio::test]
async fn any_parameters_keep_their_order() {
    let uri = "/?label.b=2&label.a=1&label.a=%2e";
    let (mut parts, ()) = ::http::Request::get(uri).body(()).expect("a request").into_parts();
    let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(&mut parts, &()).await.expect("pairs");
    let expected = [("label.b", "2"), ("label.a", "1"), ("label.a", ".")];
    assert!(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{pairs:?}");
}

/// Goal: the limit's own words reach the caller, however deep the body's layers wrapped them.
#[tokio::test]
async fn a_failure_inside_the_body_is_the_answer() {
    let refusal = Failure::too_large("body 3 B exceeds max_body 2 B (--limits.max-body)");
    let frames = futures::stream::iter([Ok(Bytes::from_static(b"abc")), Err(refusal.clone())]);
    assert_eq!(read_body(Body::from_stream(frames)).await, Err(refusal));
    let frames = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]);
    assert_eq!(read_body(Body::from_stream(frames)).await.map_err(|f| f.kind()), Err(Kind::Invalid));
}

#[test]
fn file_names_stay_plain() {
    let response = file("cpu \"x\"\r\n/../é.pb.gz", "bytes");
    assert_eq!(response.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"cpu__x____..__.pb.gz\"");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/octet-stream");
}
