//! `[mail]`: what follows from other settings where it is silent, which of its settings need one another, and how the
//! tables become one value.

use std::net::IpAddr;
use std::path::PathBuf;

use lettre::message::Mailbox;
use serde::Deserialize;
use toml::{Table, Value};

use crate::crypto::secret::Secret;
use crate::protocol::time::Span;

use super::draft::{Draft, tables};
use super::issuer::Issuer;
use super::model::{Mail, MailCap, MailTransport, Smtp, SmtpTls};

const SUBMISSION: u16 = 587;
const SUBMISSIONS: u16 = 465;

/// The tables as the settings table guarantees them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    transport: MailTransport,
    from: String,
    address_cap: MailCap,
    partner_cap: MailCap,
    smtp: SmtpTree,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SmtpTree {
    host: Option<String>,
    port: u16,
    tls: SmtpTls,
    ca_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    timeout: Span,
}

/// Fills in what follows from the issuer, the brand, and from `port` and `tls` for one another.
pub fn fill_defaults(values: &mut Table) {
    let from = sender(values);
    for (_, mail) in tables(values, "mail", true) {
        if let (Some(from), false) = (&from, mail.contains_key("from")) {
            mail.insert("from".to_owned(), Value::String(from.clone()));
        }
    }
    for (_, smtp) in tables(values, "mail.smtp", true) {
        let implicit = smtp.get("tls").and_then(Value::as_str) == Some(SmtpTls::Implicit.as_str());
        let port = if implicit { SUBMISSIONS } else { SUBMISSION };
        let port = smtp.entry("port").or_insert_with(|| Value::Integer(port.into())).as_integer();
        let tls = if port == Some(SUBMISSIONS.into()) { SmtpTls::Implicit } else { SmtpTls::Starttls };
        smtp.entry("tls").or_insert_with(|| Value::String(tls.to_string()));
    }
}

/// `Northwind ID <no-reply@id.example.com>`; an issuer without a host's name is one for trying things out.
fn sender(values: &Table) -> Option<String> {
    let issuer = Issuer::parse(values.get("issuer")?.as_str()?).ok()?;
    let host = issuer.host();
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    let address = format!("no-reply@{}", if is_address { "localhost" } else { host });
    let name = values.get("brand").and_then(|brand| brand.get("name")).and_then(Value::as_str);
    let named = Mailbox::new(name.map(str::to_owned), address.parse().ok()?).to_string();
    // A name that no mail can carry is left out.
    Some(if named.parse::<Mailbox>().is_ok() { named } else { address })
}

/// What one setting needs of the others.
pub fn check(draft: &mut Draft) {
    let Some((_, mail)) = tables(&mut draft.values, "mail", false).pop().map(|(at, mail)| (at, mail.clone())) else {
        return;
    };
    let smtp = mail.get("smtp").and_then(Value::as_table).cloned().unwrap_or_default();
    let text = |key: &str| smtp.get(key).and_then(Value::as_str);
    let given = |key: &str| smtp.contains_key(key) || draft.was_refused(&format!("mail.smtp.{key}"));
    let uses_server = mail.get("transport").and_then(Value::as_str) == Some(MailTransport::Smtp.as_str());
    let (has_host, has_name, has_password) =
        (given("host"), given("username"), given("password") || given("password_file"));
    let is_plain = text("tls") == Some(SmtpTls::None.as_str());
    let is_near = text("host").is_none_or(is_loopback);
    let has_ca = given("ca_file");
    if uses_server && !has_host {
        draft.error_at("mail.smtp.host", "is missing; `mail.transport` is \"smtp\"");
    }
    if !uses_server && has_host {
        draft.warn_at("mail.smtp.host", "does nothing: `mail.transport` is \"file\"");
    }
    if has_name && !has_password {
        draft.error_at("mail.smtp.username", "stands without a password; add `password_file`");
    }
    if has_password && !has_name {
        draft.error_at("mail.smtp.username", "is missing beside the password; add it, or leave both out");
    }
    if is_plain && has_name && !is_near {
        let message = "is \"none\", which would show the password to everybody on the way; write \"starttls\"";
        draft.error_at("mail.smtp.tls", message);
    }
    if is_plain && has_ca {
        draft.warn_at("mail.smtp.ca_file", "does nothing: `mail.smtp.tls` is \"none\"");
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What [`check`] has let pass.
pub fn build(tree: Tree) -> Result<Mail, Box<dyn std::error::Error>> {
    let SmtpTree { host, port, tls, ca_file, username, password, timeout } = tree.smtp;
    let host = host.filter(|_| tree.transport == MailTransport::Smtp);
    let credentials = username.zip(password.map(Secret::new));
    Ok(Mail {
        smtp: host.map(|host| Smtp { host, port, tls, ca_file, credentials, timeout }),
        from: tree.from.parse()?,
        address_cap: tree.address_cap,
        partner_cap: tree.partner_cap,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    /// What `[mail]` of this text comes to, beside this head; or its errors, without the place of the file.
    fn mail_of(head: &str, text: &str) -> Result<(Mail, Vec<String>), String> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("smtp.pw"), "hunter2\n").expect("written");
        let file = dir.path().join("keyward.toml");
        std::fs::write(&file, format!("{head}\n[mail]\n{text}")).expect("written");
        let loaded = load(Sources { files: vec![file], ..Sources::default() }).map_err(|errors| errors.to_string())?;
        Ok((loaded.config.mail, loaded.warnings))
    }

    fn mail(text: &str) -> Result<(Mail, Vec<String>), String> {
        mail_of("issuer = \"https://id.example.com\"", text)
    }

    #[test]
    fn without_a_word_mail_becomes_files_in_the_name_of_the_brand() {
        let (plain, warnings) = mail("").expect("a configuration");
        assert!(plain.smtp.is_none() && warnings.is_empty(), "{warnings:?}");
        assert_eq!(plain.address_cap, MailCap { mails: 5, window: Span::days(1) });
        assert_eq!(plain.partner_cap, MailCap { mails: 1000, window: Span::hours(1) });
        for (issuer, name, expected) in [
            ("https://id.example.com", "Keyward", "Keyward <no-reply@id.example.com>"),
            ("https://id.example.com:8443/a", "Schülerakte, e. V.", "\"Schülerakte, e. V.\" <no-reply@id.example.com>"),
            ("http://127.0.0.1:8080", "A", "A <no-reply@localhost>"),
            ("http://[::1]:8080", "A", "A <no-reply@localhost>"),
        ] {
            let (mail, _) =
                mail_of(&format!("issuer = \"{issuer}\"\nbrand = {{ name = \"{name}\" }}"), "").expect(issuer);
            assert_eq!(mail.from, expected.parse().expect("a mailbox"), "{}", mail.from);
        }
        let (own, _) = mail("from = \"Post <post@example.com>\"").expect("a configuration");
        assert_eq!(own.from.to_string(), "Post <post@example.com>");
    }

    #[test]
    fn port_and_tls_follow_from_one_another() {
        for (text, port, tls) in [
            ("", 587, SmtpTls::Starttls),
            ("port = 465", 465, SmtpTls::Implicit),
            ("port = 25", 25, SmtpTls::Starttls),
            ("tls = \"implicit\"", 465, SmtpTls::Implicit),
            ("tls = \"none\"", 587, SmtpTls::None),
            ("port = 465\ntls = \"starttls\"", 465, SmtpTls::Starttls),
        ] {
            let text = format!("transport = \"smtp\"\n[mail.smtp]\nhost = \"h\"\n{text}");
            let smtp = mail(&text).expect(&text).0.smtp.expect("a server");
            assert_eq!((smtp.port, smtp.tls), (port, tls), "{text}");
        }
        let inline = "transport = \"smtp\"\nsmtp = { host = \"h\", username = \"u\", password_file = \"smtp.pw\" }";
        let smtp = mail(inline).expect("a configuration").0.smtp.expect("a server");
        let (name, password) = smtp.credentials.as_ref().expect("credentials");
        assert_eq!((name.as_str(), password.expose().as_str()), ("u", "hunter2"));
        assert!(!format!("{smtp:?}").contains("hunter2"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_or_remarked_on() {
        for (text, expected) in [
            ("transport = \"smtp\"", "`mail.smtp.host` is missing; `mail.transport` is \"smtp\""),
            ("[mail.smtp]\nhost = \"h\"\nusername = \"u\"", "stands without a password"),
            ("[mail.smtp]\nhost = \"h\"\npassword_file = \"smtp.pw\"", "`mail.smtp.username` is missing"),
            (
                "[mail.smtp]\nhost = \"h\"\ntls = \"none\"\nusername = \"u\"\npassword_file = \"smtp.pw\"",
                "`mail.smtp.tls` is \"none\", which would show the password",
            ),
            ("[mail.smtp]\nhost = \"h:25\"", "`mail.smtp.host` must be a host's name or IP address"),
            ("from = \"nobody\"", "`mail.from` must be an e-mail address"),
            ("address_cap = { mails = 1, window = \"8d\" }", "must be a duration from 1s to 7d"),
        ] {
            let error = mail(text).map(|_| ()).expect_err(text);
            assert!(error.contains(expected) && error.lines().count() == 1, "{text}\n{error}");
        }
        let near = "transport = \"smtp\"\n[mail.smtp]\nhost = \"localhost\"\ntls = \"none\"\nusername = \"u\"\npassword_file = \"smtp.pw\"";
        assert!(mail(near).expect("a configuration").1.is_empty());
        for (text, expected) in [
            ("[mail.smtp]\nhost = \"h\"", "`mail.smtp.host` does nothing"),
            (
                "transport = \"smtp\"\n[mail.smtp]\nhost = \"h\"\ntls = \"none\"\nca_file = \"c\"",
                "`mail.smtp.ca_file` does",
            ),
        ] {
            let (_, warnings) = mail(text).expect(text);
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{text}\n{warnings:?}");
        }
    }
}
