//! A stack's buckets. The one that holds the functions' code and the template is created before the
//! stack and removed after it. The one for the files of runs belongs to the stack, which can be
//! removed once it is empty.

use aws_sdk_s3::{
    Client,
    error::ProvideErrorMetadata,
    operation::{
        create_bucket::CreateBucketError, head_bucket::HeadBucketError,
        head_object::HeadObjectError,
    },
    primitives::ByteStream,
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, Delete,
        ObjectIdentifier, PublicAccessBlockConfiguration, ServerSideEncryption,
        ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
        Tag, Tagging, VersioningConfiguration,
    },
};

use crate::{Account, CallError, StackName, names::TAG, template::Template};

/// The one region that must not be named when a bucket is created (S3 API reference,
/// `CreateBucket`).
const FIRST_REGION: &str = "us-east-1";
/// The most objects in one deletion (S3 API reference, `DeleteObjects`).
const DELETE_MAX: i32 = 1000;

/// A stack's bucket. Bucket names are global, so each call names the account that must own the
/// bucket. A bucket of the same name in another account is neither written nor read.
#[derive(Clone, Debug)]
pub(crate) struct StackBucket {
    client: Client,
    name: String,
    owner: String,
    region: String,
    stack: StackName,
    endpoint_url: Option<String>,
}

impl StackBucket {
    /// The bucket with the functions' code.
    pub(crate) fn code(account: &Account, stack: &StackName) -> Self {
        Self::named(account, stack, stack.bucket(&account.id, &account.region))
    }

    /// The bucket with the files that runs leave. The stack makes and removes it.
    pub(crate) fn files(account: &Account, stack: &StackName) -> Self {
        let name = stack.files_bucket(&account.id, &account.region);
        Self::named(account, stack, name)
    }

    fn named(account: &Account, stack: &StackName, name: String) -> Self {
        // An emulator has one host name, not one for each bucket.
        let config = aws_sdk_s3::config::Builder::from(&account.config);
        let config = config
            .force_path_style(account.endpoint_url.is_some())
            .build();
        Self {
            client: Client::from_conf(config),
            name,
            owner: account.id.clone(),
            region: account.region.clone(),
            stack: stack.clone(),
            endpoint_url: account.endpoint_url.clone(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the bucket {}", self.name)
    }

    /// Whether the bucket exists and belongs to the account.
    pub(crate) async fn exists(&self) -> Result<bool, CallError> {
        let head = self
            .client
            .head_bucket()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner)
            .send()
            .await;
        match head {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadBucketError::is_not_found) =>
            {
                Ok(false)
            }
            // S3 answers only "403" here: the bucket belongs to another account, or these
            // credentials may not look at it.
            Err(error) => Err(CallError::of(self.doing("look at"))(error)),
        }
    }

    /// Creates the bucket if it is missing. In any case makes it private, versioned, encrypted and
    /// closed to plain HTTP. Returns whether it was created. Idempotent.
    pub(crate) async fn ensure(&self) -> Result<bool, CallError> {
        let missing = !self.exists().await?;
        if missing {
            self.create().await?;
        }
        self.make_private().await?;
        self.make_safe().await?;
        Ok(missing)
    }

    async fn create(&self) -> Result<(), CallError> {
        let place = (self.region != FIRST_REGION).then(|| {
            let place = BucketLocationConstraint::from(self.region.as_str());
            CreateBucketConfiguration::builder()
                .location_constraint(place)
                .build()
        });
        let made = self
            .client
            .create_bucket()
            .bucket(&self.name)
            .set_create_bucket_configuration(place)
            .send()
            .await;
        match made {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateBucketError::is_bucket_already_owned_by_you) =>
            {
                Ok(())
            }
            other => other.map(drop).map_err(CallError::of(self.doing("make"))),
        }
    }

    async fn make_private(&self) -> Result<(), CallError> {
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let call = self
            .client
            .put_public_access_block()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner);
        call.public_access_block_configuration(block)
            .send()
            .await
            .map_err(CallError::of(self.doing("close the public's access to")))?;
        let call = self
            .client
            .put_bucket_policy()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner);
        call.policy(self.tls_only())
            .send()
            .await
            .map_err(CallError::of(self.doing("put a policy on")))?;
        Ok(())
    }

    fn tls_only(&self) -> String {
        let arn = format!("arn:{}:s3:::{}", partition(&self.region), self.name);
        let statement = serde_json::json!({
            "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
            "Resource": [arn, format!("{arn}/*")], "Condition": {"Bool": {"aws:SecureTransport": "false"}}
        });
        serde_json::json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
    }

    async fn make_safe(&self) -> Result<(), CallError> {
        let versions = VersioningConfiguration::builder()
            .status(BucketVersioningStatus::Enabled)
            .build();
        let call = self
            .client
            .put_bucket_versioning()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner);
        call.versioning_configuration(versions)
            .send()
            .await
            .map_err(CallError::of(self.doing("keep the versions of")))?;
        let doing = self.doing("encrypt");
        let by_default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(ServerSideEncryption::Aes256)
            .build();
        let by_default = by_default.map_err(|error| CallError::new(&doing, error.to_string()))?;
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(by_default)
            .build();
        let rules = ServerSideEncryptionConfiguration::builder()
            .rules(rule)
            .build();
        let rules = rules.map_err(|error| CallError::new(&doing, error.to_string()))?;
        let call = self
            .client
            .put_bucket_encryption()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner);
        call.server_side_encryption_configuration(rules)
            .send()
            .await
            .map_err(CallError::of(doing))?;
        self.tag().await
    }

    async fn tag(&self) -> Result<(), CallError> {
        let doing = self.doing("tag");
        let tag = Tag::builder().key(TAG).value(self.stack.as_str()).build();
        let tag = tag.map_err(|error| CallError::new(&doing, error.to_string()))?;
        let tags = Tagging::builder().tag_set(tag).build();
        let tags = tags.map_err(|error| CallError::new(&doing, error.to_string()))?;
        let call = self
            .client
            .put_bucket_tagging()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner);
        call.tagging(tags)
            .send()
            .await
            .map_err(CallError::of(doing))?;
        Ok(())
    }

    /// Stores an object unless there is one of the same size under this key. Keys are derived from
    /// the content. Returns whether it was stored.
    pub(crate) async fn put(&self, key: &str, content: Vec<u8>) -> Result<bool, CallError> {
        let head = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key)
            .expected_bucket_owner(&self.owner)
            .send();
        match head.await {
            Ok(found)
                if found.content_length().and_then(|n| usize::try_from(n).ok())
                    == Some(content.len()) =>
            {
                return Ok(false);
            }
            Ok(_) => {}
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadObjectError::is_not_found) => {}
            Err(error) => {
                return Err(CallError::of(format!(
                    "look for {key} in the bucket {}",
                    self.name
                ))(error));
            }
        }
        let call = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .expected_bucket_owner(&self.owner);
        let stored = call.body(ByteStream::from(content)).send().await;
        stored.map_err(CallError::of(format!(
            "store {key} in the bucket {}",
            self.name
        )))?;
        Ok(true)
    }

    /// Stores a template under a key derived from its content, and returns its URL. Idempotent.
    pub(crate) async fn put_template(&self, template: &Template) -> Result<String, CallError> {
        self.put(&template.key(), template.text().into_bytes())
            .await?;
        Ok(self.url(&template.key()))
    }

    /// The URL of an object in the form that CloudFormation takes for a template.
    pub(crate) fn url(&self, key: &str) -> String {
        match &self.endpoint_url {
            Some(emulator) => format!("{}/{}/{key}", emulator.trim_end_matches('/'), self.name),
            None => format!(
                "https://{}.s3.{}.{}/{key}",
                self.name,
                self.region,
                domain(&self.region)
            ),
        }
    }

    /// Removes the bucket and all versions of all its objects. Returns whether there was one.
    /// Idempotent.
    pub(crate) async fn remove(&self) -> Result<bool, CallError> {
        if !self.empty().await? {
            return Ok(false);
        }
        let gone = self
            .client
            .delete_bucket()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner)
            .send()
            .await;
        match gone {
            Err(error) if error.code() == Some("NoSuchBucket") => Ok(true),
            other => other
                .map(|_| true)
                .map_err(CallError::of(self.doing("remove"))),
        }
    }

    /// Removes all versions of all objects. Returns whether there is such a bucket. Idempotent.
    pub(crate) async fn empty(&self) -> Result<bool, CallError> {
        if !self.exists().await? {
            return Ok(false);
        }
        while self.remove_page().await? {}
        Ok(true)
    }

    /// Removes up to a thousand versions and delete markers. Returns whether there were any.
    async fn remove_page(&self) -> Result<bool, CallError> {
        let call = self
            .client
            .list_object_versions()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner);
        let page = call
            .max_keys(DELETE_MAX)
            .send()
            .await
            .map_err(CallError::of(self.doing("list")))?;
        let versions = page
            .versions()
            .iter()
            .map(|version| (version.key(), version.version_id()));
        let marks = page
            .delete_markers()
            .iter()
            .map(|mark| (mark.key(), mark.version_id()));
        let objects = versions.chain(marks).filter_map(|(key, version)| {
            ObjectIdentifier::builder()
                .key(key?)
                .set_version_id(version.map(str::to_owned))
                .build()
                .ok()
        });
        let objects: Vec<_> = objects.collect();
        if objects.is_empty() {
            return Ok(false);
        }
        let doing = self.doing("empty");
        let all = Delete::builder()
            .set_objects(Some(objects))
            .quiet(true)
            .build();
        let all = all.map_err(|error| CallError::new(&doing, error.to_string()))?;
        let call = self
            .client
            .delete_objects()
            .bucket(&self.name)
            .expected_bucket_owner(&self.owner)
            .delete(all);
        let answer = call.send().await.map_err(CallError::of(&doing))?;
        match answer.errors().first() {
            None => Ok(true),
            Some(error) => Err(CallError {
                doing,
                code: error.code().map(str::to_owned),
                message: error.message().unwrap_or("an object stays").to_owned(),
            }),
        }
    }
}

/// The partition in the ARNs of a region (AWS General Reference, "Partitions").
pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}
