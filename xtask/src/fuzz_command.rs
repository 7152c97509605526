//! `cargo xtask fuzz`: lets libFuzzer look for input that makes a parser panic or lie.
//!
//! cargo-fuzz does the work; it is built once and kept under `target/tools`. It wants an unstable compiler only for the
//! sanitizers, so that any compiler will do that is allowed to think itself one (`RUSTC_BOOTSTRAP`). libFuzzer itself is
//! C++ and compiled from source.

use std::{
    collections::VecDeque,
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{ebpf, interrupt, packages, process, setup, workspace};

const CARGO_FUZZ: &str = "cargo-fuzz";
const VERSION: &str = "0.13.2";

/// How many lines of libFuzzer's are shown when it finds something: the panic, the input, how to repeat it.
const SHOWN_LINES: usize = 60;

/// What cargo-fuzz draws a line with under what libFuzzer said.
const RULE: char = '─';

/// Fuzz the parsers: of frames, of the configuration
#[derive(clap::Args)]
pub struct Args {
    /// Only this one; both else
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// How often it is run [default: 10000000 for parser, 100000 for configuration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    executions: Option<u64>,
    /// Run it with this input only, such as one that was found
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with = "executions")]
    input: Option<PathBuf>,
    /// Watch memory accesses as well, which takes about ten times as long
    #[arg(long)]
    address_sanitizer: bool,
}

/// A fuzz target: a program of the crate `fuzz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Any bytes as a frame, and as what an ICMP error quotes
    Parser,
    /// Any text as a configuration
    Configuration,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Configuration => "configuration",
        }
    }

    /// Some seconds' worth.
    fn default_executions(self) -> u64 {
        match self {
            Self::Parser => 10_000_000,
            Self::Configuration => 100_000,
        }
    }

    /// The longest input, in bytes: an Ethernet frame; a file that is longer than the example.
    fn longest_input(self) -> u32 {
        match self {
            Self::Parser => 1514,
            Self::Configuration => 16_384,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When something is missing, or the targets do not compile. Input that makes one fail is no error, but a failing exit
/// code.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(missing) = missing() {
        bail!(missing);
    }
    let fuzzer = Fuzzer {
        cargo_fuzz: ensure_cargo_fuzz()?,
        address_sanitizer: args.address_sanitizer,
    };
    let targets = args
        .target
        .map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    interrupt::forward_to_child()?;
    let mut code = ExitCode::SUCCESS;
    for target in targets {
        fuzzer.build(target)?;
        let executions = args.executions.unwrap_or(target.default_executions());
        let input = match &args.input {
            Some(file) => Input::File(file.clone()),
            None => Input::Any(executions),
        };
        if !fuzzer.run(target, &input)? {
            code = ExitCode::FAILURE;
        }
        if let Some(code) = interrupt::received() {
            eprintln!("interrupted in {}", target.name());
            return Ok(code);
        }
    }
    Ok(code)
}

/// What this machine lacks that cannot be had by cargo, in words.
pub fn missing() -> Option<String> {
    let has_compiler =
        env::var_os("CXX").is_some() || process::find("c++").is_some() || process::find("g++").is_some();
    (!has_compiler).then(|| {
        let install = packages::by_hand(&["g++".to_owned()]);
        format!("libFuzzer is C++, and there is no C++ compiler (c++, g++, or whatever CXX names): {install}")
    })
}

/// cargo-fuzz, built now if need be (about a minute).
fn ensure_cargo_fuzz() -> Result<PathBuf> {
    let tools = workspace::tools();
    let program = tools.join("bin").join(CARGO_FUZZ);
    if is_right_version(&program) {
        return Ok(program);
    }
    println!("building {CARGO_FUZZ} {VERSION}: about a minute, once");
    let build_directory = tools.join("build");
    let mut install = process::cargo();
    install
        .args([
            "install",
            CARGO_FUZZ,
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--quiet",
        ])
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(&build_directory);
    process::run(&mut install)?;
    fs::remove_dir_all(&build_directory)
        .with_context(|| format!("cannot remove {}", build_directory.display()))?;
    Ok(program)
}

fn is_right_version(program: &Path) -> bool {
    let answer = process::probe(Command::new(program).args(["fuzz", "--version"]));
    answer.is_some_and(|answer| answer.trim() == format!("{CARGO_FUZZ} {VERSION}"))
}

/// What a target is run with.
enum Input {
    /// So many inputs, which libFuzzer makes up.
    Any(u64),
    /// This one.
    File(PathBuf),
}

/// cargo-fuzz, and how it is to be run.
struct Fuzzer {
    cargo_fuzz: PathBuf,
    address_sanitizer: bool,
}

impl Fuzzer {
    fn command(&self, subcommand: &str, target: Target) -> Command {
        let mut fuzz = process::calling_cargo(self.cargo_fuzz.as_os_str());
        fuzz.env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", subcommand, "--fuzz-dir", "fuzz", "--sanitizer"])
            .arg(if self.address_sanitizer { "address" } else { "none" })
            .arg("--target-dir")
            .arg(workspace::root().join("target/fuzz"));
        if target == Target::Configuration {
            fuzz.args(["--features", "configuration"]);
        }
        fuzz.arg(target.name());
        fuzz
    }

    fn build(&self, target: Target) -> Result<()> {
        if target == Target::Configuration {
            // The daemon's library embeds the kernel program, and does not compile without it.
            setup::ensure(setup::Needs::Build)?;
            ebpf::build(&ebpf::Options::default())?;
        }
        process::run(&mut self.command("build", target))
    }

    /// Whether nothing was found.
    fn run(&self, target: Target, input: &Input) -> Result<bool> {
        let start = Instant::now();
        let mut command = self.command("run", target);
        match input {
            Input::Any(executions) => command.arg("--").arg(format!("-runs={executions}")),
            Input::File(file) => {
                let file = file
                    .canonicalize()
                    .with_context(|| format!("cannot find {}", file.display()))?;
                command.arg(file).arg("--")
            }
        };
        command
            .arg(format!("-max_len={}", target.longest_input()))
            .args(["-timeout=10", "-print_final_stats=1"])
            // A backtrace leads through libFuzzer, and what a panic says is lost before it.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", process::shown(&command)))?;
        let (status, said) = interrupt::wait(child, |child| {
            let stderr = child.stderr.take().context("the child has no standard error")?;
            Said::read(stderr)
        })?;
        if status.success() {
            println!("{}", said.summary(target, start.elapsed())?);
            return Ok(true);
        }
        for line in &said.last_lines {
            eprintln!("{line}");
        }
        let name = target.name();
        eprintln!("{name}: failed ({status})");
        if let Some(found) = &said.found {
            eprintln!("to repeat it: cargo xtask fuzz --target {name} --input {found}");
        }
        Ok(false)
    }
}

/// What libFuzzer said.
#[derive(Debug, Default)]
struct Said {
    executions: Option<u64>,
    /// The file with the input that was not stood.
    found: Option<String>,
    last_lines: VecDeque<String>,
}

impl Said {
    fn read(output: impl Read) -> Result<Self> {
        let mut said = Self::default();
        let mut is_cargos = false;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what the fuzzer says")?;
            let line = String::from_utf8_lossy(&line).into_owned();
            // What cargo-fuzz adds is of use only to who has it on the PATH.
            is_cargos |= line.starts_with(RULE);
            if !is_cargos {
                said.note(line);
            }
        }
        Ok(said)
    }

    fn note(&mut self, line: String) {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().ok();
        }
        if let Some((_, file)) = line.split_once("Test unit written to ") {
            self.found = Some(file.to_owned());
        }
        if self.last_lines.len() == SHOWN_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line);
    }

    fn summary(&self, target: Target, took: Duration) -> Result<String> {
        let executions = self
            .executions
            .context("the fuzzer does not say how often it ran")?;
        let name = target.name();
        Ok(format!(
            "{name}: executed {executions} times in {:.0} s, no crash",
            took.as_secs_f64()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executions_are_those_that_libfuzzer_counted() {
        let text = "#2\tINITED cov: 12\nDone 500 runs in 3 second(s)\nstat::number_of_executed_units: 501\nstat::peak_rss_mb: 30\n";
        let said = Said::read(text.as_bytes()).unwrap();
        let summary = said.summary(Target::Parser, Duration::from_millis(2600)).unwrap();
        assert_eq!(summary, "parser: executed 501 times in 3 s, no crash");
        assert!(
            Said::read(&b"Done 500 runs\n"[..])
                .unwrap()
                .summary(Target::Parser, Duration::ZERO)
                .is_err()
        );
    }

    #[test]
    fn of_a_crash_the_end_is_shown_and_where_the_input_is() {
        let lines: String = (0..1000).map(|line| format!("line {line}\n")).collect();
        let text =
            format!("{lines}artifact_prefix='a/'; Test unit written to a/crash-1\n────\nMinimize with:\n");
        let said = Said::read(text.as_bytes()).unwrap();
        assert_eq!(said.last_lines.len(), SHOWN_LINES);
        assert_eq!(
            said.last_lines.iter().rev().nth(1).map(String::as_str),
            Some("line 999")
        );
        assert_eq!(said.found.as_deref(), Some("a/crash-1"));
    }

    #[test]
    fn every_target_is_a_program_of_the_fuzz_crate() {
        let manifest = fs::read_to_string(workspace::root().join("fuzz/Cargo.toml")).unwrap();
        for target in Target::value_variants() {
            let name = target.name();
            assert!(
                manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"")),
                "{name}"
            );
            assert_eq!(
                target
                    .to_possible_value()
                    .map(|value| value.get_name().to_owned()),
                Some(name.to_owned())
            );
        }
    }
}
