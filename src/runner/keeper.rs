//! The runner's keeper: a process between the daemon and the runner that starts one, and another one when
//! the daemon asks because the first has died. It is there because the daemon is locked down once it runs:
//! whatever it started then would be locked down like it, and it may start nothing. The keeper does this
//! one thing, holds nothing, and listens to nobody else, so that there is little in it to go wrong.
//!
//! The daemon sends a number; the keeper answers with that number, with how the runner before has ended, and with
//! a socket whose other end is the next one's. An answer that comes too late is known by its number.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use super::{SUBCOMMAND, WORKER, deaf, disarm};

/// What a service manager tells its daemon, and nobody else.
const PRIVATE: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];
/// Starting a process takes no longer than this, or the machine is beyond help.
const ANSWER: Duration = Duration::from_secs(10);
/// An answer without a socket: the error number follows.
const FAILED: u8 = 0;
/// An answer with one: the status of the runner before follows, or [`NOBODY`].
const STARTED: u8 = 1;
/// No wait status: there was no runner before.
const NOBODY: i32 = -1;
/// One byte for the number of the request, one for the kind, and what follows it.
const REPLY: usize = 2 + size_of::<i32>();

/// A runner, and how the one before has ended.
type Started = io::Result<(StdStream, Option<ExitStatus>)>;

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Keeper {
    control: StdStream,
    child: Child,
    /// The number of the last request.
    asked: u8,
}

impl Keeper {
    /// Starts this very program again, as the keeper.
    pub(super) fn start() -> io::Result<Self> {
        let (control, theirs) = StdStream::pair()?;
        control.set_read_timeout(Some(ANSWER))?;
        let child = again(theirs, &[SUBCOMMAND]).spawn()?;
        Ok(Self {
            control,
            child,
            asked: 0,
        })
    }

    /// A runner, and how the one before has ended. Waits for the keeper, though not for long.
    pub(super) fn runner(&mut self) -> Started {
        self.asked = self.asked.wrapping_add(1);
        self.control.write_all(&[self.asked])?;
        loop {
            let (number, answer) = self.answer()?;
            // The runner of a late answer ends as its socket is dropped here.
            if number == self.asked {
                return answer;
            }
        }
    }

    /// The next answer, and the number of its request.
    fn answer(&self) -> io::Result<(u8, Started)> {
        let mut reply = [0; REPLY];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            recvmsg(
                &self.control,
                &mut [IoSliceMut::new(&mut reply)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let mut sockets = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        let socket = sockets.next();
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The answer is one small write, so that what is missing is on its way.
        (&self.control).read_exact(&mut reply[received.bytes..])?;
        let [asked, kind, number @ ..] = reply;
        let number = i32::from_le_bytes(number);
        let answer = match (kind, socket) {
            (STARTED, Some(socket)) => {
                let before = (number != NOBODY).then(|| ExitStatus::from_raw(number));
                Ok((socket.into(), before))
            }
            (FAILED, None) => Err(io::Error::from_raw_os_error(number)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
        Ok((asked, answer))
    }

    /// Whether it has ended itself; then nothing of it is left behind.
    pub(super) fn is_gone(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }
}

/// The keeper itself: starts runners until the daemon closes its end.
pub(super) async fn keep() -> io::Result<()> {
    let _deaf = deaf();
    let control = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(true)?;
    let mut control = UnixStream::from_std(control)?;
    let mut runner: Option<Child> = None;
    loop {
        let mut request = [0];
        if control.read(&mut request).await? == 0 {
            // The runner sees that its daemon is gone too.
            return Ok(());
        }
        let before = match runner.take() {
            // It was given up: dead, or of no use any more.
            Some(mut runner) => {
                let _ = runner.kill();
                runner.wait()?.into_raw()
            }
            None => NOBODY,
        };
        let started = next();
        let (kind, number, socket) = match &started {
            Ok((_, socket)) => (STARTED, before, Some(socket.as_fd())),
            Err(error) => (FAILED, error.raw_os_error().unwrap_or(0), None),
        };
        let [asked] = request;
        let mut reply = [asked, kind, 0, 0, 0, 0];
        reply[2..].copy_from_slice(&number.to_le_bytes());
        let sent = control.async_io(Interest::WRITABLE, || {
            let descriptors: Vec<_> = socket.into_iter().collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let reply = [IoSlice::new(&reply)];
            Ok(sendmsg(
                &control,
                &reply,
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?)
        });
        sent.await?;
        runner = started.ok().map(|(child, _)| child);
    }
}

/// A runner, and the daemon's end of its socket.
fn next() -> io::Result<(Child, OwnedFd)> {
    let (socket, theirs) = StdStream::pair()?;
    let child = again(theirs, &[SUBCOMMAND, WORKER]).spawn()?;
    Ok((child, socket.into()))
}

/// This very program, with one end of a socket as its input.
fn again(stdin: StdStream, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    for name in PRIVATE {
        command.env_remove(name);
    }
    command
        .arg0("ballast-runner")
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(Stdio::null());
    command
}

/// Runs the keeper in a runtime of its own.
pub(super) fn serve() -> io::Result<()> {
    // How `ps` and `top` tell it from the daemon; without it everything works.
    let _ = rustix::thread::set_name(c"ballast-keeper");
    disarm();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(keep())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_too_late_is_not_taken_for_the_next() {
        let (control, mut other) = StdStream::pair().unwrap();
        control
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let mut keeper = Keeper {
            control,
            child: Command::new("true").spawn().unwrap(),
            asked: 0,
        };
        assert!(keeper.runner().is_err(), "nobody answers");
        let failed = |number: u8, error: u8| [number, FAILED, error, 0, 0, 0];
        other.write_all(&failed(1, 5)).unwrap();
        other.write_all(&failed(2, 7)).unwrap();
        let error = keeper.runner().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(7));
    }
}
