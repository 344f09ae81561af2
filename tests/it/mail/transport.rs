//! Conversations with a real server: TLS as it was asked for or not at all, and who we are.

use super::*;

/// What became of one mail to ann.
async fn sent_with(config: &str) -> ListedMail {
    let provider = Provider::start_with(Backend::Sqlite, "https://id.test", config).await;
    let id = queue(&provider.app, "ann@school.test").await;
    send_due(&provider.app).await;
    mail(&provider.app, &id).await
}

/// It waits for its next try, and this is why.
#[track_caller]
fn assert_kept(mail: &ListedMail, words: &[&str]) {
    assert_eq!((mail.state, mail.attempts), (MailState::Pending, 1), "{mail:?}");
    let error = mail.last_error.as_deref().unwrap_or_default();
    assert!(words.iter().any(|word| error.contains(word)), "none of {words:?} in: {error}");
}

#[tokio::test]
async fn the_envelope_and_the_letter_are_ours() {
    let server = MailServer::start().await;
    assert_eq!(sent_with(&server.plain_config()).await.state, MailState::Sent);
    let [letter] = &server.letters()[..] else { panic!("one letter: {:?}", server.letters()) };
    assert_eq!((letter.from.as_str(), letter.to.as_str()), ("no-reply@id.test", "ann@school.test"));
    assert_eq!((letter.tls, letter.user.as_deref()), (false, None));
    assert_eq!(letter.header("From"), "\"Northwind ID\" <no-reply@id.test>");
    assert_eq!(letter.header("Auto-Submitted"), "auto-generated");
    assert_eq!(letter.header("Subject"), "Web <app> made you an account at Northwind ID");
}

#[tokio::test]
async fn tls_is_spoken_with_a_server_that_a_private_authority_vouches_for() {
    for tls in ["starttls", "implicit"] {
        let server = MailServer::start_tls(tls, &[]).await;
        let config = server.config(&format!("tls = \"{tls}\"\nca_file = \"{}\"", server.ca_file()));
        let sent = sent_with(&config).await;
        assert_eq!(sent.state, MailState::Sent, "{tls}: {sent:?}");
        assert!(server.letters()[0].tls, "{tls}");
        // Nobody vouches for it, or it goes by another name.
        assert_kept(&sent_with(&server.config(&format!("tls = \"{tls}\""))).await, &["certificate verify failed"]);
        let stranger = MailServer::start_tls(tls, &[]).await;
        let config = server.config(&format!("tls = \"{tls}\"\nca_file = \"{}\"", stranger.ca_file()));
        assert_kept(&sent_with(&config).await, &["certificate verify failed"]);
        let config = config.replace("localhost", "127.0.0.1").replace(&stranger.ca_file(), &server.ca_file());
        assert_kept(&sent_with(&config).await, &["certificate verify failed"]);
        assert_eq!(server.letters().len(), 1);
    }
}

/// Whoever sits in between and strikes STARTTLS out gets nothing.
#[tokio::test]
async fn a_server_without_starttls_gets_no_mail_unless_that_was_meant() {
    let server = MailServer::start().await;
    assert_kept(&sent_with(&server.config("tls = \"starttls\"")).await, &["STARTTLS is not supported"]);
    assert_kept(&sent_with(&server.config("")).await, &["STARTTLS is not supported"]);
    assert!(server.letters().is_empty());
    assert_eq!(sent_with(&server.plain_config()).await.state, MailState::Sent);
}

/// Plain words behind the server's last one must not pass for answers that came by TLS (CVE-2011-0411 and its kin).
#[tokio::test]
async fn answers_that_were_slipped_in_before_tls_are_not_believed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut heard = [0; 1024];
        stream.write_all(b"220 hello\r\n").await.expect("written");
        let _ = stream.read(&mut heard).await.expect("EHLO");
        stream.write_all(b"250-hello\r\n250 STARTTLS\r\n").await.expect("written");
        let _ = stream.read(&mut heard).await.expect("STARTTLS");
        let slipped_in = "220 go\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n250 taken\r\n";
        stream.write_all(slipped_in.as_bytes()).await.expect("written");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        rest
    });
    let config = format!("[mail]\ntransport = \"smtp\"\n[mail.smtp]\nhost = \"localhost\"\nport = {port}\n");
    assert_kept(&sent_with(&config).await, &["wrong version number", "SSL", "packet length"]);
    let heard = String::from_utf8_lossy(&server.await.expect("no panic")).into_owned();
    assert!(!heard.contains("ann@school.test") && !heard.contains("MAIL FROM"), "{heard}");
}

#[tokio::test]
async fn we_authenticate_and_a_wrong_password_is_our_fault_and_not_the_mails() {
    for tls in ["starttls", "none"] {
        let who = ["--user", "keyward", "--password", "s3cret"];
        let server = match tls {
            "none" => MailServer::start_with(&who).await,
            tls => MailServer::start_tls(tls, &who).await,
        };
        let config = |credentials: &str| {
            let ca = if tls == "none" { String::new() } else { format!("ca_file = \"{}\"", server.ca_file()) };
            server.config(&format!("tls = \"{tls}\"\n{ca}\n{credentials}"))
        };
        let sent = sent_with(&config("username = \"keyward\"\npassword = \"s3cret\"")).await;
        assert_eq!(sent.state, MailState::Sent, "{tls}: {sent:?}");
        assert_eq!(server.letters()[0].user.as_deref(), Some("keyward"));
        let wrong = sent_with(&config("username = \"keyward\"\npassword = \"hunter2\"")).await;
        assert_kept(&wrong, &["535"]);
        assert!(!wrong.last_error.unwrap_or_default().contains("hunter2"));
        // The server says 530, which at any step is about us.
        assert_kept(&sent_with(&config("")).await, &["530"]);
        assert_eq!(server.letters().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_keeps_us_waiting_is_tried_again() {
    let mut server = MailServer::start().await;
    let config = server.config("tls = \"none\"\ntimeout = \"1s\"");
    let provider = Provider::start_with(Backend::Sqlite, "https://id.test", &config).await;
    let app = &provider.app;
    let slow = queue(app, "slow@school.test").await;
    send_due(app).await;
    assert_kept(&mail(app, &slow).await, &["took longer than 1s"]);
    server.set_away(true).await;
    let id = queue(app, "ann@school.test").await;
    send_due(app).await;
    assert_kept(&mail(app, &id).await, &["refused"]);
    server.set_away(false).await;
    // An operator need not wait for its next time.
    assert_eq!(app.store.retry_mail(&id, app.now()).await.expect("an answer"), Retried::Hastened);
    send_due(app).await;
    assert_eq!(state(app, &id).await, MailState::Sent);
}

#[tokio::test]
async fn addresses_beyond_ascii_need_a_server_that_takes_them() {
    let server = MailServer::start().await;
    let provider = Provider::start_with(Backend::Sqlite, "https://id.test", &server.plain_config()).await;
    for to in ["änne@school.test", "ann@bücher.test"] {
        queue(&provider.app, to).await;
    }
    send_due(&provider.app).await;
    let mut reached: Vec<String> = server.letters().into_iter().map(|letter| letter.to).collect();
    reached.sort();
    assert_eq!(reached, ["ann@xn--bcher-kva.test", "änne@school.test"]);
}
