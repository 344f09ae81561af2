//! How a letter leaves: to a server, or to a file. What stood in the way is told apart by whose fault it was, because
//! that decides whether there is a next time.

use super::file::Files;
use super::letter::{Content, Letter, Letterhead};
use super::smtp::Server;
use crate::config::Config;
use crate::protocol::time::{Span, Timestamp};

/// Files are no server that could keep us waiting.
const FILE_TIMEOUT: Span = Span::from_secs(30);

/// Why a letter did not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    /// `550 5.1.1`, where a server has answered: all of its answer that may stand in a log.
    pub code: Option<String>,
    /// For operators. It may hold the recipient's address.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such recipient, or the letter is refused for good.
    Refused,
    /// The recipient's server asks for patience, as greylisting does (RFC 6647).
    Deferred,
    /// The server that takes our mail is away, or it and our configuration do not fit: every letter meets it.
    Ours,
}

impl Failure {
    pub fn ours(text: impl ToString) -> Self {
        Self { fault: Fault::Ours, code: None, text: text.to_string() }
    }

    pub fn refused(text: impl ToString) -> Self {
        Self { fault: Fault::Refused, code: None, text: text.to_string() }
    }
}

/// A letter that has left.
#[derive(Clone, Debug)]
pub struct Carried {
    pub message_id: String,
    /// The server's answer, or the file.
    pub answer: String,
}

/// Writes letters and carries them away.
pub struct Carrier {
    letterhead: Letterhead,
    way: Way,
}

enum Way {
    Files(Files),
    Server(Box<Server>),
}

impl Carrier {
    pub fn of(config: &Config) -> Self {
        let way = match &config.mail.smtp {
            None => Way::Files(Files::under(&config.data_dir)),
            Some(smtp) => Way::Server(Box::new(Server::new(smtp.clone(), config.issuer.host()))),
        };
        Self { letterhead: Letterhead::of(config), way }
    }

    /// Whether the files that the configuration names can be used; nobody is asked.
    pub async fn check(&self) -> Result<(), Failure> {
        match &self.way {
            Way::Files(_) => Ok(()),
            Way::Server(server) => server.check().await,
        }
    }

    /// How long [`Carrier::carry`] takes at most.
    pub fn patience(&self) -> Span {
        match &self.way {
            Way::Files(_) => FILE_TIMEOUT,
            Way::Server(server) => server.timeout(),
        }
    }

    /// Where letters go, for people.
    pub fn destination(&self) -> String {
        match &self.way {
            Way::Files(files) => files.to_string(),
            Way::Server(server) => server.to_string(),
        }
    }

    /// Writes a letter and carries it away. The same id gives the same `Message-ID`, so that whoever gets it twice can
    /// tell.
    pub async fn carry(&self, id: &str, to: &str, content: Content<'_>, at: Timestamp) -> Result<Carried, Failure> {
        let letter = self.letterhead.write(id, to, content, at)?;
        let Letter { message_id, .. } = &letter;
        let message_id = message_id.clone();
        let answer = match &self.way {
            Way::Files(files) => files.keep(letter).await?,
            Way::Server(server) => server.hand_over(&letter).await?,
        };
        Ok(Carried { message_id, answer })
    }

    /// Lets go of connections that wait for more letters.
    pub async fn rest(&self) {
        if let Way::Server(server) = &self.way {
            server.hang_up().await;
        }
    }
}
