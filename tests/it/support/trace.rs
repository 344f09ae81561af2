//! What a process really asked of the kernel, in the order in which it did: the trace that strace(1) writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Running, run_by, wait_for};

pub const NEEDS_PTRACE: &str =
    "this test watches a process with strace, for which ptrace must be allowed (in a container: --cap-add SYS_PTRACE)";

/// Longer than a page of the database in the log, so that one finds in it what was written.
const BYTES: &str = "4200";

/// A command that runs `command` with a trace of its writes, syncs and sends. The process keeps its number.
pub fn traced(command: &Command, into: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-yy", "-s", BYTES, "-e", "trace=write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync"]);
    traced.arg("-o").arg(into);
    run_by(traced, command)
}

/// One call, from the line where it began to the line where it was done.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// Its arguments and result, as far as they were traced.
    pub text: String,
    pub begun: usize,
    pub done: usize,
}

impl Call {
    fn on(&self, name: &str) -> bool {
        let file = self.text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(file, _)| file);
        file.is_some_and(|file| file.ends_with(name))
    }

    /// It wrote to this file.
    pub fn writes(&self, file: &str) -> bool {
        matches!(self.name.as_str(), "write" | "pwrite64" | "writev") && self.on(file)
    }

    /// It made sure that this file is on the disk.
    pub fn syncs(&self, file: &str) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.on(file) && self.text.trim_end().ends_with("= 0")
    }

    /// It sent the beginning of the answer with this request id.
    pub fn answers(&self, request_id: &str) -> bool {
        self.text.contains("<TCP:[")
            && self.text.contains("HTTP/1.1 ")
            && self.text.contains(&format!("x-request-id: {request_id}\\r\\n"))
    }
}

/// Ends the traced process and reads its trace once that is complete.
pub async fn end(process: Running, path: PathBuf) -> Vec<Call> {
    let id = process.id().to_string();
    // Short numbers are filled up with spaces.
    let is_end = |line: &str| line.strip_prefix(&id).is_some_and(|rest| rest.trim_start().starts_with("+++ exited"));
    process.terminate().await.ok();
    let text = wait_for("the end of the trace", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().any(is_end).then_some(text)
    });
    parse(&text.await)
}

fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    // Calls of a thread that wait for their end, by thread.
    let mut open: Vec<(String, Call)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("<... ") {
            let Some(one) = open.iter().position(|(of, _)| of == thread) else { continue };
            let (_, mut call) = open.remove(one);
            call.text.push_str(rest);
            call.done = at;
            calls.push(call);
        } else if let Some((name, arguments)) = line.split_once('(') {
            let call = Call { name: name.to_owned(), text: arguments.to_owned(), begun: at, done: at };
            if line.ends_with("<unfinished ...>") {
                open.push((thread.to_owned(), call));
            } else {
                calls.push(call);
            }
        }
    }
    calls.sort_by_key(|call| call.begun);
    calls
}
