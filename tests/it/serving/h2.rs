//! As much of an HTTP/2 client (RFC 9113) as it takes to misbehave with one.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const INITIAL_WINDOW_SIZE: u16 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// All whole frames in what was read.
pub fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push(Frame { kind: head[3], flags: head[4], stream, payload: payload.to_vec() });
        bytes = rest;
    }
    frames
}

pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    /// `window` is what each answer may send before it is asked to go on.
    pub async fn open(mut stream: TcpStream, window: u32) -> Self {
        let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        setting.extend(window.to_be_bytes());
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &setting));
        if let Some(more @ 1..) = window.checked_sub(65_535) {
            bytes.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
        }
        stream.write_all(&bytes).await.expect("written");
        Self { stream }
    }

    /// Sends a GET without a body.
    pub async fn request(&mut self, stream: u32, path: &str) {
        // RFC 7541: GET and http by their index, then two literals with indexed names.
        let mut block = vec![0x82, 0x86];
        for (name, value) in [(0x04, path), (0x01, "id.test")] {
            block.extend([name, u8::try_from(value.len()).expect("short")]);
            block.extend(value.as_bytes());
        }
        self.stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).await.expect("written");
    }

    /// The next frame, settings and pings acknowledged on the way. `None` once the other side has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let next = tokio::time::timeout(super::PATIENCE, read(&mut self.stream)).await.expect("a frame in time")?;
            if matches!(next.kind, SETTINGS | PING) && next.flags & ACK == 0 {
                let payload = if next.kind == PING { next.payload.clone() } else { Vec::new() };
                self.stream.write_all(&frame(next.kind, ACK, 0, &payload)).await.expect("written");
            }
            if !matches!(next.kind, SETTINGS | PING | WINDOW_UPDATE) {
                return Some(next);
            }
        }
    }

    /// The body of the answer with status 200.
    pub async fn answer(&mut self, stream: u32) -> String {
        let mut body = Vec::new();
        loop {
            let next = self.next().await.expect("an answer");
            assert!(next.stream == stream || next.kind == GOAWAY, "{next:?}");
            match next.kind {
                // 200 is the eighth of the static table.
                HEADERS => assert_eq!(next.payload[0], 0x88, "{next:?}"),
                DATA => body.extend(&next.payload),
                GOAWAY => continue,
                _ => panic!("{next:?}"),
            }
            if next.flags & END_STREAM != 0 {
                return String::from_utf8(body).expect("text");
            }
        }
    }

    pub async fn get(&mut self, stream: u32, path: &str) -> String {
        self.request(stream, path).await;
        self.answer(stream).await
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    let all = [&head[..], &payload].concat();
    frames(&all).pop()
}
