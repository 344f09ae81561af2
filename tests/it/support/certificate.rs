//! Certificates that tests issue themselves.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    pub cert: X509,
    pub key: PKey<Private>,
}

impl Identity {
    pub fn make(name: &str, issuer: Option<&Self>, is_authority: bool, days: u32) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let mut names = X509NameBuilder::new().expect("a name");
        names.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
        let subject = names.build();
        let mut builder = X509::builder().expect("a certificate");
        let mut serial = BigNum::new().expect("a number");
        serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).expect("a number");
        builder.set_version(2).expect("set");
        builder.set_serial_number(&serial.to_asn1_integer().expect("a number")).expect("set");
        builder.set_subject_name(&subject).expect("set");
        builder.set_issuer_name(issuer.map_or(&*subject, |issuer| issuer.cert.subject_name())).expect("set");
        builder.set_pubkey(&key).expect("set");
        builder.set_not_before(&Asn1Time::from_unix(1_700_000_000).expect("a time")).expect("set");
        builder.set_not_after(&Asn1Time::days_from_now(days).expect("a time")).expect("set");
        let constraints =
            if is_authority { BasicConstraints::new().ca().build() } else { BasicConstraints::new().build() };
        builder.append_extension(constraints.expect("an extension")).expect("set");
        let context = builder.x509v3_context(None, None);
        let names = SubjectAlternativeName::new().dns(name).build(&context).expect("an extension");
        builder.append_extension(names).expect("set");
        builder.sign(issuer.map_or(&key, |issuer| &issuer.key), MessageDigest::sha256()).expect("signed");
        Self { cert: builder.build(), key }
    }

    pub fn pem(&self) -> String {
        String::from_utf8(self.cert.to_pem().expect("PEM")).expect("text")
    }

    pub fn key_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().expect("PEM")).expect("text")
    }

    pub fn digest(&self) -> Vec<u8> {
        self.cert.digest(MessageDigest::sha256()).expect("a digest").to_vec()
    }
}
