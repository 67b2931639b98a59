//! URLs as they stand in a list of files: which store, which object, and whether several are meant.

use std::ops::ControlFlow;

use crate::error::DataError;

/// Whether a pattern is a URL, not a path.
pub(crate) fn is_url(pattern: &str) -> bool {
    pattern.contains("://")
}

/// The path of a `file://` URL; other patterns as they are.
pub(crate) fn local_path(pattern: &str) -> Result<&str, DataError> {
    match pattern.strip_prefix("file://") {
        None => Ok(pattern),
        Some(path) if path.starts_with('/') => Ok(path),
        Some(_) => {
            Err(refused(pattern, "names a host, but file URLs are of this machine", "write file:///folder/shard.jsonl, or the path alone"))
        }
    }
}

/// Where an object is, or a pattern of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The whole URL, as configured.
    pub url: String,
    /// Scheme, `://`, and bucket, container or host.
    pub root: String,
    /// The name in the store, without a leading slash; as written, escapes included.
    pub key: String,
    pub scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    S3,
    Google,
    Azure,
    Http,
    /// Tests alone put stores under this.
    Memory,
}

impl Location {
    /// Takes a URL apart. Nothing is asked of any server.
    pub fn parse(url: &str) -> Result<Self, DataError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        let kind = match scheme {
            "s3" | "s3a" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" | "azure" | "abfs" | "abfss" => Scheme::Azure,
            "http" | "https" => Scheme::Http,
            "memory" if cfg!(test) => Scheme::Memory,
            _ => {
                let hint = "use a path, file://, s3://bucket/, gs://bucket/, az://container/ or http(s)://host/";
                return Err(refused(url, "has an unknown scheme", hint));
            }
        };
        // In abfss URLs the container stands before the account's host.
        if authority.contains('@') && kind != Scheme::Azure {
            let hint = "take it out: credentials come from environment variables, never from a configuration";
            return Err(refused(&format!("{scheme}://..."), "has a user or password in it", hint));
        }
        if authority.is_empty() || key.is_empty() || key.ends_with('/') {
            return Err(refused(url, "names no object", "write the bucket or host and then the object's name"));
        }
        if kind == Scheme::Http {
            if let Some((before, _)) = url.split_once(['?', '#']) {
                let hint = "name the object alone; for a glob or credentials use the store's own scheme (s3://, gs://, az://)";
                return Err(refused(before, "goes on with a query, which is not read", hint));
            }
            if key.contains(['*', '[']) {
                let hint = "name the files one by one, or with {file_id:05d} and file_id_range";
                return Err(refused(url, "is a glob, but a web server has no list of its files", hint));
            }
        }
        Ok(Self { url: url.to_owned(), root: format!("{scheme}://{authority}"), key: key.to_owned(), scheme: kind })
    }

    /// Whether the key is a glob.
    pub fn is_glob(&self) -> bool {
        self.key.contains(['*', '?', '['])
    }

    /// The longest folder that every match of the glob lies in, without its slash; empty for the whole bucket.
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub fn folder(&self) -> &str {
        let fixed = self.key.split_once(['*', '?', '[']).map_or(self.key.as_str(), |(before, _)| before);
        fixed.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The object of this store that has another name.
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub fn beside(&self, key: &str) -> Self {
        Self { url: format!("{}/{key}", self.root), key: key.to_owned(), ..self.clone() }
    }
}

fn refused(url: &str, reason: &str, hint: &str) -> DataError {
    DataError::Object { url: url.to_owned(), action: "reading the URL", reason: format!("it {reason}"), hint: hint.to_owned() }
}

/// A server's message without the queries of URLs, which can hold signatures, and not without end.
#[cfg_attr(not(feature = "object-store"), allow(dead_code))]
pub(crate) fn without_queries(message: &str) -> String {
    const LONGEST: usize = 400;
    let words = message.split_inclusive(char::is_whitespace).try_fold(String::new(), |mut text, word| {
        match word.split_once('?') {
            Some((url, _)) if url.contains("://") => text.push_str(&format!("{url}?... ")),
            _ => text.push_str(word),
        }
        if text.len() > LONGEST { ControlFlow::Break(text + " ...") } else { ControlFlow::Continue(text) }
    });
    match words {
        ControlFlow::Continue(text) | ControlFlow::Break(text) => text.trim().chars().take(2 * LONGEST).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let found = Location::parse("s3://bucket/a/b-*/c?.jsonl.zst").unwrap();
        assert_eq!((found.root.as_str(), found.key.as_str(), found.folder()), ("s3://bucket", "a/b-*/c?.jsonl.zst", "a"));
        assert!(found.is_glob());
        assert_eq!(found.beside("a/b-1/c2.jsonl.zst").url, "s3://bucket/a/b-1/c2.jsonl.zst");
        assert_eq!(Location::parse("gs://b/*.parquet").unwrap().folder(), "");
        let web = Location::parse("http://host:80/a/b.jsonl").unwrap();
        assert_eq!((web.root.as_str(), web.key.as_str(), web.is_glob()), ("http://host:80", "a/b.jsonl", false));
        assert_eq!(local_path("file:///a/*.gz").unwrap(), "/a/*.gz");
        assert_eq!(local_path("a/*.gz").unwrap(), "a/*.gz");
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_secrets_are_not_repeated() {
        let refused = |url: &str| Location::parse(url).unwrap_err().to_string();
        assert!(refused("ftp://host/a.jsonl").contains("unknown scheme"));
        assert!(refused("s3://bucket").contains("names no object"));
        assert!(refused("s3://bucket/a/").contains("names no object"));
        assert!(refused("https://host/a-*.jsonl").contains("a web server has no list"));
        let signed = refused("https://host/a.jsonl?sig=SECRET");
        assert!(signed.contains("a query") && !signed.contains("SECRET"), "{signed}");
        let user = refused("https://me:SECRET@host/a.jsonl");
        assert!(user.contains("environment variables") && !user.contains("SECRET"), "{user}");
        assert!(local_path("file://host/a").is_err());
        assert_eq!(without_queries("GET https://h/a?sig=SECRET: 403"), "GET https://h/a?... 403");
        assert!(without_queries(&"x ".repeat(5000)).len() < 1000);
    }
}
