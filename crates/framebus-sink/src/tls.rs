//! TLS: whom to trust, and what failed in words.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

/// The certificates of `ca`, or those that the system trusts; read each time, so that
/// renewed ones are taken.
///
/// # Errors
/// What is wrong with them, in words.
pub(crate) fn authorities(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(ca) = ca else {
        let found = rustls_native_certs::load_native_certs().certs;
        return match found.is_empty() {
            true => Err("the system has no certificates; install ca-certificates or set ca".into()),
            false => Ok(found),
        };
    };
    certificates(ca)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(found) if !Vec::is_empty(&found) => Ok(found),
        Ok(_) => Err(format!("{} has no certificate in PEM", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// What a client needs: `identity` is its certificate and private key, in PEM.
///
/// # Errors
/// What is wrong with the files, in words.
pub(crate) fn client(
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let (_, refused) = roots.add_parsable_certificates(authorities(ca)?);
    if roots.is_empty() {
        return Err(format!("none of {refused} certificates of ca can be used"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?
        }
    };
    Ok(Arc::new(config))
}

/// What TLS found wrong, where `error` or one of its causes is an error of TLS.
pub(crate) fn fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(explain(found));
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// In words, with what to do about it.
pub(crate) fn explain(error: &rustls::Error) -> String {
    let what = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                "its certificate is signed by nobody that is trusted here; see the key ca"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is the clock right?"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name than url has"
            }
            other => return format!("TLS: its certificate is refused ({other})"),
        },
        other => return format!("TLS: {other}"),
    };
    format!("TLS: {what}")
}

/// The end of a chain of errors, where the reason usually is, without the number that the
/// system has for it and without the layers that a library has put in front.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    if let Some(fault) = fault(error) {
        return fault;
    }
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    plain(&last.to_string())
}

fn plain(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text.to_lowercase();
    let layers =
        [": io: ", ": i/o: "].iter().filter_map(|mark| Some(text.rfind(mark)? + mark.len()));
    text[layers.max().unwrap_or(0)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_and_faults_of_certificates_say_what_to_do() {
        let text = "MQTT error: I/O: Connection reset by peer (os error 104)";
        assert_eq!(plain(text), "connection reset by peer");
        assert_eq!(plain("MQTT error: IO: Broken pipe (os error 32)"), "broken pipe");
        assert_eq!(plain("No ratio: none"), "no ratio: none");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(reason(&refused), "connection refused");
        let error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::other(error);
        assert!(reason(&wrapped).contains("see the key ca"), "{}", reason(&wrapped));
    }
}
