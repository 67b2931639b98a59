//! What a store's refusal means to the user: the reason in short, and what to do.

use std::error::Error as _;

use object_store::Error;

use super::location::{Location, Scheme, without_queries};
use crate::error::DataError;

/// Nothing was asked of a server yet.
pub(super) const OPENING: &str = "opening the store";

/// The error with its URL, what was tried, and a remedy.
pub(super) fn explain(location: &Location, action: &'static str, error: &Error) -> DataError {
    let message = answered(error);
    let (credentials, endpoint) = environment(location.scheme);
    let bucket = location.root.split_once("://").map_or("", |(_, bucket)| bucket);
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    let hint = if action == OPENING {
        format!("the settings in the environment do not suffice: {credentials} ({endpoint})")
    } else if has(&["NoSuchBucket", "The specified bucket does not exist", "ContainerNotFound"]) {
        format!("there is no bucket {bucket}: check its name and the endpoint ({endpoint})")
    } else if matches!(error, Error::NotFound { .. }) {
        "there is no such object: check the URL and the file_id_range".to_owned()
    } else if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
        || has(&["169.254.169.254", "metadata.google", "redential", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
    {
        format!("access is refused or there are no credentials: {credentials}")
    } else if has(&["invalid peer certificate"]) {
        "the server's certificate is not trusted: install its authority on this machine, or name the authority's file in SSL_CERT_FILE"
            .to_owned()
    } else if has(&["connection closed", "reset by peer", "roken pipe"]) {
        "the server or a proxy cuts connections off: try again later, or raise data.object_store.retries".to_owned()
    } else if has(&["Connection refused", "dns error", "failed to lookup", "unreachable", "error sending request", "tcp connect"]) {
        format!("the server cannot be reached: check the host, the network and proxies{}", prefixed(" and ", endpoint))
    } else if has(&["URL scheme is not allowed"]) {
        format!("the endpoint is plain http: set AWS_ALLOW_HTTP=true to allow it ({endpoint})")
    } else if has(&["BareRedirect", "LOCATION", "301"]) {
        format!("the bucket is in another region: set it in the environment ({endpoint})")
    } else {
        "the server fails or is overloaded: try again later, or raise data.object_store.retries".to_owned()
    };
    DataError::Object { url: location.url.clone(), action, reason: message, hint }
}

fn prefixed(prefix: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{prefix}{text}") }
}

/// Where credentials come from, and where the endpoint.
fn environment(scheme: Scheme) -> (&'static str, &'static str) {
    match scheme {
        Scheme::S3 => (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_SKIP_SIGNATURE=true for a public bucket",
            "AWS_ENDPOINT, AWS_REGION",
        ),
        Scheme::Google => (
            "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to a key file, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
            "GOOGLE_BASE_URL",
        ),
        Scheme::Azure => (
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_KEY), or AZURE_SKIP_SIGNATURE=true for a public container",
            "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ENDPOINT",
        ),
        Scheme::Http | Scheme::Memory => {
            ("a web server must give the file without a password; use s3://, gs:// or az:// for private ones", "")
        }
    }
}

/// What the server or the network said, causes included, without what may be secret.
pub(super) fn answered(error: &Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    without_queries(&message.replace('\n', " "))
}
