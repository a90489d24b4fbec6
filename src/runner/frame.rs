//! Jobs and outcomes as bytes: a length, a number that pairs the two, and the fields in order. Both
//! ends are the same program, so there is no version to tell.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Ended, Job, Outcome};

/// The largest frame: an input with its program, arguments and environment.
const MOST: usize = 1 << 20;

/// What can go over the sockets.
pub(super) trait Frame: Sized {
    /// Appends itself.
    fn put(&self, to: &mut Vec<u8>);
    /// Takes itself off the front; `None` when it is not there.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// `content` as a frame with this number; `None` when it would be larger than [`MOST`].
pub(super) fn write(number: u64, content: &impl Frame) -> Option<Vec<u8>> {
    let mut frame = vec![0; size_of::<u32>()];
    number.put(&mut frame);
    content.put(&mut frame);
    let length = frame.len() - size_of::<u32>();
    let length = u32::try_from(length).ok().filter(|_| length <= MOST)?;
    frame[..size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
    Some(frame)
}

/// The next frame; `None` when the other end has closed.
///
/// # Errors
/// When the socket fails, or what came is no such frame.
pub(super) async fn read<T: Frame>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(u64, T)>> {
    let length = match from.read_u32_le().await {
        Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    let mut rest = bytes.as_slice();
    let number = u64::take(&mut rest);
    let content = T::take(&mut rest);
    match (number, content, rest) {
        (Some(number), Some(content), []) => Ok(Some((number, content))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Frame for u64 {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_le_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (number, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(Self::from_le_bytes(*number))
    }
}

impl Frame for Vec<u8> {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u64).put(to);
        to.extend_from_slice(self);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::take(from)?).ok()?;
        let (bytes, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(bytes.to_vec())
    }
}

impl Frame for String {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u64).put(to);
        to.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::take(from)?).ok()
    }
}

/// As many as the number in front says, each of which takes at least that much room itself.
fn take_all<T>(from: &mut &[u8], one: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = u64::take(from)?;
    (0..count).map(|_| one(from)).collect()
}

impl Frame for Job {
    fn put(&self, to: &mut Vec<u8>) {
        self.program.put(to);
        (self.args.len() as u64).put(to);
        self.args.iter().for_each(|arg| arg.put(to));
        (self.env.len() as u64).put(to);
        for (name, value) in &self.env {
            name.put(to);
            value.put(to);
        }
        self.stdin.put(to);
        u64::try_from(self.timeout.as_millis())
            .unwrap_or(u64::MAX)
            .put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(Self {
            program: String::take(from)?,
            args: take_all(from, String::take)?,
            env: take_all(from, |from| {
                Some((String::take(from)?, String::take(from)?))
            })?,
            stdin: Vec::take(from)?,
            timeout: Duration::from_millis(u64::take(from)?),
        })
    }
}

impl Frame for Outcome {
    fn put(&self, to: &mut Vec<u8>) {
        let (kind, number, text) = match &self.ended {
            Ended::Exited(code) => (0_u64, *code, ""),
            Ended::Signalled(signal) => (1, *signal, ""),
            Ended::TimedOut => (2, 0, ""),
            Ended::NotStarted(why) => (3, 0, why.as_str()),
        };
        kind.put(to);
        u64::from(number.cast_unsigned()).put(to);
        text.to_owned().put(to);
        self.output.put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let kind = u64::take(from)?;
        let number = u32::try_from(u64::take(from)?).ok()?.cast_signed();
        let text = String::take(from)?;
        let ended = match kind {
            0 => Ended::Exited(number),
            1 => Ended::Signalled(number),
            2 => Ended::TimedOut,
            3 => Ended::NotStarted(text),
            _ => return None,
        };
        Some(Self {
            ended,
            output: Vec::take(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn back<T: Frame>(mut bytes: &[u8]) -> io::Result<Option<(u64, T)>> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(read(&mut bytes))
    }

    fn ended() -> impl Strategy<Value = Ended> {
        prop_oneof![
            any::<i32>().prop_map(Ended::Exited),
            any::<i32>().prop_map(Ended::Signalled),
            Just(Ended::TimedOut),
            ".*".prop_map(Ended::NotStarted),
        ]
    }

    proptest! {
        #[test]
        fn a_job_arrives_as_it_was_sent(
            number: u64,
            program in ".*",
            args in prop::collection::vec(".*", 0..5),
            env in prop::collection::vec((".*", ".*"), 0..5),
            stdin: Vec<u8>,
            millis: u64,
        ) {
            let timeout = Duration::from_millis(millis);
            let job = Job { program, args, env, stdin, timeout };
            let frame = write(number, &job).unwrap();
            prop_assert_eq!(back(&frame).unwrap(), Some((number, job)));
        }

        #[test]
        fn an_outcome_arrives_as_it_was_sent(number: u64, ended in ended(), output: Vec<u8>) {
            let outcome = Outcome { ended, output };
            let frame = write(number, &outcome).unwrap();
            prop_assert_eq!(back(&frame).unwrap(), Some((number, outcome)));
        }

        #[test]
        fn noise_is_an_error_and_never_a_panic(mut noise in prop::collection::vec(any::<u8>(), 4..200)) {
            let length = u32::try_from(noise.len() - 4).unwrap();
            noise[..4].copy_from_slice(&length.to_le_bytes());
            if let Ok(Some((number, job))) = back::<Job>(&noise) {
                prop_assert_eq!(write(number, &job).unwrap(), noise);
            }
        }
    }

    #[test]
    fn what_the_other_end_would_not_take_is_not_written() {
        let with_input = |length| Job {
            stdin: vec![b'x'; length],
            ..Job::default()
        };
        let empty = write(1, &with_input(0)).unwrap().len() - size_of::<u32>();
        let most = write(1, &with_input(MOST - empty)).unwrap();
        assert!(matches!(back::<Job>(&most), Ok(Some(_))));
        assert_eq!(write(1, &with_input(MOST - empty + 1)), None);
    }

    #[test]
    fn a_closed_socket_is_an_end_and_a_huge_frame_an_error() {
        assert!(matches!(back::<Job>(&[]), Ok(None)));
        assert!(back::<Job>(&u32::MAX.to_le_bytes()).is_err());
    }
}
