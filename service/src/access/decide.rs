//! The decision, from a request's headers, the tokens and the need of its route: who asks and for which tenant, or why
//! not. It has no effects.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use super::Need;
use super::credentials::{Presented, presented};
use super::tokens::{Role, Table, Tenants, Token};
use crate::{Failure, Kind, tenant};

/// In which browsers say whose page made them ask (Fetch Metadata, "Sec-Fetch-Site").
pub(super) const FETCH_SITE: &str = "sec-fetch-site";

/// The reason for which a request without a certificate is refused.
const NO_CERTIFICATE: &str = "no_certificate";

/// Who asks, among the extensions of a request that was let in by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    token: Arc<Token>,
}

/// Somebody who is let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) caller: Caller,
    /// The tenant, as the header has it from here on; nothing where the route is about no tenant's data.
    pub(super) tenant: Option<HeaderValue>,
}

/// Why somebody is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The label of the counter.
    pub(super) reason: &'static str,
    /// Whose token it was, where it was one.
    pub(super) token: Option<Arc<Token>>,
    pub(super) failure: Failure,
}

// === impl Caller ===

impl Caller {
    /// Returns what the token is called.
    pub fn name(&self) -> &str {
        self.token.name()
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(reason: &'static str, kind: Kind, message: impl Into<String>) -> Self {
        Self { reason, token: None, failure: Failure::new(kind, message.into()) }
    }

    /// Refuses a request whose connection began without a certificate, where one is needed.
    pub(super) fn without_certificate() -> Self {
        let message = "a client certificate is needed: present one of an authority that this server trusts \
                       (--tls.client-ca-file)";
        Self::new(NO_CERTIFICATE, Kind::Unauthenticated, message)
    }

    pub(super) fn is_without_certificate(&self) -> bool {
        self.reason == NO_CERTIFICATE
    }

    fn of(self, token: &Arc<Token>) -> Self {
        Self { token: Some(Arc::clone(token)), ..self }
    }
}

/// Decides about a request with these headers.
pub(super) fn decide(table: &Table, need: Need, method: &Method, headers: &HeaderMap) -> Result<Granted, Refused> {
    let (digest, is_basic) = match presented(headers) {
        Presented::Token { digest, is_basic } => (digest, is_basic),
        Presented::None => {
            let message = "a token is needed: send it as `authorization: Bearer TOKEN`";
            return Err(Refused::new("no_token", Kind::Unauthenticated, message));
        }
        Presented::Malformed => {
            let message =
                "header authorization holds no token: send `Bearer TOKEN`, or the token as the password of Basic";
            return Err(Refused::new("malformed", Kind::Unauthenticated, message));
        }
    };
    let Some(token) = table.find(&digest) else {
        return Err(Refused::new("unknown_token", Kind::Unauthenticated, "the token is not one of this server's"));
    };
    if let Need::Role(role) = need
        && !token.has(role)
    {
        let message = format!("token {:?} does not have the role {}", token.name(), role.name());
        return Err(Refused::new("role", Kind::PermissionDenied, message).of(token));
    }
    // A browser sends what its user once typed with whatever any page asks for, a form of another site included. Reading
    // is safe from that, for the other site does not see the answer.
    if is_basic && !method.is_safe() && is_of_another_site(headers) {
        let message = "a page of another site may not do this with the token of a browser's user";
        return Err(Refused::new("other_site", Kind::PermissionDenied, message).of(token));
    }
    let tenant = match need {
        Need::Role(Role::Write | Role::Read) => Some(tenant_for(token, headers).map_err(|refused| refused.of(token))?),
        Need::Role(Role::Admin) | Need::Page => None,
    };
    Ok(Granted { caller: Caller { token: Arc::clone(token) }, tenant })
}

fn is_of_another_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter();
    sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Returns the tenant that the headers name, or the only one the token has.
fn tenant_for(token: &Token, headers: &HeaderMap) -> Result<HeaderValue, Refused> {
    let named = match headers.get(tenant::HEADER) {
        None => None,
        Some(_) => {
            let malformed = |failure| Refused { reason: "malformed", token: None, failure };
            Some(tenant::from_headers(headers).map_err(malformed)?)
        }
    };
    let of = |tenant: &str| HeaderValue::from_str(tenant).expect("visible ASCII, checked when it was read");
    match (token.tenants(), named) {
        (Tenants::Any, named) => Ok(of(named.unwrap_or(tenant::ANONYMOUS))),
        (Tenants::These(tenants), Some(named)) if tenants.iter().any(|tenant| tenant == named) => Ok(of(named)),
        (Tenants::These(_), Some(named)) => {
            let message = format!("token {:?} is not for tenant {named:?} ({})", token.name(), tenant::HEADER);
            Err(Refused::new("tenant", Kind::PermissionDenied, message))
        }
        (Tenants::These(tenants), None) => match tenants.as_slice() {
            [only] => Ok(of(only)),
            _ => {
                let (name, count) = (token.name(), tenants.len());
                let message = format!("token {name:?} is for {count} tenants: name one in header {}", tenant::HEADER);
                Err(Refused::new("tenant", Kind::Invalid, message))
            }
        },
    }
}
