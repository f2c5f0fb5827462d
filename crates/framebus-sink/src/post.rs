//! A client for HTTP and HTTPS, without a runtime.

use crate::tls;
use framebus_config::Url;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A client that follows no redirects, which could carry messages to somebody else. `ca`:
/// certificates that the server's is checked against, read now.
///
/// # Errors
/// What is wrong with the certificates, in words.
pub(crate) fn agent(url: &Url, ca: Option<&Path>, timeout: Duration) -> Result<Agent, String> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(timeout))
        .user_agent(concat!("framebus/", env!("CARGO_PKG_VERSION")))
        .no_delay(true)
        .proxy(None);
    let config = if url.scheme() == "https" {
        let authorities = tls::authorities(ca)?;
        let authorities: Vec<Certificate<'static>> =
            authorities.iter().map(|found| Certificate::from_der(found).to_owned()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        config.https_only(true).tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&authorities))
                .unversioned_rustls_crypto_provider(provider)
                .build(),
        )
    } else {
        config
    };
    Ok(config.build().new_agent())
}

/// Why a request failed. Nothing of the path, which may hold a key.
pub(crate) fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Rustls(error) => tls::explain(error),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::HostNotFound => "host not found".to_owned(),
        ureq::Error::ConnectionFailed => "connection failed".to_owned(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "url cannot be used".to_owned(),
        other => tls::reason(other),
    }
}

/// The seconds of Retry-After.
pub(crate) fn retry_after<T>(answer: &ureq::http::Response<T>) -> Option<u64> {
    answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()
}
