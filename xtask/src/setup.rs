//! `cargo xtask setup`: makes this machine able to build the load balancer and to run its lab.
//!
//! Every other command calls [`ensure`] first, so nobody has to know that this one exists.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};

use crate::{
    linker::{self, Linker},
    packages::{self, Installer},
    toolchain::Toolchain,
};

/// Install what building and the lab need, or say what is missing
#[derive(clap::Args)]
pub struct Args {
    /// Only report; install nothing, and fail if something is missing
    #[arg(long)]
    check: bool,
    /// Say what was found, not only what was done
    #[arg(long, short)]
    verbose: bool,
}

/// How much of the machine's equipment a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A compiler and a linker for BPF.
    Build,
    /// Those, and the lab's servers and tools.
    Lab,
    /// Those, and what only tests use.
    Tests,
}

/// The LLVM that Debian's compiler uses today: a guess, to save a second round of apt while there is no compiler that
/// could be asked.
const LIKELY_LLVM: u32 = 22;

/// Runs the command.
///
/// # Errors
/// When something is missing that cannot be installed from here; the message says what to do.
pub fn run(args: &Args) -> Result<ExitCode> {
    let toolchain = if args.check {
        let missing = Missing::survey(Needs::Lab);
        if !missing.is_nothing() {
            bail!("{}", missing.advice());
        }
        Toolchain::find()?
    } else {
        ensure(Needs::Lab)?
    };
    if args.verbose {
        println!("compiler for BPF: {}", toolchain.description());
        println!("linker for BPF: {}", describe(&linker::find(&toolchain)));
        println!("servers and tools of the lab: all there");
    }
    println!("ready: cargo xtask build");
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing and returns the toolchain. Where nothing is missing it costs a tenth of a second.
///
/// # Errors
/// When something is missing that cannot be installed from here; the message says what to do.
pub fn ensure(needs: Needs) -> Result<Toolchain> {
    install_missing(needs)?;
    let toolchain = Toolchain::find()?;
    linker::ensure(&toolchain)?;
    Ok(toolchain)
}

/// Two rounds: only the compiler, once installed, says for certain which LLVM its linker needs.
fn install_missing(needs: Needs) -> Result<()> {
    for _ in 0..2 {
        let missing = Missing::survey(needs);
        if missing.has_all_packages() {
            return Ok(());
        }
        let mut installer = Installer::new().map_err(|error| anyhow!("{error:#}\n{}", missing.advice()))?;
        if !missing.lab.is_empty() {
            installer.install(&missing.lab)?;
        }
        if !missing.compiler.is_empty() {
            let installed = installer.install(&missing.compiler);
            installed.map_err(|error| anyhow!("{error:#}\n{WITHOUT_APT}"))?;
        }
    }
    let missing = Missing::survey(needs);
    if !missing.has_all_packages() {
        bail!(
            "apt-get succeeded, and yet something is missing: {}",
            missing.advice()
        );
    }
    Ok(())
}

/// For systems whose packages have no compiler for BPF.
const WITHOUT_APT: &str = "or, instead of Debian's compiler: `rustup toolchain install nightly --component rust-src` and \
     `cargo binstall bpf-linker`";

/// What is not there.
struct Missing {
    lab: Vec<String>,
    compiler: Vec<String>,
    linker: bool,
    /// Why the installed compilers will not do.
    reason: Option<String>,
}

impl Missing {
    fn survey(needs: Needs) -> Self {
        let lab = match needs {
            Needs::Build => Vec::new(),
            Needs::Lab => packages::missing_for_lab(),
            Needs::Tests => [packages::missing_for_lab(), packages::missing_for_tests()].concat(),
        };
        let llvm_package = |llvm| format!("llvm-{llvm}-dev");
        let (compiler, linker, reason) = match Toolchain::find() {
            Err(error) => {
                let likely_llvm = llvm_package(LIKELY_LLVM);
                let packages = packages::COMPILER
                    .map(str::to_owned)
                    .into_iter()
                    .chain([likely_llvm]);
                (packages.collect(), true, Some(format!("{error:#}")))
            }
            Ok(toolchain) => match linker::find(&toolchain) {
                Linker::Ready(_) => (Vec::new(), false, None),
                Linker::Buildable(_) => (Vec::new(), true, None),
                Linker::NeedsLlvm(llvm) => (vec![llvm_package(llvm)], true, None),
            },
        };
        Self {
            lab,
            compiler,
            linker,
            reason,
        }
    }

    fn has_all_packages(&self) -> bool {
        self.lab.is_empty() && self.compiler.is_empty()
    }

    fn is_nothing(&self) -> bool {
        self.has_all_packages() && !self.linker
    }

    fn advice(&self) -> String {
        let mut lines: Vec<String> = self.reason.iter().cloned().collect();
        let packages: Vec<_> = self.lab.iter().chain(&self.compiler).cloned().collect();
        if !packages.is_empty() {
            lines.push(packages::by_hand(&packages));
        }
        if self.reason.is_some() {
            lines.push(WITHOUT_APT.to_owned());
        }
        if self.linker && packages.is_empty() {
            lines.push("bpf-linker is not built yet: run `cargo xtask setup`".to_owned());
        }
        lines.join("\n")
    }
}

fn describe(linker: &Linker) -> String {
    match linker {
        Linker::Ready(path) => path.display().to_string(),
        Linker::Buildable(prefix) => format!("not built yet; LLVM is in {}", prefix.display()),
        Linker::NeedsLlvm(llvm) => format!("not built yet; llvm-{llvm}-dev is missing"),
    }
}
