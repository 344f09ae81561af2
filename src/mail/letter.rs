//! What a mail says: an RFC 5322 message with a text and an HTML part that say the same. Nobody but the operator puts
//! words into it, and nothing in it is secret.

use std::time::{Duration, UNIX_EPOCH};

use askama::Template;
use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::{Address, message};
use url::Host;

use super::carrier::Failure;
use crate::config::{Brand, Config};
use crate::protocol::time::Timestamp;
use crate::protocol::user::canonical_email;
use crate::store::outbox::Mail;

/// Characters of a partner's name that are shown; more would push everything else away.
const MAX_NAME: usize = 80;

/// What to write about.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Mail(&'a Mail),
    /// Whether mail works at all.
    Test,
}

/// A message as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Of its time and its id: the same for the same mail, and in the order of time beside others.
    pub name: String,
    pub message_id: String,
    pub envelope: Envelope,
    pub message: Vec<u8>,
}

/// Who writes.
pub struct Letterhead {
    from: Mailbox,
    brand: Brand,
    issuer: String,
    host: String,
}

impl Letterhead {
    pub fn of(config: &Config) -> Self {
        Self {
            from: config.mail.from.clone(),
            brand: config.brand.clone(),
            issuer: config.issuer.to_string(),
            host: config.issuer.host().to_owned(),
        }
    }

    /// # Errors
    /// An address that no mail can reach.
    pub fn write(&self, id: &str, to: &str, content: Content<'_>, at: Timestamp) -> Result<Letter, Failure> {
        let to = address(to)?;
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.clone()]).map_err(Failure::refused)?;
        let Words { subject, text, html } = self.words(content).map_err(Failure::ours)?;
        let message_id = format!("<{id}@{}>", self.host);
        let since_epoch = Duration::from_millis(u64::try_from(at.millis()).unwrap_or_default());
        // The same each time, and in no part: nobody knows the id beforehand.
        let parts = MultiPart::alternative()
            .boundary(format!("=_{id}"))
            .singlepart(SinglePart::plain(text))
            .singlepart(SinglePart::html(html));
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .date(UNIX_EPOCH + since_epoch)
            .message_id(Some(message_id.clone()))
            // RFC 3834 §5: no machine should answer, and none that is well-behaved will.
            .raw_header(auto_submitted())
            .header(message::header::MIME_VERSION_1_0)
            .multipart(parts)
            .map_err(Failure::ours)?;
        let name = format!("{}-{id}", compact(at));
        Ok(Letter { name, message_id, envelope, message: message.formatted() })
    }

    fn words(&self, content: Content<'_>) -> askama::Result<Words> {
        let (brand, issuer, accent) = (self.brand.name.as_str(), self.issuer.as_str(), self.brand.accent.as_str());
        let (help_uri, privacy_uri) = (self.brand.help_uri.as_deref(), self.brand.privacy_uri.as_deref());
        let frame = Frame { brand, issuer, accent, help_uri, privacy_uri };
        match content {
            Content::Mail(Mail::Welcome { partner_name }) => {
                let partner = one_line(partner_name);
                let partner = if partner.is_empty() { "A partner" } else { partner.as_str() };
                Ok(Words {
                    subject: format!("{partner} made you an account at {brand}"),
                    text: WelcomeText { frame, partner }.render()?,
                    html: WelcomeHtml { frame, partner }.render()?,
                })
            }
            Content::Test => Ok(Words {
                subject: format!("A test of the mail of {brand}"),
                text: TestText { frame }.render()?,
                html: TestHtml { frame }.render()?,
            }),
        }
    }
}

struct Words {
    subject: String,
    text: String,
    html: String,
}

/// What every mail has around its words.
#[derive(Clone, Copy)]
struct Frame<'a> {
    brand: &'a str,
    issuer: &'a str,
    accent: &'a str,
    help_uri: Option<&'a str>,
    privacy_uri: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "email/welcome.txt")]
struct WelcomeText<'a> {
    frame: Frame<'a>,
    partner: &'a str,
}

#[derive(Template)]
#[template(path = "email/welcome.html")]
struct WelcomeHtml<'a> {
    frame: Frame<'a>,
    partner: &'a str,
}

#[derive(Template)]
#[template(path = "email/test.txt")]
struct TestText<'a> {
    frame: Frame<'a>,
}

#[derive(Template)]
#[template(path = "email/test.html")]
struct TestHtml<'a> {
    frame: Frame<'a>,
}

fn auto_submitted() -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned())
}

/// The address as servers want it: the domain in ASCII (RFC 5890 §2.3.2.1), the rest as it is.
fn address(to: &str) -> Result<Address, Failure> {
    let unreachable = || Failure::refused("this is no address that mail can reach");
    let canonical = canonical_email(to).map_err(|_| unreachable())?;
    let (local, domain) = canonical.rsplit_once('@').ok_or_else(unreachable)?;
    let domain =
        if domain.is_ascii() { domain.to_owned() } else { Host::parse(domain).map_err(|_| unreachable())?.to_string() };
    Address::new(local, domain).map_err(|_| unreachable())
}

/// A name as one line that reads in one direction, and not a long one: it must not pass for anything else.
fn one_line(name: &str) -> String {
    let is_formatting = |c: char| matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let space = |c: char| if c.is_whitespace() || c.is_control() { ' ' } else { c };
    let plain: String = name.chars().filter(|c| !is_formatting(*c)).map(space).collect();
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= MAX_NAME { words } else { words.chars().take(MAX_NAME - 1).chain(['…']).collect() }
}

/// `20270115T080000Z`, so that names sort by time.
fn compact(at: Timestamp) -> String {
    let digits: String = at.rfc3339().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let seconds = digits.split(['.', 'Z']).next().unwrap_or_default();
    format!("{seconds}Z")
}

#[cfg(test)]
mod tests;
