//! `ballast top`: how everything stands, once a second, in a terminal of 80×24 and larger.
//!
//! [`state`] is what is known and what is chosen, and decides what a key does; [`screen`] is how it
//! looks; [`rows`] is which lines there are. [`asker`] talks to the daemon on a thread of its own, so
//! that a daemon that does not answer never holds up a key. Here are the threads, the terminal, and how
//! it is given back.

mod asker;
mod history;
mod rows;
mod screen;
mod state;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Client, Reach};
use super::figures::speaks_unicode;
use super::printing::complain;
use asker::Order;
use screen::Look;
use state::{Input, Top};

/// Where the daemon is.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
}

/// The whole subcommand.
pub(super) fn run(options: &Options) -> ExitCode {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(
            io::stderr(),
            "ballast: top needs a terminal; for a script or a file there is 'ballast status'"
        );
        return ExitCode::FAILURE;
    }
    let client = match Client::find(&options.reach) {
        Ok(client) => client,
        Err(failure) => return complain(&failure),
    };
    let top = Top {
        locked: client.locked(),
        ..Top::new(client.address())
    };
    let (tell, news) = channel();
    let (orders, asked) = channel();
    asker::start(client, asked, tell.clone());
    watch_signals(tell.clone());
    // From here on a panic, too, gives the terminal back before it is told.
    let terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "ballast: this terminal cannot be used: {error}"
            );
            return ExitCode::FAILURE;
        }
    };
    watch_keys(tell);
    let outcome = show(terminal, top, &news, &orders);
    ratatui::restore();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ballast: the terminal is gone: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Something for the screen.
#[derive(Debug)]
enum News {
    /// A key, or another size.
    Terminal(Event),
    /// The daemon has answered, or not.
    Daemon(Input),
    /// It is over: a signal, or nobody is at the keys any more.
    End,
}

fn show(
    mut terminal: DefaultTerminal,
    mut top: Top,
    news: &Receiver<News>,
    orders: &Sender<Order>,
) -> io::Result<()> {
    let look = Look {
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        unicode: speaks_unicode(),
    };
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut top, look))?;
        let Ok(first) = news.recv() else {
            return Ok(());
        };
        // What has come meanwhile is shown at once: a held key does not wait for as many drawings.
        for one in std::iter::once(first).chain(news.try_iter().take(MOST_AT_ONCE)) {
            let input = match one {
                News::End => return Ok(()),
                News::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    Input::Key(key)
                }
                News::Terminal(_) => continue,
                News::Daemon(input) => input,
            };
            match top.take(input) {
                state::Next::Nothing => {}
                state::Next::Ask(order) => _ = orders.send(order),
                state::Next::Leave => return Ok(()),
            }
        }
    }
}

/// Reads keys for as long as there are any.
fn watch_keys(tell: Sender<News>) {
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if tell.send(News::Terminal(event)).is_err() {
                return;
            }
        }
        // Whoever listened is gone as well then.
        let _ = tell.send(News::End);
    });
}

/// The terminal is to be given back before the process ends.
fn watch_signals(tell: Sender<News>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // Without it the terminal is left as it is; `reset` helps.
    let Ok(runtime) = runtime else { return };
    thread::spawn(move || {
        runtime.block_on(async {
            let kinds = [
                SignalKind::terminate(),
                SignalKind::interrupt(),
                SignalKind::hangup(),
            ];
            let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            let _ = tell.send(News::End);
        });
    });
}

/// News that are taken before the next drawing.
const MOST_AT_ONCE: usize = 64;
