//! Mail by way of a server (RFC 5321, RFC 6409). The conversation is held step by step here, because what a refusal
//! means depends on the step: at the recipient it is about this letter, before that about us.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use native_tls::{Certificate, Protocol, TlsConnector};
use openssl::x509::X509;
use tokio::time::timeout;

use super::carrier::{Failure, Fault};
use super::channel::{Channel, Security};
use super::letter::Letter;
use crate::config::{Smtp, SmtpTls};
use crate::protocol::time::Span;

/// Letters that one connection carries; servers end it after about as many.
const PER_CONNECTION: u32 = 50;
/// How long we wait for a server's good-bye.
const GOOD_BYE: Duration = Duration::from_secs(1);
/// Codes that are about our credentials or our TLS at whatever step they come (RFC 4954 §6).
const ABOUT_US: [u16; 6] = [432, 454, 530, 534, 535, 538];

pub struct Server {
    smtp: Smtp,
    hello: ClientId,
    /// Connections that wait for more letters.
    waiting: Mutex<Vec<Line>>,
}

/// A connection on which we are known.
struct Line {
    connection: AsyncSmtpConnection,
    carried: u32,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (tls: {})", self.smtp.host, self.smtp.port, self.smtp.tls)
    }
}

impl Server {
    /// `host` is how we introduce ourselves.
    pub fn new(smtp: Smtp, host: &str) -> Self {
        let hello = host.parse().map_or_else(|_| ClientId::Domain(host.to_owned()), ClientId::Ipv4);
        Self { smtp, hello, waiting: Mutex::default() }
    }

    pub fn timeout(&self) -> Span {
        self.smtp.timeout
    }

    pub async fn check(&self) -> Result<(), Failure> {
        self.security().await.map(|_| ())
    }

    /// Hands a letter over; the server's answer.
    pub async fn hand_over(&self, letter: &Letter) -> Result<String, Failure> {
        let patience = self.smtp.timeout.to_std();
        // What was answered counts, however long the good-byes take.
        match timeout(patience, self.converse(letter)).await {
            Ok(Ok((line, answer))) => {
                self.keep(line).await;
                Ok(answer)
            }
            Ok(Err((line, failure))) => {
                if let Some(line) = line {
                    say_good_bye(*line).await;
                }
                Err(failure)
            }
            Err(_) => Err(Failure::ours(format!("{self} took longer than {}", self.smtp.timeout))),
        }
    }

    async fn converse(&self, letter: &Letter) -> Result<(Line, String), (Option<Box<Line>>, Failure)> {
        let mut line = match self.take_waiting().await {
            Some(line) => line,
            None => self.connect().await.map_err(|failure| (None, failure))?,
        };
        match carry(&mut line.connection, letter).await {
            Ok(answer) => {
                line.carried += 1;
                Ok((line, answer))
            }
            Err(failure) => Err((Some(Box::new(line)), failure)),
        }
    }

    /// A connection that waits and still lives: servers end them when they please.
    async fn take_waiting(&self) -> Option<Line> {
        loop {
            let mut line = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if line.connection.test_connected().await {
                return Some(line);
            }
        }
    }

    async fn keep(&self, line: Line) {
        if line.carried < PER_CONNECTION {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        } else {
            say_good_bye(line).await;
        }
    }

    pub async fn hang_up(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        futures_util::future::join_all(waiting.into_iter().map(say_good_bye)).await;
    }

    async fn connect(&self) -> Result<Line, Failure> {
        let Smtp { host, port, credentials, .. } = &self.smtp;
        let ours = |why: String| Failure::ours(format!("{host}:{port}: {}", clean(&why)));
        let channel =
            Channel::open(host, *port, &self.hello.to_string(), self.security().await?).await.map_err(ours)?;
        let connecting = AsyncSmtpConnection::connect_with_transport(Box::new(channel), &self.hello);
        let mut connection = connecting.await.map_err(|error| ours(told(&error)))?;
        if let Some((name, password)) = credentials {
            let credentials = Credentials::new(name.clone(), password.expose().clone());
            let known = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            known.map_err(|error| ours(told(&error)))?;
        }
        Ok(Line { connection, carried: 0 })
    }

    /// What makes a connection safe, with the certificates as they are now.
    async fn security(&self) -> Result<Security, Failure> {
        let security = match self.smtp.tls {
            SmtpTls::None => return Ok(Security::None),
            SmtpTls::Implicit => Security::AtOnce,
            SmtpTls::Starttls => Security::Starttls,
        };
        let mut builder = TlsConnector::builder();
        builder.min_protocol_version(Some(Protocol::Tlsv12));
        if let Some(file) = &self.smtp.ca_file {
            for certificate in certificates(file).await? {
                builder.add_root_certificate(certificate);
            }
        }
        builder.build().map(security).map_err(Failure::ours)
    }
}

async fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let ours = |why: String| Failure::ours(format!("mail.smtp.ca_file {}: {why}", file.display()));
    let pem = tokio::fs::read(file).await.map_err(|error| ours(error.to_string()))?;
    let stack = X509::stack_from_pem(&pem).map_err(|error| ours(error.to_string()))?;
    if stack.is_empty() {
        return Err(ours("holds no certificate in PEM".to_owned()));
    }
    let each = stack.iter().map(|one| {
        let der = one.to_der().map_err(|error| ours(error.to_string()))?;
        Certificate::from_der(&der).map_err(|error| ours(error.to_string()))
    });
    each.collect()
}

/// One letter on a connection. Whatever fails leaves the connection in the middle of something.
async fn carry(connection: &mut AsyncSmtpConnection, letter: &Letter) -> Result<String, Failure> {
    let Some(to) = letter.envelope.to().first() else { return Err(Failure::refused("nobody to write to")) };
    let mut options = Vec::new();
    if !to.to_string().is_ascii() {
        // RFC 6531 §3.2: it cannot be handed to a server that does not know the extension.
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(Failure::refused(
                "the address is not ASCII, and the mail server does not take such (SMTPUTF8)",
            ));
        }
        options.push(MailParameter::SmtpUtfEight);
    }
    let from = letter.envelope.from().cloned();
    connection.command(Mail::new(from, options)).await.map_err(|error| judge(&error, Fault::Ours))?;
    let about_it = |error| judge(&error, Fault::Refused);
    connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(about_it)?;
    connection.command(Data).await.map_err(about_it)?;
    let response = connection.message(&letter.message).await.map_err(about_it)?;
    Ok(answer(&response))
}

fn answer(response: &Response) -> String {
    let words: Vec<&str> = response.message().collect();
    clean(&format!("{} {}", response.code(), words.join(" ")))
}

/// What an error means at a step where a refusal for good is the fault of `blamed`.
fn judge(error: &lettre::transport::smtp::Error, blamed: Fault) -> Failure {
    let text = told(error);
    let Some(status) = error.status() else { return Failure::ours(text) };
    let number = status.to_string();
    let code = with_enhanced(&number, &text);
    let fault = match status.severity {
        _ if number.parse().is_ok_and(|number| ABOUT_US.contains(&number)) => Fault::Ours,
        // RFC 3463 §3.8: a policy, which may be about us as well as about the letter (a relay that does not know us).
        Severity::PermanentNegativeCompletion if code.contains(" 5.7.") && blamed == Fault::Refused => Fault::Deferred,
        Severity::PermanentNegativeCompletion => blamed,
        _ => Fault::Deferred,
    };
    Failure { fault, code: Some(code), text }
}

/// `550 5.1.1` where the text begins with an enhanced code (RFC 3463), else `550`.
fn with_enhanced(number: &str, text: &str) -> String {
    let is_enhanced = |word: &&str| {
        let numbers: Vec<&str> = word.split('.').collect();
        numbers.len() == 3
            && numbers.iter().all(|one| (1..=3).contains(&one.len()) && one.bytes().all(|b| b.is_ascii_digit()))
    };
    let enhanced = text.strip_prefix(number).and_then(|rest| rest.split_whitespace().next()).filter(is_enhanced);
    enhanced.map_or_else(|| number.to_owned(), |enhanced| format!("{number} {enhanced}"))
}

/// An error with what it came from, in the server's words where it has answered.
fn told(error: &lettre::transport::smtp::Error) -> String {
    use std::error::Error as _;
    let cause = error.source().map(ToString::to_string);
    clean(&match (error.status(), cause) {
        (Some(status), Some(words)) => format!("{status} {words}"),
        (None, Some(cause)) => cause,
        (_, None) => error.to_string(),
    })
}

/// One line of bounded length: a server may say anything.
fn clean(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(500).collect()
}

async fn say_good_bye(mut line: Line) {
    let _ = timeout(GOOD_BYE, line.connection.abort()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_for_the_log_holds_nothing_else_of_the_answer() {
        for (number, text, expected) in [
            ("550", "550 5.1.1 <ann@school.test>: no such user", "550 5.1.1"),
            ("451", "451 <ann@school.test> come back later", "451"),
            ("550", "550 5.1.ann@x no", "550"),
            ("552", "552", "552"),
        ] {
            assert_eq!(with_enhanced(number, text), expected);
        }
    }

    #[test]
    fn an_answer_is_one_line() {
        assert_eq!(clean("550 no\r\n\tsuch \u{1b}[31muser\u{0}"), "550 no such [31muser");
        assert_eq!(clean(&"x".repeat(1000)).len(), 500);
    }
}
