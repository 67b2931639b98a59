//! What the system tells of this process.

/// Bytes of an entry of /proc/self/status, such as VmRSS (resident now) or VmHWM (resident at most so far); `None` where there is none.
pub fn process_memory(entry: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(entry)?.strip_prefix(':'))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
