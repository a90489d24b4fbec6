//! The few system calls that no safe crate makes, and options that several files share.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes the next close of `fd` send RST and drop what was not sent.
pub(super) fn reset_on_close(fd: BorrowedFd<'_>) {
    // Fails only on a socket that is not connected any more, which has nobody to lie to.
    if let Err(error) = sockopt::set_socket_linger(fd, Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot set zero linger");
    }
}

/// Makes every socket of the process reset its peer when the process ends: for the moment before an
/// abort, after which the kernel would say FIN for sessions that were cut short.
#[expect(unsafe_code, reason = "descriptors are known by number only")]
pub fn reset_everything() {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = descriptors
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .collect::<Vec<_>>();
    for number in numbers {
        // SAFETY: the process is about to end, and the call neither closes nor reads; a number that
        // was closed meanwhile, or is no socket, is an error that does not matter.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = sockopt::set_socket_linger(descriptor, Some(Duration::ZERO));
    }
}

/// Sets an option that is a number, and that no safe crate sets.
#[expect(unsafe_code, reason = "no safe crate sets these options")]
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has `fd`, and what it accepts, pass only segments that came from at least so many hops to go:
/// 255 is nobody but a neighbour that means it, 0 is everybody (ip(7), ipv6(7), RFC 5082).
pub(super) fn require_hops(fd: BorrowedFd<'_>, ipv6: bool, hops: u8) -> io::Result<()> {
    let set = |level, option| set_option(fd, level, option, hops.into());
    if ipv6 {
        set(libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)?;
    }
    // An IPv6 socket that takes IPv4 clients too has both.
    match set(libc::IPPROTO_IP, libc::IP_MINTTL) {
        Err(_) if ipv6 => Ok(()),
        outcome => outcome,
    }
}

/// What TCP knows about the peer's acknowledgements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgements {
    /// Something sent, or waiting to be sent, is not acknowledged.
    pub(super) outstanding: bool,
    /// Retransmissions or window probes since the last acknowledgement.
    pub(super) unanswered: u8,
    /// Since the peer was last heard.
    pub(super) last_heard: Duration,
}

/// Reads TCP_INFO; `None` on a socket that has no such thing.
#[expect(unsafe_code, reason = "no safe crate reads TCP_INFO")]
pub(super) fn acknowledgements(fd: BorrowedFd<'_>) -> Option<Acknowledgements> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `info`, which outlives the call, and the kernel
    // writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: all bits of a tcp_info are valid in every pattern, and it was zeroed to begin with.
    let info = unsafe { info.assume_init() };
    Some(Acknowledgements {
        outstanding: info.tcpi_unacked > 0 || queued(fd) > 0,
        unanswered: info.tcpi_retransmits.max(info.tcpi_probes),
        last_heard: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}

/// Bytes in the send queue that are not acknowledged (SIOCOUTQ, tcp(7)); 0 when it cannot be told.
#[expect(unsafe_code, reason = "no safe crate asks SIOCOUTQ")]
pub(super) fn queued(fd: BorrowedFd<'_>) -> usize {
    let mut queued: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int through the pointer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut queued) };
    if result == 0 {
        usize::try_from(queued).unwrap_or(0)
    } else {
        0
    }
}

/// What the kernel has dropped at a listening socket since it was made, for lack of room in its queue in the
/// first place (SO_MEMINFO, sock_diag(7)); 0 when it cannot be told.
#[expect(unsafe_code, reason = "no safe crate reads SO_MEMINFO")]
pub(super) fn dropped(fd: BorrowedFd<'_>) -> u32 {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut info = [0_u32; DROPS + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `info`, which outlives the call, and the kernel
    // writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result == 0 { info[DROPS] } else { 0 }
}

/// Raises the soft descriptor limit to the hard one and tells the limit now in force.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the descriptor limit");
        return limit.current.unwrap_or(u64::MAX);
    }
    hard
}

/// Whether somebody, such as an NTP client, has told the kernel lately that its clock is right
/// (adjtimex(2)); `None` if the kernel does not say.
#[expect(unsafe_code, reason = "no safe crate calls adjtimex")]
pub fn clock_is_synchronised() -> Option<bool> {
    let mut asked = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeroes is a timex that changes nothing, and the call fills it in.
    let state = unsafe { libc::adjtimex(asked.as_mut_ptr()) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

/// Whether the peer of an accepted socket has reset it already. A FIN alone is no farewell: the
/// client may only have said that it is done asking.
pub(super) fn is_gone(fd: BorrowedFd<'_>) -> bool {
    matches!(peek(fd), Err(error) if error != Errno::AGAIN && error != Errno::INTR)
}

/// The same of a client at a path, whose farewell is whole: it neither hears an answer nor has said anything.
pub(super) fn has_left(fd: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let hung_up = poll(&mut asked, Some(&Timespec::default())).is_ok()
        && asked[0].revents().contains(PollFlags::HUP);
    is_gone(fd) || hung_up && !has_bytes(fd)
}

/// Whether there is something to read.
pub(super) fn has_bytes(fd: BorrowedFd<'_>) -> bool {
    matches!(peek(fd), Ok(1..))
}

fn peek(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(fd, &mut [0_u8; 1][..], flags).map(|(read, _)| read)
}
