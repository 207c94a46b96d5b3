//! Whose data a request is about: the header (in gRPC: metadata) `x-scope-orgid`, and `anonymous` without it.
//!
//! What a tenant may be called is the store's to say, where names become keys: it refuses those of requests. Files of tokens name tenants
//! without a store at hand, so its rule is here once more; a test of `afterglow token`, which knows both, holds them together.

use http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::Failure;

/// The header that names the tenant, as others of the field spell it.
pub const HEADER: &str = "x-scope-orgid";

/// The tenant of whoever does not name one.
pub const ANONYMOUS: &str = "anonymous";

/// The longest name of a tenant in bytes, as the store has it.
const NAME_BYTES_MAX: usize = 150;

/// Returns what is wrong with a text as the name of a tenant, by the store's rule.
pub(crate) fn problem(tenant: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!-_.*'()".contains(&byte);
    let is_name =
        (1..=NAME_BYTES_MAX).contains(&tenant.len()) && tenant.bytes().all(allowed) && !matches!(tenant, "." | "..");
    (!is_name).then(|| {
        format!(
            "tenant {tenant:?} is not one that a request can name: it has 1 to {NAME_BYTES_MAX} of a-z A-Z 0-9 ! - _ . * ' ( ), and is neither \
             . nor .."
        )
    })
}

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
