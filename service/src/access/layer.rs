//! The guard before a route.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};

use super::decide::{Granted, Refused, decide};
use super::{Guard, Inside, Need, Reason, Role, Token, audit};
use crate::tls::ClientCertificate;
use crate::{Kind, http as answers, tenant};

/// What a client that speaks for itself is asked for (RFC 6750, 3).
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"afterglow\"");

/// What makes a browser ask its user (RFC 7617, 2).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"afterglow\", charset=\"UTF-8\"");

pub(super) async fn layer(
    State((guard, need)): State<(Arc<Guard>, Need)>,
    mut request: Request,
    next: Next,
) -> Response {
    let extensions = request.extensions();
    let is_known = extensions.get::<ClientCertificate>().is_some() || extensions.get::<Inside>().is_some();
    if guard.needs_certificate && !is_known {
        return refuse(&guard, need, &Refused::without_certificate(), &request);
    }
    let Some(tokens) = &guard.tokens else {
        if need == Need::Role(Role::Admin) {
            audit::administered(None, &request);
        }
        return next.run(request).await;
    };
    // Tools see pages without a token: there is nothing in them but how to use one.
    if need == Need::Page && !answers::is_browser(request.headers()) {
        return next.run(request).await;
    }
    match decide(&tokens.table(), need, request.method(), request.headers()) {
        Ok(Granted { caller, tenant }) => {
            if need == Need::Role(Role::Admin) {
                audit::administered(Some(&caller), &request);
            }
            let headers = request.headers_mut();
            // Whoever is behind reads the tenant, and only the one that was decided on; and never sees the token.
            if let Some(tenant) = tenant {
                headers.insert(tenant::HEADER, tenant);
            }
            headers.remove(AUTHORIZATION);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refuse(&guard, need, &refused, &request),
    }
}

fn refuse(guard: &Guard, need: Need, refused: &Refused, request: &Request) -> Response {
    guard.refused.get_or_create(&Reason { reason: refused.reason }).inc();
    // A browser comes without a token first, to be asked for one.
    if !(need == Need::Page && refused.reason == "no_token") {
        guard.audit.refused(refused.reason, refused.token.as_deref().map(Token::name), request);
    }
    let mut response = refused.failure.respond_to(request.headers());
    if refused.failure.kind() == Kind::Unauthenticated && !answers::is_grpc(request.headers()) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A certificate is asked for where the connection begins; there is no scheme of HTTP to ask for one by.
        if refused.is_without_certificate() {
            return response;
        }
        let challenge = if need == Need::Page { BASIC } else { BEARER };
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
