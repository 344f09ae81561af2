//! What Linux says about this process (`proc(5)`); nothing elsewhere.

use std::fs;

pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

pub fn open_files() -> Option<usize> {
    // Reading the directory opens one more.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}
