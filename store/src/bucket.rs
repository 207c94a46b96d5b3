//! Prepares a store for its first use: `afterglow bucket init`.
//!
//! For S3 it makes the bucket if there is none and sets a rule that removes what aborted uploads leave behind; for every kind of
//! store it then runs the probe. It may be repeated at will: what is there stays, other lifecycle rules included. This is the only
//! module that speaks to S3 by the AWS SDK: `object_store` knows objects, not buckets.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint, CreateBucketConfiguration,
    ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
};

use crate::error::Error;
use crate::location::StorageUrl;
use crate::open::{self, Environment, StoreOptions, is_aws, load_chain};
use crate::probe::Probe;

/// The region whose buckets must not name it: S3 refuses us-east-1 as a location.
const REGION_WITHOUT_LOCATION: &str = "us-east-1";
/// The id of our lifecycle rule.
const RULE_ID: &str = "afterglow-abort-incomplete-uploads";
/// How long an upload may take: none of ours takes an hour.
const UPLOAD_DAYS_MAX: i32 = 1;

/// What was done.
#[derive(Debug)]
pub struct Report {
    /// Whether the bucket was made; false where it was there, or where the store has no buckets.
    pub created: bool,
    /// What became of the lifecycle rule.
    pub lifecycle: Lifecycle,
    /// What the probe found.
    pub probe: Probe,
}

/// What became of the lifecycle rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It was set now.
    Set,
    /// It was there already.
    Kept,
    /// This kind of store needs none, or has rules of its own that are not set from here.
    NotNeeded,
    /// The store does not take it, as MinIO, which removes old uploads by itself; elsewhere it does no harm but to the bill.
    /// Holds what the store says.
    Refused(String),
}

/// Prepares the store at `url`.
///
/// # Errors
/// [`Error::Bucket`] where the bucket can be neither found nor made, and whatever [`open::open`] and the probe say.
pub async fn init(url: &StorageUrl, options: StoreOptions) -> Result<Report, Error> {
    if let Some(error) = open::error_of_environment(url, &options.environment) {
        return Err(error);
    }
    let (created, lifecycle) = match url {
        StorageUrl::S3 { bucket, prefix } => {
            let failed = |step, source| Error::Bucket { url: url.to_string(), step, source };
            let (client, region) = client(&options.environment).await;
            let created =
                create_if_missing(&client, bucket, &region).await.map_err(|(step, source)| failed(step, source))?;
            (created, set_lifecycle(&client, bucket, prefix.as_ref()).await)
        }
        _ => (false, Lifecycle::NotNeeded),
    };
    let probe = open::open(url, options).await?.probe().await?;
    Ok(Report { created, lifecycle, probe })
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Makes the client and tells the region it speaks to.
async fn client(environment: &Environment) -> (Client, String) {
    let mut builder = Builder::new();
    if let Some((key, secret, token)) = environment.aws_keys() {
        let credentials = Credentials::new(key, secret, token.map(str::to_owned), None, "environment");
        builder = builder.behavior_version(BehaviorVersion::latest()).credentials_provider(credentials);
    } else {
        builder = Builder::from(&load_chain().await);
    }
    if let Some(endpoint) = environment.aws_endpoint() {
        builder = builder.endpoint_url(endpoint).force_path_style(!is_aws(endpoint));
    }
    if let Some(region) = environment.aws_region() {
        builder = builder.region(Region::new(region.to_owned()));
    }
    let config = builder.build();
    let config = match config.region() {
        Some(_) => config,
        None => config.to_builder().region(Region::new(REGION_WITHOUT_LOCATION)).build(),
    };
    let region = config.region().map_or_else(String::new, ToString::to_string);
    (Client::from_conf(config), region)
}

/// Returns whether the bucket had to be made.
async fn create_if_missing(client: &Client, bucket: &str, region: &str) -> Result<bool, (&'static str, Source)> {
    match client.head_bucket().bucket(bucket).send().await {
        Ok(_) => return Ok(false),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => {}
        Err(error) => return Err(("look for the bucket", explain(&error).into())),
    }
    let mut request = client.create_bucket().bucket(bucket);
    if region != REGION_WITHOUT_LOCATION {
        let location =
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build();
        request = request.create_bucket_configuration(location);
    }
    match request.send().await {
        Ok(_) => Ok(true),
        // Someone who did the same was a moment faster.
        Err(error) if matches!(error.as_service_error(), Some(CreateBucketError::BucketAlreadyOwnedByYou(_))) => {
            Ok(false)
        }
        Err(error) => Err(("create the bucket", explain(&error).into())),
    }
}

/// Adds our rule to those that are there. Nothing here is worth failing for.
async fn set_lifecycle(client: &Client, bucket: &str, prefix: &str) -> Lifecycle {
    let mut rules = match client.get_bucket_lifecycle_configuration().bucket(bucket).send().await {
        Ok(found) => found.rules.unwrap_or_default(),
        Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Vec::new(),
        // Rules that cannot be read cannot be kept either, so none are written.
        Err(error) => return Lifecycle::Refused(explain(&error)),
    };
    if rules.iter().any(|rule| rule.id() == Some(RULE_ID)) {
        return Lifecycle::Kept;
    }
    let rule = LifecycleRule::builder()
        .id(RULE_ID)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(UPLOAD_DAYS_MAX).build(),
        )
        .build()
        .expect("a rule with a status is complete");
    rules.push(rule);
    let rules =
        BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().expect("a list of rules is complete");
    match client.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules).send().await {
        Ok(_) => Lifecycle::Set,
        Err(error) => Lifecycle::Refused(explain(&error)),
    }
}

/// Tells an error of the SDK in a line: what the service says if it says something, else its status, else the causes.
fn explain<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let (Some(code), Some(message)) = (error.code(), error.message()) {
        return format!("{code}: {message}");
    }
    // The answer to a HEAD has no body that could say more.
    if let Some(response) = error.raw_response() {
        return format!("the store answered with status {}", response.status().as_u16());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
