//! What threads of this process have cost so far, by the kernel's count. Decides nothing.

use std::fs;
use std::time::Duration;

/// The processor time of all threads of this process with this name; none: there is no such thread, or no such count.
pub fn of_threads(name: &str) -> Option<Duration> {
    let mut sum = None;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim_end() == name {
            // The first number: nanoseconds on a processor.
            let count: u64 = read("schedstat").split_whitespace().next()?.parse().ok()?;
            sum = Some(sum.unwrap_or(Duration::ZERO) + Duration::from_nanos(count));
        }
    }
    sum
}

/// How busy the machine was of late: the mean number of threads that wanted a processor over the last minute, and how
/// many processors there are.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("load {load} on {processors} processors")
}
