//! HAProxy's agent-check line protocol: a server answers a connect with one line of words about
//! itself (HAProxy configuration manual, "agent-check").

use super::dialogue::{Answer, Dialogue, Received, Step};
use super::exchange::quoted;
use crate::health::{Agent, Duty, Percent, Verdict, Why};

/// The longest line.
const MOST_LINE: usize = 1024;

pub(super) struct Asking<'a> {
    send: &'a [u8],
    said: bool,
}

impl<'a> Asking<'a> {
    /// Says `send` first, which may be nothing.
    pub(super) fn new(send: &'a [u8]) -> Self {
        Self { send, said: false }
    }
}

impl Dialogue for Asking<'_> {
    fn next(&mut self, received: &mut Received) -> Step {
        if !std::mem::replace(&mut self.said, true) && !self.send.is_empty() {
            return Step::Say(self.send.to_vec());
        }
        let line = received.bytes.split(|&byte| matches!(byte, b'\r' | b'\n'));
        let line = line.into_iter().next().unwrap_or_default();
        let complete = line.len() < received.bytes.len() || received.ended;
        if line.len() > MOST_LINE {
            // Read as far as it goes, "100%" could be "10%".
            Step::dead(&format!("its line is longer than {MOST_LINE} bytes"))
        } else if complete {
            Step::Done(read(&String::from_utf8_lossy(line)))
        } else {
            Step::Listen
        }
    }

    fn lacks(&self, received: &Received) -> Option<String> {
        let begun = !received.bytes.is_empty();
        begun.then(|| format!("no whole line, got {}", quoted(&received.bytes)))
    }
}

/// What a line means. Each line is the whole of what the agent has to say: what it does not mention
/// is as configured. Words that HAProxy knows and Ballast does not, such as `maxconn:30`, are skipped.
fn read(line: &str) -> Answer {
    let mut agent = Agent::default();
    let mut verdict = None;
    let (words, description) = line.split_once('#').unwrap_or((line, ""));
    for word in words.split([' ', '\t', ',']).filter(|it| !it.is_empty()) {
        let percent = word.strip_suffix('%').map(str::parse::<u16>);
        match word.to_ascii_lowercase().as_str() {
            "up" | "ready" => verdict = verdict.or(Some(Verdict::Alive)),
            word @ ("down" | "fail" | "failed" | "stopped") => {
                let why = match description.trim() {
                    "" => format!("the agent says {word}"),
                    description => format!("the agent says {word}: {description}"),
                };
                verdict = Some(Verdict::Dead(Why::answer(&why)));
            }
            "drain" => {
                agent.duty = Duty::Drain;
                verdict = verdict.or(Some(Verdict::Alive));
            }
            "maint" => {
                agent.duty = Duty::Maintenance;
                verdict = verdict.or(Some(Verdict::Alive));
            }
            _ => {
                if let Some(Ok(percent)) = percent {
                    agent.weight = Percent::new(percent);
                    verdict = verdict.or(Some(Verdict::Alive));
                }
            }
        }
    }
    match verdict {
        Some(verdict) => Answer {
            verdict,
            agent: Some(agent),
            farewell: b"",
        },
        None => {
            let said = super::exchange::quoted(line.as_bytes());
            let why = format!("no word of an agent: {said}");
            Verdict::Dead(Why::answer(&why)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::testing::rehearse;
    use super::*;

    fn hear(line: &str) -> Answer {
        rehearse(&mut Asking::new(b""), line.as_bytes()).1
    }

    fn agent(line: &str) -> (bool, Agent) {
        let Answer { verdict, agent, .. } = hear(line);
        (verdict == Verdict::Alive, agent.unwrap())
    }

    fn asks(duty: Duty, percent: u16) -> Agent {
        Agent {
            duty,
            weight: Percent::new(percent),
        }
    }

    #[test]
    fn every_word_means_what_it_means_to_haproxy() {
        assert_eq!(agent("up\n"), (true, asks(Duty::Serve, 100)));
        assert_eq!(agent("ready\n"), (true, asks(Duty::Serve, 100)));
        assert_eq!(agent("75%\n"), (true, asks(Duty::Serve, 75)));
        assert_eq!(agent("drain\r\n"), (true, asks(Duty::Drain, 100)));
        assert_eq!(agent("maint\n"), (true, asks(Duty::Maintenance, 100)));
        assert_eq!(agent("UP 50%, maxconn:30\n"), (true, asks(Duty::Serve, 50)));
        assert_eq!(agent("0%\n"), (true, asks(Duty::Serve, 0)));
        for word in ["down", "fail", "failed", "stopped"] {
            assert!(!agent(word).0, "{word}");
        }
        assert!(!agent("up down\n").0, "down wins");
        assert!(!agent("down 75%\n").0, "down wins");
    }

    #[test]
    fn a_description_is_passed_on() {
        let Verdict::Dead(why) = hear("down # disk is full\n").verdict else {
            panic!("down");
        };
        assert_eq!(why.to_string(), "the agent says down: disk is full");
    }

    #[test]
    fn what_is_no_word_of_an_agent_is_dead_and_asks_for_nothing() {
        for line in ["", "\n", "hello\n", "x%\n", "99999%\n"] {
            let Answer { verdict, agent, .. } = hear(line);
            assert!(matches!(verdict, Verdict::Dead(_)), "{line:?}");
            assert_eq!(agent, None);
        }
    }

    #[test]
    fn a_line_that_does_not_end_in_time_is_dead() {
        let line = format!("up 100%{}\n", " ".repeat(MOST_LINE));
        let Answer { verdict, agent, .. } = hear(&line);
        assert!(matches!(verdict, Verdict::Dead(_)));
        assert_eq!(agent, None);
    }

    #[test]
    fn an_agent_may_be_asked_something() {
        let (said, _) = rehearse(&mut Asking::new(b"web-1\n"), b"up\n");
        assert_eq!(said, b"web-1\n");
    }
}
