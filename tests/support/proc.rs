//! What the kernel knows about a process.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Once;

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_getfd, pidfd_open,
    set_parent_process_death_signal, setrlimit,
};
use socket2::{Socket, Type};

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .count()
}

/// Resident memory of a process.
pub fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most resident memory that a process has had.
pub fn peak_bytes(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("a live process has resident memory");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>();
    kilobytes.expect("it is a number of kB") * 1024
}

/// CPU time of all threads of a process, in clock ticks (10 ms).
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The second field is the name in parentheses, which may itself hold spaces.
    let (_, rest) = stat.rsplit_once(')').expect("stat names the program");
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || -> u64 {
        fields
            .next()
            .and_then(|field| field.parse().ok())
            .expect("utime and stime are numbers")
    };
    next() + next()
}

/// Has the kernel kill the process with the thread that starts it, however that one ends: a test
/// run that is killed leaves no servers behind.
#[expect(unsafe_code, reason = "nothing else runs between fork and exec")]
pub fn dies_with_its_test(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes one system call, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
        })
    }
}

/// Lets this process open as many descriptors as the machine allows; daemons inherit it.
pub fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )
        .expect("the soft limit may rise to the hard limit");
    });
}

/// Duplicates of every stream socket that a process has, to read their options.
pub fn sockets(pid: u32) -> Vec<Socket> {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
    let directory = format!("/proc/{}/fd", pid.as_raw_pid());
    let descriptors = fs::read_dir(directory).expect("it runs").flatten();
    let numbers = descriptors.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    // One that was closed meanwhile is none of those that are looked for.
    let all = numbers.filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
    all.map(Socket::from)
        .filter(|socket| socket.r#type().is_ok_and(|it| it == Type::STREAM))
        .collect()
}
