//! TLS of our own: the certificate and its key, read at the start and again whenever the files change. Mozilla's
//! intermediate profile: TLS 1.2 and 1.3, ciphers with forward secrecy. A pair that does not hold together never
//! replaces one that does; connections that are open keep what they began with.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{AlpnError, SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode, select_next_proto};
use openssl::x509::X509;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::ambient::{Clock as _, SystemClock};
use crate::config::TlsFiles;
use crate::protocol::time::Span;

/// How often the files are looked at. SIGHUP has them read at once.
const LOOK: Duration = Duration::from_secs(2);
/// Certificates that are renewed by themselves never come so near their end.
const SOON: Span = Span::days(7);
/// In the form that goes over the wire (RFC 7301 §3.1), best first.
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// A certificate that serves, and where it came from.
pub struct Tls {
    files: TlsFiles,
    context: RwLock<SslContext>,
}

/// What the two files make.
pub struct Pair {
    context: SslContext,
    expires: String,
    /// What works but should be looked at, one line each.
    pub warnings: Vec<String>,
}

impl Tls {
    /// Reads the files and looks after them for as long as the result lives. Needs a runtime.
    pub fn open(files: &TlsFiles) -> anyhow::Result<Arc<Self>> {
        let seen = Mark::of(files);
        let pair = load(files)?;
        pair.announce();
        let tls = Arc::new(Self { files: files.clone(), context: RwLock::new(pair.context) });
        tokio::spawn(look_after(Arc::downgrade(&tls), Reading::done(seen)));
        Ok(tls)
    }

    /// What the next handshake uses.
    pub fn context(&self) -> SslContext {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, pair: Pair) {
        pair.announce();
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = pair.context;
    }
}

impl Pair {
    fn announce(&self) {
        tracing::info!(expires = self.expires, "TLS certificate read");
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// Reads the pair, or says what to do about it.
pub fn load(files: &TlsFiles) -> anyhow::Result<Pair> {
    let (cert_file, key_file) = (files.cert_file.display(), files.key_file.display());
    let certificates = fs::read(&files.cert_file).with_context(|| format!("tls.cert_file {cert_file}"))?;
    let mut chain = X509::stack_from_pem(&certificates)
        .map_err(|error| anyhow!("tls.cert_file {cert_file}: not a certificate in PEM ({})", reason(&error)))?
        .into_iter();
    let leaf = chain.next().with_context(|| format!("tls.cert_file {cert_file}: there is no certificate in it"))?;
    let key = private_key(&files.key_file).with_context(|| format!("tls.key_file {key_file}"))?;
    let belongs = leaf.public_key().is_ok_and(|public| public.public_eq(&key));
    ensure!(
        belongs,
        "tls.key_file {key_file} is not the key of the certificate in {cert_file}; the first certificate there has to \
         be the server's own, those of its issuers follow"
    );
    let usable = |error: ErrorStack| anyhow!("tls.cert_file {cert_file}: cannot be used ({})", reason(&error));
    let context = context(&leaf, chain, &key).map_err(usable)?;
    let mut warnings = Vec::new();
    warnings.extend(validity(&leaf).map(|warning| format!("tls.cert_file {cert_file}: {warning}")));
    if fs::metadata(&files.key_file).is_ok_and(|metadata| metadata.mode() & 0o007 != 0) {
        let warning = "everybody on this machine can read the private key; run `chmod 600` on it";
        warnings.push(format!("tls.key_file {key_file}: {warning}"));
    }
    Ok(Pair { context, expires: leaf.not_after().to_string(), warnings })
}

fn private_key(path: &Path) -> anyhow::Result<PKey<Private>> {
    let pem = Zeroizing::new(fs::read(path)?);
    // Without the callback OpenSSL would ask on the terminal.
    let mut encrypted = false;
    let key = PKey::private_key_from_pem_callback(&pem, |_| {
        encrypted = true;
        Err(ErrorStack::get())
    });
    match key {
        Ok(key) => Ok(key),
        Err(_) if encrypted => bail!("the key is encrypted; decrypt it with `openssl pkey`"),
        Err(error) => bail!("not a private key in PEM ({})", reason(&error)),
    }
}

fn context(leaf: &X509, chain: impl Iterator<Item = X509>, key: &PKey<Private>) -> Result<SslContext, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_certificate(leaf)?;
    for issuer in chain {
        builder.add_extra_chain_cert(issuer)?;
    }
    builder.set_private_key(key)?;
    builder.check_private_key()?;
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    // Sessions are resumed from tickets that the client keeps; a cache here would grow with visitors.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // Who asks for other protocols only is refused (RFC 7301 §3.2): their bytes are meant for another service.
    builder.set_alpn_select_callback(|_, offered| select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL));
    Ok(builder.build().into_context())
}

fn validity(leaf: &X509) -> Option<String> {
    let now = SystemClock.now();
    let is_before = |time: &Asn1TimeRef, span: Span| {
        Asn1Time::from_unix((now + span).numeric_date()).is_ok_and(|moment| *time < moment)
    };
    if is_before(leaf.not_after(), Span::ZERO) {
        Some(format!("the certificate has expired ({}); renew it", leaf.not_after()))
    } else if is_before(leaf.not_after(), SOON) {
        Some(format!("the certificate expires soon ({}); renew it", leaf.not_after()))
    } else if !is_before(leaf.not_before(), Span::from_secs(1)) {
        Some(format!("the certificate is not valid yet ({})", leaf.not_before()))
    } else {
        None
    }
}

/// The first thing that OpenSSL complains about, in its words.
fn reason(error: &ErrorStack) -> &'static str {
    error.errors().first().and_then(|error| error.reason()).unwrap_or("nothing could be read")
}

/// By what a change of the files is noticed. Links are followed: those who renew certificates turn them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark([Option<[i64; 7]>; 2]);

impl Mark {
    fn of(files: &TlsFiles) -> Self {
        let of = |path: &Path| -> io::Result<[i64; 7]> {
            let file = fs::metadata(path)?;
            let [device, inode, size] = [file.dev(), file.ino(), file.size()].map(u64::cast_signed);
            Ok([device, inode, size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
        };
        Self([&files.cert_file, &files.key_file].map(|path| of(path).ok()))
    }
}

/// How far the files were read.
struct Reading {
    /// The files that were judged last, and whether anybody has been told that they are bad.
    judged: Mark,
    settled: bool,
}

impl Reading {
    fn done(judged: Mark) -> Self {
        Self { judged, settled: true }
    }

    /// Reads the files if they changed. Two files do not change at once, so a bad pair is told only when it is still
    /// there at the next look, and only once.
    fn look(self, tls: &Tls, at_once: bool) -> Self {
        let mark = Mark::of(&tls.files);
        let is_new = mark != self.judged;
        if !is_new && self.settled && !at_once {
            return self;
        }
        match load(&tls.files) {
            Ok(pair) => {
                tls.replace(pair);
                Self::done(mark)
            }
            Err(error) => {
                let settled = at_once || !is_new;
                if settled {
                    tracing::error!("the TLS certificate was not replaced, the old one goes on: {error:#}");
                }
                Self { judged: mark, settled }
            }
        }
    }
}

async fn look_after(tls: Weak<Tls>, mut reading: Reading) {
    let mut hangups = signal(SignalKind::hangup()).ok();
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        let at_once = tokio::time::timeout(LOOK, hangup).await.is_ok();
        let Some(tls) = tls.upgrade() else { return };
        let read = tokio::task::spawn_blocking(move || reading.look(&tls, at_once)).await;
        // Only a panic, or the end of the process.
        let Ok(read) = read else { return };
        reading = read;
    }
}
