//! What the environment says about S3, and the client that follows from it.
//!
//! The variables are AWS's own, so what works for its command line works here. Static keys in the environment are taken as they
//! are; otherwise the whole chain of the AWS SDK is asked (profiles, SSO, web identity, container, instance) and its answer kept
//! until shortly before it expires. An endpoint that is not AWS's may speak plain HTTP and is addressed by path, as MinIO is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client_options;
use super::environment::{Environment, endpoint_problem};

/// The region that stores which have none expect in a signature.
const REGION_DEFAULT: &str = "us-east-1";
/// How long before they expire credentials are asked for anew; as the AWS SDKs do.
const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);
/// How long credentials are kept that do not say when they expire: a profile's keys may be rotated in their file.
const REFRESH_WITHOUT_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// How soon credentials are asked for again that were given out when about to expire.
const REFRESH_SOONEST: Duration = Duration::from_secs(10);

/// Says whether an endpoint is one of AWS's own, which want TLS and know the bucket by the host's name.
pub(crate) fn is_aws(endpoint: &str) -> bool {
    let host =
        url::Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_ascii_lowercase)).unwrap_or_default();
    ["amazonaws.com", "amazonaws.com.cn", "api.aws"]
        .iter()
        .any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Makes the client of `bucket` as the environment says, which is known to be good; asks the SDK's chain where the environment leaves a
/// question.
///
/// # Errors
/// Says what is wrong with the endpoint that a profile of the chain names.
pub(super) async fn builder(bucket: &str, environment: &Environment) -> Result<AmazonS3Builder, String> {
    let mut builder = AmazonS3Builder::new().with_client_options(client_options());
    for (name, value) in environment.with_prefix("AWS_") {
        // What is not a setting of this client, such as AWS_PROFILE, is read by the chain.
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let mut endpoint = environment.aws_endpoint().map(str::to_owned);
    let mut region = environment.aws_region().map(str::to_owned);
    if environment.aws_keys().is_none() && !environment.is_aws_unsigned() {
        let chain = load_chain().await;
        if endpoint.is_none()
            && let Some(of_chain) = chain.endpoint_url()
        {
            if let Some(problem) = endpoint_problem("endpoint_url of the AWS profile", of_chain) {
                return Err(problem);
            }
            endpoint = Some(of_chain.to_owned());
        }
        region = region.or_else(|| chain.region().map(ToString::to_string));
        if let Some(provider) = chain.credentials_provider() {
            builder = builder.with_credentials(Arc::new(Chain::new(provider)));
        }
    }
    if let Some(endpoint) = endpoint {
        if !is_aws(&endpoint) {
            builder = builder.with_allow_http(true);
        }
        builder = builder.with_endpoint(endpoint);
    }
    Ok(builder.with_region(region.as_deref().unwrap_or(REGION_DEFAULT)).with_bucket_name(bucket))
}

/// Loads what files and metadata services say.
pub(crate) async fn load_chain() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).load().await
}

/// The credentials of the AWS SDK's chain, kept while they are good.
#[derive(Debug)]
struct Chain {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<(Arc<AwsCredential>, Instant)>>,
}

impl Chain {
    fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, kept: Mutex::new(None) }
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // The lock is held while asking: requests that find the credentials expired ask once for all.
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        if let Some((credential, until)) = &*kept
            && now < *until
        {
            return Ok(Arc::clone(credential));
        }
        let fresh = self.provider.provide_credentials().await.map_err(|source| {
            object_store::Error::Unauthenticated { path: "AWS credentials".to_owned(), source: source.into() }
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        });
        let lifetime = fresh.expiry().map_or(REFRESH_WITHOUT_EXPIRY, time_left);
        *kept = Some((Arc::clone(&credential), now + lifetime));
        Ok(credential)
    }
}

/// How long credentials are kept that expire at a time of the provider's clock. The machine's clock is asked, whatever the store's
/// is: signatures are made by it too.
#[expect(clippy::disallowed_methods, reason = "an expiry is a time of the world outside")]
fn time_left(expiry: std::time::SystemTime) -> Duration {
    let left = expiry.duration_since(std::time::SystemTime::now()).unwrap_or_default();
    left.saturating_sub(REFRESH_BEFORE_EXPIRY).max(REFRESH_SOONEST)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::clock::{Clock, SystemClock};

    /// Gives credentials whose key is the number of the question, after a while, and fails when told.
    #[derive(Debug)]
    struct Counting {
        asked: AtomicUsize,
        fails_from: usize,
        lifetime: Option<Duration>,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                let number = self.asked.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(10)).await;
                if number >= self.fails_from {
                    return Err(CredentialsError::not_loaded("told to fail"));
                }
                let expiry: Option<SystemTime> = self.lifetime.map(|lifetime| SystemClock.now() + lifetime);
                Ok(Credentials::new(number.to_string(), "secret", None, expiry, "test"))
            })
        }
    }

    fn chain(fails_from: usize, lifetime: Option<Duration>) -> Chain {
        Chain::new(SharedCredentialsProvider::new(Counting { asked: AtomicUsize::new(0), fails_from, lifetime }))
    }

    async fn key(chain: &Chain) -> String {
        chain.get_credential().await.expect("the provider works").key_id.clone()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn credentials_are_kept_until_shortly_before_they_expire() {
        let chain = chain(9, Some(60 * MINUTE));
        assert_eq!([key(&chain).await, key(&chain).await], ["0", "0"]);
        advance(54 * MINUTE).await;
        assert_eq!(key(&chain).await, "0");
        advance(MINUTE).await;
        assert_eq!(key(&chain).await, "1");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_without_an_expiry_are_asked_for_now_and_then() {
        let chain = chain(9, None);
        assert_eq!(key(&chain).await, "0");
        advance(14 * MINUTE).await;
        assert_eq!(key(&chain).await, "0");
        advance(MINUTE).await;
        assert_eq!(key(&chain).await, "1");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_come_at_once_ask_once() {
        let chain = chain(9, None);
        let keys = futures::future::join_all((0..50).map(|_| key(&chain))).await;
        assert!(keys.iter().all(|key| key == "0"), "{keys:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_credentials_a_request_is_denied() {
        let error = chain(0, None).get_credential().await.expect_err("the provider fails");
        assert_eq!(crate::fault::Fault::of(&error), crate::fault::Fault::Denied, "{error}");
    }
}
