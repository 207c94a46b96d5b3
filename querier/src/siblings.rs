//! Siblings: the other queriers over the same bucket, which do shares of what is too much for one.
//!
//! There is no protocol of membership. The siblings are a list, or what a DNS name says now (a headless service of Kubernetes); whether one is
//! up is found out by asking it. One that does not answer is left alone for a while. Nothing is lost by a sibling that is none any more, or
//! not yet: what it does not do is done elsewhere.

mod tls;

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afterglow_service::config::Secret;
use afterglow_service::tenant;
use afterglow_store::paths::TenantId;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};

pub(crate) use tls::Tls;

/// What a DNS name is told by.
const DNS_PREFIX: &str = "dns+";

/// The most siblings: more shares than that cost more than they save.
const SIBLINGS_MAX: usize = 64;

/// How long what DNS said, and what stands in files, is believed: about as long as Kubernetes takes to notice that a pod came or went.
const RESOLVED_FOR: Duration = Duration::from_secs(10);

/// How long DNS may take; meanwhile a question waits.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may take to come to be.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a sibling that did not answer is left alone.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(10);

/// After how long a silent connection is asked whether it is there: a machine that is gone says nothing.
const PROBE_AFTER: Duration = Duration::from_secs(2);

/// How long it has to say so. What a sibling computes does not keep it from that.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where siblings are found: `host:port,host:port`, or `dns+host:port` for all addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiblingNames {
    /// These.
    List(Vec<String>),
    /// All that a name stands for, but for oneself.
    Dns(String),
}

/// Says that a text does not name siblings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNames {
    /// It is no address.
    #[error("{text:?} is no host and port, such as querier-1:4200 or dns+queriers:4200")]
    Address {
        /// The text.
        text: String,
    },
    /// There are too many.
    #[error("{count} siblings are more than the {SIBLINGS_MAX} among which work is shared")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// The other queriers.
#[derive(Debug, Default)]
pub(crate) struct Siblings {
    names: Option<SiblingNames>,
    /// Nothing where they are asked in the clear.
    tls: Option<Tls>,
    /// What is presented to them.
    credentials: Option<Credentials>,
    known: Mutex<Known>,
}

/// The header `authorization`.
type Credentials = MetadataValue<Ascii>;

#[derive(Debug, Default)]
struct Known {
    resolved_at: Option<Instant>,
    /// What stood in the files of TLS.
    contents: Option<tls::Contents>,
    siblings: Vec<Sibling>,
    is_warned: AtomicBool,
}

/// Another querier; clones share what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    address: Arc<str>,
    channel: Channel,
    left_alone_until: Arc<Mutex<Option<Instant>>>,
}

// === impl SiblingNames ===

impl FromStr for SiblingNames {
    type Err = BadNames;

    fn from_str(text: &str) -> Result<Self, BadNames> {
        let check = |text: &str| {
            let bad = || BadNames::Address { text: text.to_owned() };
            let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
            let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
            let is_address = is_port && !host.is_empty() && endpoint("http", text).is_ok();
            if is_address { Ok(text.to_owned()) } else { Err(bad()) }
        };
        if let Some(name) = text.strip_prefix(DNS_PREFIX) {
            return Ok(Self::Dns(check(name)?));
        }
        let list: Vec<String> = text.split(',').map(|address| check(address.trim())).collect::<Result<_, _>>()?;
        if list.len() > SIBLINGS_MAX {
            return Err(BadNames::TooMany { count: list.len() });
        }
        Ok(Self::List(list))
    }
}

impl fmt::Display for SiblingNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(list) => f.write_str(&list.join(",")),
            Self::Dns(name) => write!(f, "{DNS_PREFIX}{name}"),
        }
    }
}

// === impl Siblings ===

impl Siblings {
    /// Knows siblings by these names, none where there are none, to which this token is presented. Asks nobody yet.
    pub(crate) fn new(names: Option<SiblingNames>, token: Option<&Secret>, tls: Option<Tls>) -> Self {
        // Files that cannot be read were said when settings were checked; until they can, nobody is asked.
        let contents = tls.as_ref().and_then(|tls| tls.load().ok());
        let siblings = Self { names, tls, credentials: token.and_then(credentials), known: Mutex::default() };
        let listed = siblings.listed(contents.as_ref());
        *siblings.known() = Known { siblings: listed, contents, ..Known::default() };
        siblings
    }

    /// Returns those that are listed, where there is a list.
    fn listed(&self, contents: Option<&tls::Contents>) -> Vec<Sibling> {
        match &self.names {
            Some(SiblingNames::List(list)) => {
                list.iter().filter_map(|address| self.sibling(address, None, contents)).collect()
            }
            Some(SiblingNames::Dns(_)) | None => Vec::new(),
        }
    }

    /// Makes a sibling at `host:port`; its certificate has to be for `name`, or else for the host.
    fn sibling(&self, address: &str, name: Option<&str>, contents: Option<&tls::Contents>) -> Option<Sibling> {
        match (&self.tls, contents) {
            (None, _) => Some(Sibling::new(address, endpoint("http", address).ok()?)),
            (Some(_), Some(contents)) => {
                let tls = contents.config(name).timeout(CONNECT_TIMEOUT);
                Some(Sibling::new(address, endpoint("https", address).ok()?.tls_config(tls).ok()?))
            }
            (Some(_), None) => None,
        }
    }

    /// Returns those that are not left alone just now.
    pub(crate) async fn up(&self) -> Vec<Sibling> {
        if (self.tls.is_some() || matches!(self.names, Some(SiblingNames::Dns(_)))) && self.is_old() {
            self.reload();
            if let Some(SiblingNames::Dns(name)) = &self.names {
                self.resolve(name).await;
            }
        }
        let now = Instant::now();
        self.known().siblings.iter().filter(|sibling| sibling.is_up(now)).cloned().collect()
    }

    /// Looks whether files of TLS have changed, and connects anew where they have. Files that cannot be used leave those read before them
    /// in force.
    fn reload(&self) {
        let Some(contents) = self.tls.as_ref().and_then(|tls| tls.load().ok()) else { return };
        if self.known().contents.as_ref() != Some(&contents) {
            let siblings = self.listed(Some(&contents));
            let mut known = self.known();
            (known.siblings, known.contents) = (siblings, Some(contents));
        }
    }

    /// Presents the token, if there is one, for a tenant.
    pub(crate) fn present(&self, tenant: &TenantId, metadata: &mut MetadataMap) {
        metadata.insert(tenant::HEADER, tenant.as_str().parse().expect("a tenant's name is visible ASCII"));
        if let Some(credentials) = &self.credentials {
            metadata.insert("authorization", credentials.clone());
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether DNS is to be asked again, to the first who asks this.
    fn is_old(&self) -> bool {
        let (now, mut known) = (Instant::now(), self.known());
        let is_old = known.resolved_at.is_none_or(|at| now - at >= RESOLVED_FOR);
        if is_old {
            known.resolved_at = Some(now);
        }
        is_old
    }

    /// Asks DNS. Where that does not answer, those that were known stay.
    async fn resolve(&self, name: &str) {
        let found = match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name)).await {
            Ok(Ok(found)) => found.filter(|address| !is_own(*address)).take(SIBLINGS_MAX).collect::<Vec<_>>(),
            Ok(Err(error)) => return self.warn(name, &error.to_string()),
            Err(_elapsed) => return self.warn(name, "no answer in time"),
        };
        let mut known = self.known();
        known.is_warned.store(false, Ordering::Relaxed);
        let contents = known.contents.clone();
        let host = name.rsplit_once(':').map(|(host, _)| host);
        let mut siblings: Vec<Sibling> = Vec::with_capacity(found.len());
        for address in found.iter().map(ToString::to_string) {
            // Whom we know we have a connection to.
            let sibling = known.siblings.iter().find(|known| *known.address == *address).cloned();
            siblings.extend(sibling.or_else(|| self.sibling(&address, host, contents.as_ref())));
        }
        known.siblings = siblings;
    }

    /// Says once that DNS fails.
    fn warn(&self, name: &str, error: &str) {
        if !self.known().is_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(name, error, "siblings cannot be looked up; work is shared among those that are known");
        }
    }
}

/// Returns the header that presents a token; none where it is no token.
fn credentials(token: &Secret) -> Option<Credentials> {
    let mut header: Credentials = format!("Bearer {}", token.reveal()).parse().ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Returns whether a token can be presented at all.
pub(crate) fn is_token(token: &Secret) -> bool {
    !token.reveal().is_empty() && credentials(token).is_some()
}

/// Returns whether an address is this machine's own: then it is from there that it would be reached. No packet is sent.
fn is_own(address: SocketAddr) -> bool {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let local = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == address.ip())
}

fn endpoint(scheme: &str, address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PROBE_AFTER)
        .keep_alive_timeout(PROBE_TIMEOUT))
}

// === impl Sibling ===

impl Sibling {
    /// Knows a sibling. Connects when it is asked something.
    fn new(address: &str, endpoint: Endpoint) -> Self {
        Self { address: address.into(), channel: endpoint.connect_lazy(), left_alone_until: Arc::default() }
    }

    /// Returns where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns what connects to it.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Leaves it alone for a while: it did not answer.
    pub(crate) fn leave_alone(&self) {
        *self.left_alone_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LEFT_ALONE_FOR);
    }

    fn is_up(&self, now: Instant) -> bool {
        self.left_alone_until.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_addresses_or_one_name() {
        let list = SiblingNames::List(vec!["a:1".to_owned(), "[::1]:2".to_owned()]);
        assert_eq!("a:1, [::1]:2".parse(), Ok(list.clone()));
        assert_eq!(list.to_string().parse(), Ok(list));
        assert_eq!("dns+queriers:4200".parse(), Ok(SiblingNames::Dns("queriers:4200".to_owned())));
        for text in ["", "a", ":1", "a:0", "a:x", "a:1,", "dns+a", "a b:1"] {
            assert!(text.parse::<SiblingNames>().is_err(), "{text}");
        }
        let many = vec!["a:1"; SIBLINGS_MAX + 1].join(",");
        assert_eq!(many.parse::<SiblingNames>(), Err(BadNames::TooMany { count: SIBLINGS_MAX + 1 }));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_left_alone_for_a_while() {
        let siblings = Siblings::new(Some("a:1,b:2".parse().expect("names")), None, None);
        let up = siblings.up().await;
        assert_eq!(up.iter().map(Sibling::address).collect::<Vec<_>>(), ["a:1", "b:2"]);
        up[0].leave_alone();
        assert_eq!(siblings.up().await.iter().map(Sibling::address).collect::<Vec<_>>(), ["b:2"]);
        tokio::time::advance(LEFT_ALONE_FOR).await;
        assert_eq!(siblings.up().await.len(), 2);
        assert_eq!(Siblings::new(None, None, None).up().await.len(), 0);
    }

    #[test]
    fn a_token_is_presented_and_not_shown() {
        let siblings = Siblings::new(None, Some(&Secret::from("agw_x".to_owned())), None);
        let mut metadata = MetadataMap::new();
        siblings.present(&TenantId::anonymous(), &mut metadata);
        assert_eq!(metadata.get("authorization").expect("presented"), "Bearer agw_x");
        assert!(!format!("{siblings:?} {metadata:?}").contains("agw_x"));
        assert!(!is_token(&Secret::from("a\nb".to_owned())) && !is_token(&Secret::from(String::new())));
    }

    #[test]
    fn an_own_address_is_known() {
        assert!(is_own(([127, 0, 0, 1], 4200).into()));
        assert!(!is_own(([192, 0, 2, 1], 4200).into()), "an address that nobody has");
    }
}
