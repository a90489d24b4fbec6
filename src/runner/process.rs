//! The runner itself: reads jobs from its standard input, runs them, writes back what they came to.
//! It ends when the daemon does, and takes with it whatever still runs.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::frame::{read, write};
use super::{Ended, Job, Outcome, deaf, disarm};

/// Programs that run at a time; others wait for their turn.
const AT_A_TIME: usize = 64;
/// What a program wrote is there when it has ended; only what it left running may write on.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Runs jobs until the daemon closes its end.
pub(super) fn serve() -> io::Result<()> {
    // How `ps` and `top` tell it from the daemon.
    let _ = rustix::thread::set_name(c"ballast-runner");
    disarm();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work());
    runtime.shutdown_background();
    outcome
}

async fn work() -> io::Result<()> {
    let _deaf = deaf();
    let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let (mut incoming, outgoing) = UnixStream::from_std(socket)?.into_split();
    let outgoing = Arc::new(Mutex::new(outgoing));
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    // Dropped at the end, and with it every program that still runs.
    let mut jobs = JoinSet::new();
    while let Some((number, job)) = read::<Job>(&mut incoming).await? {
        while jobs.try_join_next().is_some() {}
        let (outgoing, turns) = (Arc::clone(&outgoing), Arc::clone(&turns));
        jobs.spawn(async move {
            let outcome = run(job, &turns).await;
            answer(&outgoing, number, &outcome).await;
        });
    }
    Ok(())
}

async fn answer(outgoing: &Mutex<OwnedWriteHalf>, number: u64, outcome: &Outcome) {
    // There always is a frame: what is kept of an output is short.
    if let Some(frame) = write(number, outcome) {
        // A daemon that is gone needs no answer; the loop above sees it too.
        let _ = outgoing.lock().await.write_all(&frame).await;
    }
}

async fn run(job: Job, turns: &Semaphore) -> Outcome {
    let deadline = Instant::now() + job.timeout;
    let Ok(Ok(_turn)) = timeout_at(deadline, turns.acquire()).await else {
        return Outcome::not_started(format!("{AT_A_TIME} others were running all the time"));
    };
    match start(&job) {
        Ok((group, output)) => group.see_through(job.stdin, output, deadline).await,
        Err(error) => Outcome::not_started(error.to_string()),
    }
}

fn start(job: &Job) -> io::Result<(Group, Receiver)> {
    let (output, both) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let stdin = match job.stdin.as_slice() {
        [] => Stdio::null(),
        _ => Stdio::piped(),
    };
    let child = Command::new(&job.program)
        .args(&job.args)
        .envs(job.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(Stdio::from(both.try_clone()?))
        .stderr(Stdio::from(both))
        .process_group(0)
        .spawn()?;
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok((Group { child, id }, Receiver::from_owned_fd(output)?))
}

/// A program and whatever it has started, killed together unless it has ended by itself.
struct Group {
    child: Child,
    /// Its number, which is also its group's, while it has not been waited for.
    id: Option<Pid>,
}

impl Group {
    async fn see_through(mut self, input: Vec<u8>, output: Receiver, deadline: Instant) -> Outcome {
        let feeding = feed(self.child.stdin.take(), input);
        let mut kept = Vec::new();
        let ended = {
            let mut reading = std::pin::pin!(keep(output, &mut kept));
            let mut read_all = false;
            let ended = timeout_at(deadline, async {
                let waiting = self.child.wait();
                tokio::pin!(waiting);
                tokio::pin!(feeding);
                let mut fed = false;
                loop {
                    tokio::select! {
                        status = &mut waiting => break status,
                        () = &mut reading, if !read_all => read_all = true,
                        () = &mut feeding, if !fed => fed = true,
                    }
                }
            })
            .await;
            match ended {
                Ok(Ok(status)) => {
                    self.id = None;
                    if !read_all {
                        // Over when nothing holds the pipe any more, which is at once.
                        let _ = timeout(LAST_WORDS, reading).await;
                    }
                    how(status)
                }
                Ok(Err(error)) => Ended::NotStarted(error.to_string()),
                Err(_) => Ended::TimedOut,
            }
        };
        if self.id.is_some() {
            self.kill();
            // Killed for sure, so this is to reap it.
            let _ = self.child.wait().await;
            self.id = None;
        }
        Outcome {
            ended,
            output: kept,
        }
    }

    fn kill(&self) {
        if let Some(id) = self.id {
            // It may have ended this very moment.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn feed(stdin: Option<ChildStdin>, input: Vec<u8>) {
    if let Some(mut stdin) = stdin {
        // A program need not read what it is given.
        let _ = stdin.write_all(&input).await;
    }
}

/// Keeps the beginning of what is written, and reads the rest so that nobody has to wait.
async fn keep(mut output: Receiver, kept: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        let room = Outcome::MOST_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Signalled(signal),
        (None, None) => Ended::Exited(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_here(script: &str, stdin: &str, limit: Duration) -> Outcome {
        let job = Job {
            program: "sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: vec![("BALLAST_WORD".to_owned(), "a word".to_owned())],
            stdin: stdin.as_bytes().to_vec(),
            timeout: limit,
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(job, &Semaphore::new(1)))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_gets_its_input_and_environment_and_tells_its_code_and_output() {
        let outcome = run_here("cat; echo \"$BALLAST_WORD\" >&2; exit 3", "in ", LONG);
        assert_eq!(outcome.ended, Ended::Exited(3));
        assert_eq!(outcome.output, b"in a word\n");
    }

    #[test]
    fn a_program_that_reads_nothing_and_writes_too_much_still_ends() {
        let input = "x".repeat(256 * 1024);
        let outcome = run_here("head -c 1000000 /dev/zero", &input, LONG);
        assert_eq!(outcome.ended, Ended::Exited(0));
        assert_eq!(outcome.output.len(), Outcome::MOST_OUTPUT);
    }

    #[test]
    fn a_timeout_kills_what_the_program_has_started_too() {
        let outcome = run_here("sleep 1000 & echo $!; wait", "", Duration::from_millis(300));
        assert_eq!(outcome.ended, Ended::TimedOut);
        let grandchild = String::from_utf8(outcome.output).unwrap();
        let state = format!("/proc/{}/stat", grandchild.trim());
        // Killed, but somebody has yet to reap it.
        let gone = || match std::fs::read_to_string(&state) {
            Ok(stat) => stat.contains(") Z ") || stat.contains(") X "),
            Err(_) => true,
        };
        let started = std::time::Instant::now();
        while !gone() {
            assert!(started.elapsed() < LONG, "{state}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_program_leaves_running_does_not_hold_its_outcome_up() {
        let outcome = run_here("sleep 2 & echo done", "", LONG);
        assert_eq!(outcome.ended, Ended::Exited(0));
        assert_eq!(outcome.output, b"done\n");
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let job = Job {
            program: "/no/such/program".to_owned(),
            timeout: LONG,
            ..Job::default()
        };
        let outcome = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(job, &Semaphore::new(1)));
        let Ended::NotStarted(why) = outcome.ended else {
            panic!("{outcome:?}");
        };
        assert!(why.contains("No such file"), "{why}");
    }

    #[test]
    fn a_program_that_dies_tells_its_signal() {
        let outcome = run_here("kill -9 $$", "", LONG);
        assert_eq!(outcome.ended, Ended::Signalled(9));
    }
}
