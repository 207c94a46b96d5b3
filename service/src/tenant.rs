//! Whose data a request is about: the header (in gRPC: metadata) `x-scope-orgid`, and `anonymous` without it.
//!
//! Only the way into the request is known here. What a tenant may be called is the store's to say, where names become
//! keys.

use http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::Failure;

/// The header that names the tenant, as others of the field spell it.
pub const HEADER: &str = "x-scope-orgid";

/// The tenant of whoever does not name one.
pub const ANONYMOUS: &str = "anonymous";

/// Returns the tenant named by the headers of an HTTP request.
///
/// # Errors
/// [`Kind::Invalid`](crate::Kind::Invalid) when it is named twice, is empty, or is not visible ASCII.
pub fn from_headers(headers: &HeaderMap) -> Result<&str, Failure> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(ANONYMOUS);
    };
    if values.next().is_some() {
        return Err(Failure::invalid(format!("header {HEADER} is given twice")));
    }
    match value.to_str() {
        Ok("") => Err(Failure::invalid(format!("header {HEADER} is empty"))),
        Ok(tenant) => Ok(tenant),
        Err(_) => Err(Failure::invalid(format!("header {HEADER} is not visible ASCII"))),
    }
}

/// Returns the tenant named by the metadata of a gRPC call.
///
/// # Errors
/// As [`from_headers`].
pub fn from_metadata(metadata: &MetadataMap) -> Result<&str, Failure> {
    from_headers(metadata.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use http::HeaderValue;

    fn of(values: &[&'static [u8]]) -> Result<String, Failure> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).expect("a header value"));
        }
        from_headers(&headers).map(str::to_owned)
    }

    /// Goal: nobody is taken for somebody else because a header was odd.
    #[test]
    fn tenant_is_the_header_or_anonymous() {
        assert_eq!(of(&[]), Ok("anonymous".to_owned()));
        assert_eq!(of(&[b"team-a"]), Ok("team-a".to_owned()));
        for odd in [&[b"".as_slice()][..], &[b"a", b"b"], &[b"a", b"a"], &[b"\xff"]] {
            assert_eq!(of(odd).expect_err("an odd header").kind(), Kind::Invalid, "{odd:?}");
        }
    }

    #[test]
    fn metadata_is_read_alike() {
        let mut metadata = MetadataMap::new();
        assert_eq!(from_metadata(&metadata), Ok(ANONYMOUS));
        metadata.insert(HEADER, "team-a".parse().expect("a metadata value"));
        assert_eq!(from_metadata(&metadata), Ok("team-a"));
    }
}
