//! Which system calls the daemon may make, as a seccomp filter, seccomp(2).
//!
//! What is not in the list fails with ENOSYS, as on a kernel that has no such call. Killing the process
//! would turn an unforeseen call, of a new C library say, into an outage with every session lost; EPERM
//! would be an answer that libraries do not expect of a harmless call, while all of them know how to do
//! without one that is not there. The kernel's log says what was refused.
//!
//! Not in the list is above all what starts a program or another process, attaches to one, changes who one
//! is, mounts, loads into the kernel, or makes memory executable.

use std::collections::BTreeMap;
use std::io;
use std::process;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use thiserror::Error;

use super::Mode;

/// Why there is no filter.
#[derive(Debug, Error)]
pub(super) enum CallsError {
    /// Nobody has made a list for it.
    #[error("there is no list of calls for {}", std::env::consts::ARCH)]
    Architecture,
    /// A defect.
    #[error("{0}")]
    Compile(#[from] seccompiler::BackendError),
    /// By the kernel.
    #[error("{0}")]
    Refused(#[from] io::Error),
}

/// Lets only the calls of the list be made, by this thread and those that it starts.
pub(super) fn limit(mode: Mode) -> Result<(), CallsError> {
    let own = process::id();
    let otherwise = match mode {
        Mode::Enforce => SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        Mode::Tell => SeccompAction::Log,
    };
    let list = program(rules(own)?, otherwise, SeccompAction::Allow)?;
    rustix::thread::set_no_new_privs(true).map_err(io::Error::from)?;
    if mode == Mode::Enforce {
        // Its flags are behind a pointer, where no filter sees whether it is a thread that is started or a
        // process: the C library asks again with clone, whose flags are seen. A filter of its own, because
        // this is not worth a line in the kernel's log.
        let unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let unseen = program(
            unseen,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        )?;
        install(&unseen, 0)?;
    }
    Ok(install(&list, libc::SECCOMP_FILTER_FLAG_LOG)?)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, CallsError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH);
    let architecture = architecture.map_err(|_| CallsError::Architecture)?;
    program_for(architecture, rules, otherwise, listed)
}

fn program_for(
    architecture: TargetArch,
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, CallsError> {
    let filter = SeccompFilter::new(rules, otherwise, listed, architecture)?;
    Ok(filter.try_into()?)
}

/// The list, for the process with this number.
fn rules(own: u32) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    for call in LEGACY {
        rules.insert(*call, Vec::new());
    }
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<_>, _> {
        let one = |value: &u64| rule(argument, SeccompCmpOp::Eq, *value);
        values.iter().map(one).collect()
    };
    let without = |argument: u8, bits: u64| rule(argument, SeccompCmpOp::MaskedEq(bits), 0);
    // A thread, never a process.
    let thread = flag(libc::CLONE_THREAD);
    rules.insert(
        libc::SYS_clone,
        vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?],
    );
    // Memory is written or executed, and what was written does not become executable.
    let (write, execute) = (flag(libc::PROT_WRITE), flag(libc::PROT_EXEC));
    rules.insert(
        libc::SYS_mmap,
        vec![without(2, write)?, without(2, execute)?],
    );
    rules.insert(libc::SYS_mprotect, vec![without(2, execute)?]);
    rules.insert(libc::SYS_socket, one_of(0, FAMILIES)?);
    rules.insert(libc::SYS_ioctl, one_of(1, REQUESTS)?);
    rules.insert(libc::SYS_prctl, one_of(0, OPTIONS)?);
    // Its own urgency, which without a capability it can only lower.
    rules.insert(libc::SYS_setpriority, one_of(1, &[0])?);
    // An abort is a signal to itself.
    rules.insert(libc::SYS_tgkill, one_of(0, &[u64::from(own)])?);
    Ok(rules)
}

fn rule(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    // Every argument that is looked at is an int of C, whose upper half the kernel ignores.
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?])
}

/// A constant of C, as the kernel sees it in a register.
const fn flag(value: i32) -> u64 {
    value.cast_unsigned() as u64
}

/// The kernel is to have no more than this thread under it: there is no other yet, and TSYNC is the proof.
#[expect(
    unsafe_code,
    reason = "seccompiler sets neither the flag that logs what is refused nor the one that leaves processors their speed"
)]
fn install(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<()> {
    let length = u16::try_from(program.len());
    let filter = libc::sock_fprog {
        len: length.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // Without the latter, kernels before 5.16 mitigate against Spectre as if this process ran code of
    // strangers, which costs speed.
    let flags = flags | libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: seccomp(2) reads `len` instructions behind `filter`, which are those of `program`; the
    // crate's `sock_filter` is the kernel's, as libc's is, and the kernel writes nothing.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    match outcome {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!(
            "thread {thread} was there before"
        ))),
    }
}

/// TCP, and Unix sockets for operators, the service manager and the runner.
const FAMILIES: &[u64] = &[
    flag(libc::AF_UNIX),
    flag(libc::AF_INET),
    flag(libc::AF_INET6),
];

/// What sockets have waiting, and whether the log goes to a terminal.
const REQUESTS: &[u64] = &[
    libc::FIONBIO,
    libc::FIONREAD,
    libc::FIOCLEX,
    libc::TIOCOUTQ,
    libc::TIOCGWINSZ,
    libc::TCGETS,
    // What TCGETS is in C libraries since 2025.
    0x802c_542a,
    // SIOCGIFINDEX and SIOCGIFNAME: names of interfaces.
    0x8933,
    0x8910,
];

/// Names of threads and of memory.
const OPTIONS: &[u64] = &[
    flag(libc::PR_SET_NAME),
    flag(libc::PR_GET_NAME),
    flag(libc::PR_SET_VMA),
];

/// Whatever their arguments are.
const CALLS: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getpriority,
    libc::SYS_getcpu,
    // Signals, and the end of the keeper.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Itself and the machine.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getcwd,
    // Descriptors.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_splice,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    // Files.
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_ftruncate,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Sockets.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
];

/// Older names of some of the above, which only this architecture still has.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
/// renameat, by which the C library renames here; the crate does not name it.
#[cfg(target_arch = "aarch64")]
const LEGACY: &[c_long] = &[38];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const LEGACY: &[c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_becomes_a_program_that_fits() {
        let rules = rules(process::id()).unwrap();
        let program = program(
            rules,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
            SeccompAction::Allow,
        );
        // BPF_MAXINSNS
        assert!((100..4096).contains(&program.unwrap().len()));
    }

    #[test]
    fn no_call_of_an_intruder_is_in_the_list() {
        let rules = rules(process::id()).unwrap();
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kill,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_capset,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_memfd_create,
            libc::SYS_init_module,
            libc::SYS_keyctl,
            libc::SYS_seccomp,
        ] {
            assert!(!rules.contains_key(&call), "{call}");
        }
    }

    /// Calls of x86-64 that have no counterpart in the kernel's generic table, which aarch64 has
    /// (include/uapi/asm-generic/unistd.h): newer ones with more arguments took their places.
    #[cfg(target_arch = "x86_64")]
    const ONLY_HERE: &[c_long] = &[
        libc::SYS_access,
        libc::SYS_alarm,
        libc::SYS_arch_prctl,
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_creat,
        libc::SYS_dup2,
        libc::SYS_epoll_create,
        libc::SYS_epoll_wait,
        libc::SYS_eventfd,
        libc::SYS_fork,
        libc::SYS_futimesat,
        libc::SYS_getdents,
        libc::SYS_getpgrp,
        libc::SYS_inotify_init,
        libc::SYS_ioperm,
        libc::SYS_iopl,
        libc::SYS_lchown,
        libc::SYS_link,
        libc::SYS_lstat,
        libc::SYS_mkdir,
        libc::SYS_mknod,
        libc::SYS_modify_ldt,
        libc::SYS_open,
        libc::SYS_pause,
        libc::SYS_pipe,
        libc::SYS_poll,
        libc::SYS_readlink,
        libc::SYS_rename,
        libc::SYS_rmdir,
        libc::SYS_select,
        libc::SYS_signalfd,
        libc::SYS_stat,
        libc::SYS_symlink,
        libc::SYS_sysfs,
        libc::SYS_time,
        libc::SYS_unlink,
        libc::SYS_ustat,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_vfork,
    ];

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_is_not_of_this_architecture_alone_is_a_program_for_the_other_one_too() {
        let mut rules = rules(process::id()).unwrap();
        rules.retain(|call, _| !LEGACY.contains(call));
        let missing: Vec<_> = rules.keys().filter(|it| ONLY_HERE.contains(it)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let otherwise = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let listed = SeccompAction::Allow;
        let program = program_for(TargetArch::aarch64, rules, otherwise, listed).unwrap();
        assert!((100..4096).contains(&program.len()));
        // AUDIT_ARCH_AARCH64: a call by another architecture's numbers is none of these.
        assert!(program.iter().any(|it| it.k == 0xc000_00b7));
    }
}
