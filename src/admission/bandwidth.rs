//! How fast bytes may flow: a bucket of tokens, kept as the one moment up to which it is used.
//!
//! The state is 64 bits, as that of a [`Rate`](super::Rate) is, so that sessions on several workers may share
//! one with a single atomic step. Whoever wants to move bytes *books* the time that they take. Time that
//! nobody has used is saved up, as much as the burst; if none is left, what is booked lies ahead, and those
//! who book are served in that order: each has one slice at a time, so nobody starves, and whoever has
//! much to move waits behind everybody else before each further slice. That is a leaky bucket as a queue, in
//! the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A). Times are nanoseconds
//! since any fixed moment.

use std::fmt;
use std::num::NonZeroU64;

/// So many bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(NonZeroU64);

/// How much unused time is saved up: several times what a wait may be longer than it was to be.
const BURST: u64 = SECOND / 10;
/// It is at least good for this many bytes, however slow they flow.
const LEAST_BURST: u64 = 4096;
/// What one session is given at a time lasts this long, …
const SLICE: u64 = SECOND / 200;
/// … but not so many bytes that a read is not worth its system call, …
const LEAST_SLICE: u64 = 1024;
/// … nor more than one direction moves before others get their turn.
const MOST_SLICE: u64 = 256 * 1024;
const SECOND: u64 = 1_000_000_000;

impl Bandwidth {
    /// So many bytes a second.
    pub fn new(bytes: NonZeroU64) -> Self {
        Self(bytes)
    }

    /// The bytes of one second.
    pub fn bytes(self) -> u64 {
        self.0.get()
    }

    /// What one session is given at a time: bytes.
    pub fn slice(self) -> u64 {
        self.bytes_in(SLICE).clamp(LEAST_SLICE, MOST_SLICE)
    }

    /// How many bytes may flow at `now` of a bucket that is used up to `used`, 0 at first.
    pub fn room(self, used: u64, now: u64) -> u64 {
        self.bytes_in(now.saturating_sub(self.since(used, now)))
    }

    /// Uses the time of `bytes`: up to when the bucket is used then. From that moment on they have been paid
    /// for, and may flow.
    pub fn book(self, used: u64, now: u64, bytes: u64) -> u64 {
        self.since(used, now).saturating_add(self.time_of(bytes))
    }

    /// How long so many bytes take, rounded up.
    pub fn time_of(self, bytes: u64) -> u64 {
        let nanos = (u128::from(bytes) * u128::from(SECOND)).div_ceil(self.0.get().into());
        u64::try_from(nanos).unwrap_or(u64::MAX / 4)
    }

    /// From when on time is left, or will be.
    fn since(self, used: u64, now: u64) -> u64 {
        let burst = BURST.max(self.time_of(LEAST_BURST));
        used.max(now.saturating_sub(burst))
    }

    /// How many flow in this time, rounded down.
    fn bytes_in(self, nanos: u64) -> u64 {
        let bytes = u128::from(nanos) * u128::from(self.bytes()) / u128::from(SECOND);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// `10MB/s`, in the largest unit that divides it.
impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        let units = [
            (1_000_000_000, "GB/s"),
            (1_000_000, "MB/s"),
            (1_000, "KB/s"),
        ];
        let fits = units
            .into_iter()
            .find(|(unit, _)| bytes.is_multiple_of(*unit));
        let (unit, name) = fits.unwrap_or((1, "B/s"));
        write!(f, "{}{name}", bytes / unit)
    }
}

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From the client.
    Backend,
    /// From the backend.
    Client,
}

/// The limits on bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// `limits.to_backend`: of all sessions together.
    ToBackend,
    /// `limits.to_client`
    ToClient,
    /// `limits.to_backend_per_session`
    ToBackendPerSession,
    /// `limits.to_client_per_session`
    ToClientPerSession,
}

impl Cap {
    /// All of them, each at its own number.
    pub const ALL: [Self; 4] = [
        Self::ToBackend,
        Self::ToClient,
        Self::ToBackendPerSession,
        Self::ToClientPerSession,
    ];

    /// That of all sessions together.
    pub fn of_all(toward: Toward) -> Self {
        match toward {
            Toward::Backend => Self::ToBackend,
            Toward::Client => Self::ToClient,
        }
    }

    /// That of each session.
    pub fn of_each(toward: Toward) -> Self {
        match toward {
            Toward::Backend => Self::ToBackendPerSession,
            Toward::Client => Self::ToClientPerSession,
        }
    }

    /// Its name, as in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::ToBackend => "to_backend",
            Self::ToClient => "to_client",
            Self::ToBackendPerSession => "to_backend_per_session",
            Self::ToClientPerSession => "to_client_per_session",
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bandwidth(bytes: u64) -> Bandwidth {
        Bandwidth::new(NonZeroU64::new(bytes).unwrap())
    }

    /// What a bucket saves up: bytes.
    fn burst(bandwidth: Bandwidth) -> u64 {
        bandwidth.room(0, u64::MAX / 4)
    }

    /// No window of these, each a time and so many bytes, has more than its bandwidth and `besides`.
    fn assert_within(bandwidth: Bandwidth, flowed: &[(u64, u64)], besides: u64) {
        for (at, (begin, _)) in flowed.iter().enumerate() {
            let mut sum = 0;
            for (end, bytes) in &flowed[at..] {
                sum += bytes;
                let most = bandwidth.bytes_in(end - begin) + besides;
                assert!(sum <= most + 1, "{sum} of {most} in {} ns", end - begin);
            }
        }
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_and_holds_a_slice_at_any_speed() {
        assert_eq!(burst(bandwidth(10_000_000)), 1_000_000);
        assert_eq!(burst(bandwidth(1)), LEAST_BURST);
        for bytes in [1, 1000, 204_800, 1_000_000, 52_428_800, 1_000_000_000_000] {
            let bandwidth = bandwidth(bytes);
            assert!(bandwidth.slice() <= burst(bandwidth), "{bandwidth}");
        }
    }

    #[test]
    fn each_cap_is_at_its_own_number() {
        for (at, cap) in Cap::ALL.into_iter().enumerate() {
            assert_eq!(cap as usize, at);
        }
    }

    #[test]
    fn bandwidths_are_told_as_they_are_written() {
        let told = [1_000, 1_500_000, 2_000_000_000, 1_234, 10_000_000].map(bandwidth);
        let told = told.map(|it| it.to_string());
        assert_eq!(told, ["1KB/s", "1500KB/s", "2GB/s", "1234B/s", "10MB/s"]);
    }

    /// Sessions that always have something to move share a bucket; each sees up to `late` nanoseconds too
    /// late that its slice may flow. What each has moved, and everything in order.
    fn share(
        bandwidth: Bandwidth,
        sessions: usize,
        late: u64,
        until: u64,
        random: &mut impl FnMut() -> u64,
    ) -> (Vec<u64>, Vec<(u64, u64)>, u64) {
        let (begin, slice) = (1_000 * SECOND, bandwidth.slice());
        let mut used = 0;
        let mut moved = vec![0; sessions];
        let mut flowed = Vec::new();
        let mut longest = 0;
        // When each moves what it has booked last, and when it has booked that.
        let mut next: Vec<_> = (0..sessions)
            .map(|_| {
                used = bandwidth.book(used, begin, slice);
                (used.max(begin), begin)
            })
            .collect();
        loop {
            let (at, (now, since)) = next
                .iter()
                .copied()
                .enumerate()
                .min_by_key(|it| it.1)
                .unwrap();
            if now > begin + until {
                return (moved, flowed, longest);
            }
            moved[at] += slice;
            flowed.push((now, slice));
            longest = longest.max(now - since);
            used = bandwidth.book(used, now, slice);
            let waits = used > now;
            let lateness = if waits && late > 0 {
                random() % late
            } else {
                0
            };
            next[at] = (used.max(now) + lateness, now);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn in_no_window_a_reader_gets_more_than_time_and_burst_allow(
            bytes in 1_000_u64..1_000_000_000,
            steps in prop::collection::vec((0..SECOND / 5, 1..300_000_u64), 1..120),
        ) {
            let bandwidth = bandwidth(bytes);
            let (mut used, mut now) = (0, 1_000 * SECOND);
            let mut flowed = Vec::new();
            for (gap, wanted) in steps {
                now += gap;
                let read = wanted.min(bandwidth.room(used, now));
                used = bandwidth.book(used, now, read);
                prop_assert!(used <= now, "what has room is paid for");
                flowed.push((now, read));
            }
            assert_within(bandwidth, &flowed, burst(bandwidth));
        }

        #[test]
        fn who_waits_for_a_slice_has_room_for_one_then(bytes in 1_u64..10_000_000_000, used in 0..SECOND) {
            let (bandwidth, now) = (bandwidth(bytes), 1_000 * SECOND);
            let used = now - used;
            let ready = bandwidth.book(used, now, bandwidth.slice());
            prop_assert!(bandwidth.room(used, ready.max(now)) >= bandwidth.slice());
        }

        #[test]
        fn sessions_that_share_get_all_of_it_and_not_more_and_none_starves(
            bytes in 200_000_u64..1_000_000_000,
            sessions in 1_usize..40,
            late in 0..SECOND / 25,
            seed in any::<u64>(),
        ) {
            let bandwidth = bandwidth(bytes);
            let mut state = seed | 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            // Long enough for a hundred rounds.
            let each = bandwidth.time_of(bandwidth.slice());
            let round = (each * sessions as u64).max(late);
            let until = 100 * round;
            let (moved, flowed, longest) = share(bandwidth, sessions, late, until, &mut random);
            let all: u64 = moved.iter().sum();
            let allowed = bandwidth.bytes_in(until) + burst(bandwidth);
            prop_assert!(all <= allowed, "{all} of {allowed}");
            prop_assert!(all >= allowed / 10 * 9, "{all} of {allowed}");
            // Nobody waits for longer than all the others and itself take …
            prop_assert!(longest <= each * sessions as u64 + late, "{longest}");
            // … so everybody has a good part of an even share, the burst left out, which the first may have.
            let even = (all - burst(bandwidth).min(all)) / sessions as u64;
            let least = *moved.iter().min().unwrap();
            prop_assert!(least >= even / 3, "{least} of {even}");
            let late = bandwidth.bytes_in(late);
            assert_within(bandwidth, &flowed[flowed.len().saturating_sub(300)..], burst(bandwidth) + late);
        }
    }
}
