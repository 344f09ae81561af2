//! Disks that fail: a small one of one's own that can be filled or shown read-only, and one whose system calls fail.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::{Running, run_by, wait_for};

/// Who is root needs no namespace of users to mount, and PostgreSQL refuses to run as.
pub(super) fn is_root() -> bool {
    ids().0 == 0
}

fn ids() -> (u32, u32) {
    let process = fs::metadata("/proc/self").expect("our process");
    (process.uid(), process.gid())
}

/// A file system in memory over a directory, seen only by the processes that run in it: a mount namespace that a
/// sleeping process keeps.
pub struct SmallDisk {
    keeper: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// `size` as mount(8) has it.
    pub fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).expect("a directory");
        let mut command = Command::new("unshare");
        if !is_root() {
            command.arg("--map-root-user");
        }
        let script = "mount -t tmpfs -o size=$2,mode=0777 tmpfs \"$1\" && echo mounted && exec sleep 3600";
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(at).arg(size);
        let mut keeper = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare (util-linux)");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("its output")).read_line(&mut line).expect("text");
        if line != "mounted\n" {
            let mut why = String::new();
            let _ = keeper.stderr.take().expect("its errors").read_to_string(&mut why);
            panic!(
                "this test needs a disk of its own, in a mount namespace: run it as root with CAP_SYS_ADMIN, or where \
                 user namespaces are allowed: {why}"
            );
        }
        Self { keeper, at: at.to_owned() }
    }

    fn enter(&self) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.keeper.id().to_string(), "--mount"]);
        if !is_root() {
            enter.args(["--user", "--preserve-credentials"]);
        }
        enter
    }

    /// The same command, on this disk.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = self.enter();
        // Entering leads to the root directory.
        let home = command.get_current_dir().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        inside.args(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(home);
        if !is_root() {
            // Whoever mounted is root in there; the command is to be who we are.
            let (user, group) = ids();
            inside.args(["unshare", "--user", &format!("--map-user={user}"), &format!("--map-group={group}")]);
        }
        run_by(inside, command)
    }

    /// A file on this disk as it is seen from here.
    pub fn path(&self, name: &str) -> PathBuf {
        let at = self.at.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.keeper.id().to_string()).join("root").join(at).join(name)
    }

    /// Takes every byte that is left.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.path("ballast")).expect("a file");
        while ballast.write_all(&[0; 4096]).is_ok() {}
        while ballast.write_all(&[0]).is_ok() {}
    }

    /// Gives the space back.
    pub fn free(&self) {
        fs::remove_file(self.path("ballast")).expect("removed");
    }

    /// Whoever opens a file from now on finds the disk read-only; files that are open stay as they are.
    pub fn show_read_only(&self) {
        self.run("mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"");
    }

    pub fn show_writable(&self) {
        self.run("umount --lazy \"$1\"");
    }

    fn run(&self, script: &str) {
        let ran = self.enter().args(["sh", "-c", script, "sh"]).arg(&self.at).output().expect("a shell");
        assert!(ran.status.success(), "{script}: {ran:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// System calls of a running process on some files fail, as those on a disk do that broke.
pub struct Sabotage(Running);

impl Sabotage {
    /// `calls` fail with `error`, both as strace(1) has them, where they concern one of `files`.
    pub async fn begin(process: u32, files: &[PathBuf], calls: &str, error: &str) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-p", &process.to_string()]);
        for file in files {
            command.arg("-P").arg(file);
        }
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={error}")]);
        let mut strace = Running::start(command, "");
        wait_for("strace to attach", async || {
            if let Some(ran) = strace.ended() {
                panic!("{}: {ran:?}", super::trace::NEEDS_PTRACE);
            }
            strace.stderr().contains("attached").then_some(())
        })
        .await;
        Self(strace)
    }

    pub async fn end(self) {
        self.0.terminate().await;
    }
}
