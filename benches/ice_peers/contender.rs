//! Whoever runs the programs: two of a kind, one in each home, that are let meet turn by turn.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use natlab::{Home, Host};

use super::{END_OF_DESCRIPTION, Failure, PATIENCE};

/// What a program said of its turn.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub(crate) connected: bool,
    /// By the monotonic clock.
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
}

/// Two programs of one kind, a home's each.
pub(crate) struct Contender {
    pub(crate) name: String,
    programs: [Program; 2],
}

impl Contender {
    pub(crate) fn start(command: &str, homes: &[Home; 2], server: &str) -> Result<Self, Failure> {
        let [one, other] = homes.each_ref().map(|home| Program::start(&home.host, command, server));
        let programs = [one?, other?];
        let [name, _] = [programs[0].line()?, programs[1].line()?];
        Ok(Self { name, programs })
    }

    /// Lets the two meet; the sides change roles from round to round. `exchanging` is told false before they gather
    /// candidates, and true before they get the descriptions.
    pub(crate) fn turn(&mut self, round: usize, exchanging: &dyn Fn(bool)) -> Result<[Side; 2], Failure> {
        exchanging(false);
        for (number, program) in self.programs.iter_mut().enumerate() {
            program.say(if (round + number).is_multiple_of(2) { "controlling\n" } else { "controlled\n" })?;
        }
        let descriptions = [self.programs[0].description()?, self.programs[1].description()?];
        exchanging(true);
        for (program, description) in self.programs.iter_mut().zip(descriptions.iter().rev()) {
            program.say(description)?;
        }
        let sides = [self.programs[0].side()?, self.programs[1].side()?];
        self.programs.iter_mut().try_for_each(|program| program.say("end\n"))?;
        Ok(sides)
    }
}

/// A program, and what it says. Killed when dropped.
struct Program {
    command: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    fn start(host: &Host, command: &str, server: &str) -> Result<Self, Failure> {
        let mut words = command.split_whitespace();
        let mut process = Command::new(words.next().ok_or("an empty command")?);
        process.args(words).arg(server).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.within(|| process.spawn())?.map_err(|error| format!("{command}: {error}"))?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { command: command.to_owned(), child, input, lines })
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.input.write_all(text.as_bytes()).map_err(|error| format!("{}: {error}", self.command))?)
    }

    fn line(&self) -> Result<String, Failure> {
        Ok(self.lines.recv_timeout(PATIENCE * 2).map_err(|error| format!("{}: {error}", self.command))?)
    }

    fn description(&self) -> Result<String, Failure> {
        let mut text = String::new();
        while !text.contains(END_OF_DESCRIPTION) {
            text = text + &self.line()? + "\n";
        }
        Ok(text)
    }

    fn side(&self) -> Result<Side, Failure> {
        let line = self.line()?;
        let time = |text: &str| text.parse().map(Duration::from_nanos).ok();
        let side = match *line.split(' ').collect::<Vec<_>>() {
            [word @ ("connected" | "failed"), begun, ended] => {
                time(begun).zip(time(ended)).map(|(begun, ended)| Side { connected: word == "connected", begun, ended })
            }
            _ => None,
        };
        Ok(side.ok_or_else(|| format!("{} said {line:?}", self.command))?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
