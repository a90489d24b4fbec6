//! Which file a command is about that needs no daemon, when none is named: that of the daemon of this
//! machine, or the preset one where there is none. Whoever is not told would take the verdict on one file
//! for that on the other, so that anything else is said.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::door::{Address, told};
use super::{Client, Failure, Reach, environment};
use crate::api::View;
use crate::cli::CONFIGURATION;
use crate::cli::status::VIEW;

/// The file that is `named`, or that of the daemon that answers soon, or else the preset one.
pub(in crate::cli) fn file(named: Option<&Path>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let ask = || {
        let client = Client::find(&Reach::of(None))?.patient_for(PATIENCE);
        let view = client.get(VIEW)?;
        Ok((client, view))
    };
    match ask() {
        Ok((client, view)) => file_of(&Reach::of(None), Ok((&client, &view))),
        Err(failure) => file_of(&Reach::of(None), Err(&failure)),
    }
}

/// The same for whoever has `asked` the daemon already, or has failed to.
pub(in crate::cli) fn file_of(reach: &Reach, asked: Result<(&Client, &View), &Failure>) -> PathBuf {
    if let Some(named) = &reach.config {
        return named.clone();
    }
    let in_use = match asked {
        Ok((client, view)) => in_use(client.answered(), view),
        // One that somebody has named is missed; any other need not be there.
        Err(failure) if failure.is_absence() && !reach.names_a_daemon(environment().as_deref()) => {
            return CONFIGURATION.into();
        }
        // What to do about it is for whoever wants the daemon itself.
        Err(failure) => Err(failure.to_string().lines().take(1).collect()),
    };
    let (file, said) = match in_use {
        Ok(file) if file == Path::new(CONFIGURATION) => return file,
        Ok(file) => {
            let said = format!("about that of the running daemon: {}", file.display());
            (file, said)
        }
        Err(why) => {
            let said =
                format!("about {CONFIGURATION}; that of a running daemon may be another: {why}");
            (CONFIGURATION.into(), said)
        }
    };
    // With stderr closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "ballast: no file is named, so this is {said}");
    file
}

/// The file of the daemon that has told `view` at `address`, seen from where that process is; or why it is
/// not known here.
fn in_use(address: Option<&Address>, view: &View) -> Result<PathBuf, String> {
    if !address.is_some_and(Address::is_here) {
        return Err(match address {
            Some(address) => format!("the daemon at {address} may be on another machine"),
            None => "no daemon has answered".to_owned(),
        });
    }
    let Some(file) = view.process.configuration.path.as_deref() else {
        return Err("the daemon that answers has no file".to_owned());
    };
    let process = Path::new("/proc").join(view.process.pid.to_string());
    if !process.exists() {
        return Err("the process of the daemon that answers is not seen from here".to_owned());
    }
    let path = match Path::new(file) {
        whole if whole.is_absolute() => whole.to_owned(),
        part => fs::read_link(process.join("cwd"))
            .map_err(|error| format!("it is {file} from where it runs: {}", told(&error)))?
            .join(part),
    };
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err(format!("it is {}, which is not there", path.display())),
        Err(error) => Err(format!("it is {}: {}", path.display(), told(&error))),
    }
}

/// How long a daemon may take for its answer: there is something to do without it.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// What this very process would say if it were a daemon with that file.
    fn view(file: Option<&str>) -> View {
        let mut view = View::default();
        view.process.pid = std::process::id();
        view.process.configuration.path = file.map(str::to_owned);
        view
    }

    #[test]
    fn a_file_is_that_of_a_daemon_of_this_machine_only() {
        let view = view(Some("Cargo.toml"));
        for here in ["unix:/run/a.sock", "127.0.0.1:1", "[::1]:1", "localhost:1"] {
            let address: Address = here.parse().unwrap();
            let file = in_use(Some(&address), &view).unwrap();
            assert!(
                file.is_absolute() && file.ends_with("Cargo.toml"),
                "{file:?}"
            );
        }
        for elsewhere in ["192.0.2.1:1", "[2001:db8::1]:1", "lb1.internal:1"] {
            let address: Address = elsewhere.parse().unwrap();
            let why = in_use(Some(&address), &view).unwrap_err();
            let expected = format!("the daemon at {elsewhere} may be on another machine");
            assert_eq!(why, expected);
        }
    }

    #[test]
    fn why_a_file_is_not_known_is_told() {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        let why = |view: &View| in_use(Some(&address), view).unwrap_err();
        let none = "the daemon that answers has no file";
        assert_eq!(why(&view(None)), none);
        let gone = "it is /no/such.toml, which is not there";
        assert_eq!(why(&view(Some("/no/such.toml"))), gone);
        let mut elsewhere = view(Some("/etc/b.toml"));
        elsewhere.process.pid = u32::MAX;
        let unseen = "the process of the daemon that answers is not seen from here";
        assert_eq!(why(&elsewhere), unseen);
    }
}
