//! Experiments that the harness (`tests/bench`) takes the samples of.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::experiment::{Effort, Experiment, Sample, Turn};
use super::measurement::Section;
use super::plan::Programs;
use super::protocol::{Answer, Request, Which};
use crate::test_command::{LBCTL, LBD, OBJECTS, XTASK};

/// One of them.
#[derive(Debug)]
pub struct Harness {
    programs: Programs,
    which: Which,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Harness {
    /// One of the harness among these programs.
    pub fn new(programs: &Programs, which: Which) -> Self {
        Self {
            programs: programs.clone(),
            which,
            running: None,
        }
    }

    fn start(&mut self) -> Result<()> {
        let Programs {
            lab,
            harness,
            objects,
        } = &self.programs;
        let mut command = Command::new(harness);
        command.arg("--serve");
        command.envs([
            (OBJECTS, objects),
            (LBD, &lab.lbd),
            (LBCTL, &lab.lbctl),
            (XTASK, &lab.xtask),
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.programs.harness.display()))?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        self.running = Some(Running {
            child,
            requests: requests.context("the harness has no standard input")?,
            answers: BufReader::new(answers.context("the harness has no standard output")?),
        });
        Ok(())
    }

    fn ask(&mut self, request: &Request) -> Result<Answer> {
        let running = self.running.as_mut().context("the harness does not run")?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        running
            .requests
            .write_all(line.as_bytes())
            .context("the harness does not listen")?;
        let mut answer = String::new();
        running
            .answers
            .read_line(&mut answer)
            .context("cannot hear the harness")?;
        if answer.is_empty() {
            let status = running.child.wait().context("the harness is gone")?;
            bail!("the harness has ended ({status})");
        }
        let answer = serde_json::from_str(&answer).with_context(|| format!("the harness says {answer}"))?;
        match answer {
            Answer::Failed(reason) => bail!("{reason}"),
            answer => Ok(answer),
        }
    }
}

impl Experiment for Harness {
    fn section(&self) -> Section {
        match self.which {
            Which::Packets => Section::Packet,
            Which::Forwarding => Section::Throughput,
            Which::Tables => Section::Control,
        }
    }

    fn name(&self) -> &str {
        match self.which {
            Which::Packets => "packets",
            Which::Forwarding => "forwarding",
            Which::Tables => "tables",
        }
    }

    fn set_up(&mut self, effort: &Effort) -> Result<Vec<Turn>> {
        self.start()?;
        let request = Request::SetUp {
            which: self.which,
            quick: effort.quick,
        };
        match self.ask(&request)? {
            Answer::Turns(turns) => Ok(turns),
            other => bail!("the harness was to make ready, and says {other:?}"),
        }
    }

    fn take(&mut self, turn: &Turn) -> Result<Sample> {
        match self.ask(&Request::Take(turn.clone()))? {
            Answer::Sample(sample) => Ok(sample),
            other => bail!("the harness was to take a sample, and says {other:?}"),
        }
    }

    /// It ends at the end of its input, and all that it had loaded with it.
    fn take_down(&mut self) -> Result<()> {
        let Some(Running {
            mut child, requests, ..
        }) = self.running.take()
        else {
            return Ok(());
        };
        drop(requests);
        child.wait().context("waiting for the harness")?;
        Ok(())
    }
}
