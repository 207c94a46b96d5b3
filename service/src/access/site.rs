//! Keeps pages of other sites out of a server that asks for no token: whoever has such a page open would do the page's will by it.
//!
//! Two rules, for what browsers send by themselves:
//!
//! - What changes something does not come from a page of another site, which `Sec-Fetch-Site` says, or `Origin` where a browser does not
//!   send that. What only reads may be asked for by anybody's page: it does not see the answer.
//! - On loopback the server goes by names without a dot, by addresses, and by those it is given. A page whose own name is made to
//!   resolve to 127.0.0.1 (DNS rebinding) would see the answers, for to the browser the server is the page's own site; but it comes by
//!   that name. Elsewhere a server does not know by which names it is reached, and whoever let it listen there without tokens has said
//!   that the network decides (`--insecure`).
//!
//! With tokens, or certificates of clients, neither is needed: see [`decide`](super::decide).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::audit::Audit;
use super::decide::{FETCH_SITE, Refused};
use super::{Inside, Reason};
use crate::Kind;

/// The setting, as refusals and problems name it.
pub(super) const SETTING: &str = "allowed-hosts";

/// Lets in whatever name it comes by.
const ANY: &str = "*";

/// How much of a name is quoted.
const QUOTED_MAX: usize = 100;

/// The rules of a server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sites(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    /// The names beside those of loopback; nothing where any will do.
    names: Option<Vec<String>>,
    refused: Family<Reason, Counter>,
    audit: Arc<Audit>,
}

// === impl Sites ===

impl Sites {
    /// Makes the rules of a server that listens on `address` and asks for neither a token nor a certificate.
    pub(super) fn of(
        address: SocketAddr,
        allowed: &[String],
        refused: Family<Reason, Counter>,
        audit: Arc<Audit>,
    ) -> Self {
        let any = !address.ip().to_canonical().is_loopback() || allowed.iter().any(|name| name == ANY);
        let names = (!any).then(|| allowed.iter().map(|name| plain(name)).collect());
        Self(Some(Arc::new(Rules { names, refused, audit })))
    }

    /// Has no rules.
    pub(super) fn any() -> Self {
        Self(None)
    }
}

/// Returns what is wrong with a name that a server is to go by.
pub(super) fn problem(name: &str) -> Option<String> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    (name != ANY && !is_name(name)).then(|| {
        format!("{SETTING} {name:?} is no name of a host, such as profiles.example.com: without scheme and port")
    })
}

pub(crate) async fn layer(State(sites): State<Sites>, request: Request, next: Next) -> Response {
    let Some(rules) = &sites.0 else { return next.run(request).await };
    // The process itself comes in by no network, and no browser does.
    if request.extensions().get::<Inside>().is_some() {
        return next.run(request).await;
    }
    match rules.judge(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            rules.refused.get_or_create(&Reason { reason: refused.reason }).inc();
            rules.audit.refused(refused.reason, None, &request);
            refused.failure.respond_to(request.headers())
        }
    }
}

// === impl Rules ===

impl Rules {
    fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        if let Some(names) = &self.names {
            let sent = uri.authority().map(|authority| authority.as_str().as_bytes());
            let hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
            for host in sent.into_iter().chain(hosts) {
                if !is_ours(host, names) {
                    return Err(other_host(host));
                }
            }
        }
        if !method.is_safe() && is_of_another_site(uri, headers) {
            let message = "a page of another site may not do this: the server asks for no token, so it cannot tell whether its user means it";
            return Err(Refused::new("other_site", Kind::PermissionDenied, message));
        }
        Ok(())
    }
}

fn other_host(host: &[u8]) -> Refused {
    let host: String = String::from_utf8_lossy(host).chars().take(QUOTED_MAX).collect();
    let message = format!(
        "host {host:?} is none that this server goes by: it listens on loopback and asks for no token, so use localhost, or start it with \
         --{SETTING}"
    );
    Refused::new("host", Kind::PermissionDenied, message)
}

/// Returns whether a host, with or without a port, is an address, which no name service can make another's, a name without a dot, which nobody
/// can own in public DNS, or a name that is ours.
fn is_ours(host: &[u8], names: &[String]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = plain(authority.host());
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    let is_local = !name.is_empty() && !name.contains('.') || name.ends_with(".localhost");
    address.parse::<IpAddr>().is_ok() || is_local || names.contains(&name)
}

/// Returns a name as it is compared: without regard to case, and to the point that ends names of DNS.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Returns whether a browser says that the page of another site made it ask.
fn is_of_another_site(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        // Another port of the same machine is another site here: there is no knowing who serves it.
        return sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    let own = uri.authority().map(|authority| authority.as_str().as_bytes());
    let own = own.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
    headers.get_all(ORIGIN).iter().any(|origin| !own.is_some_and(|own| is_origin_of(origin.as_bytes(), own)))
}

/// Returns whether an origin, `scheme://host[:port]`, is that of a host; `null` is that of none.
fn is_origin_of(origin: &[u8], host: &[u8]) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        let rest = origin.get(..scheme.len()).filter(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()));
        rest.is_some_and(|begin| origin[begin.len()..].eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(address: &str, allowed: &[&str]) -> Arc<Rules> {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        let address = SocketAddr::new(address.parse().expect("an address"), 4100);
        Sites::of(address, &allowed, Family::default(), Arc::default()).0.expect("there are some")
    }

    fn judged(rules: &Rules, method: Method, uri: &str, headers: &[(&'static str, &str)]) -> &'static str {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
        });
        let uri: Uri = uri.parse().expect("a URI");
        rules.judge(&method, &uri, &headers.collect()).err().map_or("let in", |refused| refused.reason)
    }

    /// Goal: by no name that somebody else may have made to mean this machine can a page read what the server has.
    #[test]
    fn a_server_on_loopback_goes_by_its_own_names() {
        let local = rules("127.0.0.1", &["Docker.internal", "profiles.example.com"]);
        let get = |rules: &Rules, host: &str| judged(rules, Method::GET, "/api/v1/services", &[("host", host)]);
        for host in [
            "localhost",
            "LOCALHOST:4100",
            "localhost.:4100",
            "afterglow.localhost:80",
            "workstation:4100",
            "127.0.0.1:4100",
            "[::1]:4100",
            "[::1]",
            "10.1.2.3:4100",
            "docker.internal:4100",
            "profiles.example.com",
        ] {
            assert_eq!(get(&local, host), "let in", "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:4100", "evil.localhost.com", "example.com", "", "a b", "[::1"]
        {
            assert_eq!(get(&local, host), "host", "{host}");
            assert_eq!(get(&rules("0.0.0.0", &[]), host), "let in", "{host}: the network decides");
            assert_eq!(get(&rules("::1", &["*"]), host), "let in", "{host}: any will do");
        }
        assert_eq!(get(&rules("::ffff:127.0.0.1", &[]), "evil.example"), "host");
        assert_eq!(judged(&local, Method::GET, "/", &[]), "let in", "no browser says nothing");
        // By HTTP/2 it is in the URI; whoever says it twice is believed in neither.
        assert_eq!(judged(&local, Method::GET, "http://evil.example:4100/", &[]), "host");
        assert_eq!(judged(&local, Method::GET, "http://localhost:4100/", &[("host", "evil.example")]), "host");
        assert_eq!(judged(&local, Method::GET, "http://localhost:4100/", &[]), "let in");
    }

    /// Goal: no page but our own can change anything, whatever its browser says and however the server is reached.
    #[test]
    fn a_page_of_another_site_changes_nothing() {
        for rules in [rules("127.0.0.1", &[]), rules("0.0.0.0", &[])] {
            let by = |method: Method, headers: &[(&'static str, &str)]| {
                let headers = [&[("host", "127.0.0.1:4100")], headers].concat();
                judged(&rules, method, "/api/v1/profiles", &headers)
            };
            let site = "sec-fetch-site";
            for headers in [
                &[][..],
                &[(site, "same-origin"), ("origin", "http://localhost:5173")],
                &[(site, "none")],
                &[("origin", "http://127.0.0.1:4100")],
                &[("origin", "HTTPS://127.0.0.1:4100")],
            ] {
                assert_eq!(by(Method::POST, headers), "let in", "{headers:?}");
            }
            for headers in [
                &[(site, "cross-site")][..],
                &[(site, "same-site")],
                &[(site, "same-origin"), (site, "cross-site")],
                &[("origin", "http://evil.example")],
                &[("origin", "http://127.0.0.1:4101")],
                &[("origin", "http://127.0.0.1:4100.evil.example")],
                &[("origin", "null")],
                &[("origin", "")],
            ] {
                assert_eq!(by(Method::POST, headers), "other_site", "{headers:?}");
                assert_eq!(by(Method::GET, headers), "let in", "{headers:?}: the page does not see the answer");
            }
        }
        let local = rules("127.0.0.1", &[]);
        let origin = [("origin", "http://localhost:4100")];
        assert_eq!(judged(&local, Method::POST, "http://localhost:4100/", &origin), "let in");
    }

    #[test]
    fn names_are_names() {
        for name in ["*", "localhost", "profiles.example.com", "my_host-1"] {
            assert_eq!(problem(name), None, "{name}");
        }
        for name in ["", "http://a", "a:4100", "a b", "*.example.com"] {
            let problem = problem(name).expect("no name");
            assert!(problem.contains(SETTING) && problem.contains(&format!("{name:?}")), "{problem}");
        }
    }
}
