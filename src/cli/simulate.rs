//! The command line of `simulate`: the events that are played on a simulated device, as words.

use clap::Args;
use std::fmt;

/// Play boots, health checks and updates on a directory that stands for a device, and print what happens
///
/// The words are played from left to right. The initramfs and the OS are played by simulate; everything else is done by
/// the code of the manager's own commands, on the files below --host-root. If that directory is empty, simulate makes a
/// device in it: two slots, of which A runs, the stock kernel, and no extension. Between two calls, the commands
/// status, override and history show the same device. The real host is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Words:
  deploy=NAME         create and start the extension NAME, whose image brings a kernel of its own
  remove=NAME         remove the container of this extension
  boot                boot as the initramfs decides; the kernel comes up
  boot-fails          the same, but the kernel never comes up
  healthy             validate runs; if a kernel is on trial, its health check passes
  unhealthy           validate runs; if a kernel is on trial, its health check fails
  no-check            validate runs; there is no health check
  update-begins       an OS update installs into the other slot, and opens the update window
  update-commits      hup commit runs, and the update window closes
  update-rolls-back   hup reject runs, and the device reboots into the other slot
  cut=N               power is cut after the Nth durable step of the next word, or after its last one

Examples:
  balena-extension-manager simulate --host-root DIR deploy=k boot healthy
  balena-extension-manager simulate --host-root DIR deploy=k boot-fails boot-fails boot-fails boot healthy
  balena-extension-manager simulate --host-root DIR deploy=k boot cut=2 unhealthy boot healthy

Exit status: 0 if every word was played, also if a command that was played has failed: its error is printed.
1 if a word cannot be played, such as healthy while the device is off. 2 for an invalid command line.")]
pub(crate) struct SimulateArguments {
    /// What happens, in this order
    #[arg(value_name = "WORD", required = true, value_parser = simulated_event)]
    pub(crate) events: Vec<SimulatedEvent>,
}

/// Something that happens to a simulated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SimulatedEvent {
    Deploy(SimulatedName),
    Remove(SimulatedName),
    Boot,
    BootFails,
    Healthy,
    Unhealthy,
    NoCheck,
    UpdateBegins,
    UpdateCommits,
    UpdateRollsBack,
    /// After this many durable steps of the next event.
    Cut(u32),
}

/// The name of a simulated extension: it can be a container's id, a service and a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SimulatedName(String);

impl SimulatedName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The words without a value.
const PLAIN: [(&str, SimulatedEvent); 8] = [
    ("boot", SimulatedEvent::Boot),
    ("boot-fails", SimulatedEvent::BootFails),
    ("healthy", SimulatedEvent::Healthy),
    ("unhealthy", SimulatedEvent::Unhealthy),
    ("no-check", SimulatedEvent::NoCheck),
    ("update-begins", SimulatedEvent::UpdateBegins),
    ("update-commits", SimulatedEvent::UpdateCommits),
    ("update-rolls-back", SimulatedEvent::UpdateRollsBack),
];

impl fmt::Display for SimulatedEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(name) => write!(formatter, "deploy={}", name.as_str()),
            Self::Remove(name) => write!(formatter, "remove={}", name.as_str()),
            Self::Cut(steps) => write!(formatter, "cut={steps}"),
            Self::Boot
            | Self::BootFails
            | Self::Healthy
            | Self::Unhealthy
            | Self::NoCheck
            | Self::UpdateBegins
            | Self::UpdateCommits
            | Self::UpdateRollsBack => {
                let word = PLAIN.iter().find(|(_, event)| event == self);
                formatter.write_str(word.map_or("", |(word, _)| word))
            }
        }
    }
}

/// Why a word is refused. The parser names the word.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidWord {
    #[error("the words are deploy=NAME, remove=NAME, cut=N, {}", PLAIN.map(|(word, _)| word).join(", "))]
    Word,
    #[error("NAME has 1 to 32 lowercase letters, digits and -, and begins with a letter")]
    Name,
    #[error("N is a number of steps")]
    Steps,
}

fn simulated_event(word: &str) -> Result<SimulatedEvent, InvalidWord> {
    match word.split_once('=') {
        Some(("deploy", name)) => simulated_name(name).map(SimulatedEvent::Deploy),
        Some(("remove", name)) => simulated_name(name).map(SimulatedEvent::Remove),
        Some(("cut", steps)) => {
            steps.parse().map(SimulatedEvent::Cut).map_err(|_| InvalidWord::Steps)
        }
        Some(_) | None => {
            let plain = PLAIN.into_iter().find(|(plain, _)| *plain == word);
            plain.map(|(_, event)| event).ok_or(InvalidWord::Word)
        }
    }
}

fn simulated_name(text: &str) -> Result<SimulatedName, InvalidWord> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    match begins && text.len() <= 32 && text.bytes().all(is_plain) {
        true => Ok(SimulatedName(text.to_owned())),
        false => Err(InvalidWord::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_it_is_printed() {
        let words = PLAIN.map(|(word, _)| word);
        for word in words.into_iter().chain(["deploy=k-1", "remove=k", "cut=0", "cut=12"]) {
            assert_eq!(simulated_event(word).unwrap().to_string(), word);
        }
    }

    #[test]
    fn another_word_is_refused_with_the_list_of_words() {
        for word in ["", "frob", "Boot", "boot=1", "healthy=", "deploy", "cut"] {
            assert_eq!(simulated_event(word), Err(InvalidWord::Word), "{word}");
        }
        let list = InvalidWord::Word.to_string();
        assert!(PLAIN.iter().all(|(word, _)| list.contains(word)), "{list}");
        for name in ["", "-k", "1k", "K", "a/b", "..", "a_b", &"k".repeat(33)] {
            let refused = simulated_event(&format!("deploy={name}"));
            assert_eq!(refused, Err(InvalidWord::Name), "{name}");
        }
        for steps in ["", "-1", "x", "4294967296"] {
            let refused = simulated_event(&format!("cut={steps}"));
            assert_eq!(refused, Err(InvalidWord::Steps), "{steps}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidWord {
        Word, Name, Steps,
    }
}
