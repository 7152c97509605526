//! Manual pages and completion scripts, made from what the programs accept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

/// Commands for administrators (hier(7)).
const SECTION: &str = "8";

/// What can be printed for a program without parts.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Printed {
    /// The manual page, or the completion script of a shell
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Man,
    Bash,
    Fish,
    Zsh,
}

impl Printed {
    /// Prints it for `command`.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn print(self, mut command: Command, mut to: impl Write) -> io::Result<()> {
        let shell = match self.what {
            What::Man => return man(command).render(&mut to),
            What::Bash => Shell::Bash,
            What::Fish => Shell::Fish,
            What::Zsh => Shell::Zsh,
        };
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, name, &mut script);
        to.write_all(&script)
    }
}

/// Writes a page for `command` and one for each of its subcommands (`lbctl-backend-drain.8`) into a directory.
///
/// # Errors
/// One cannot be written.
pub fn write_pages(mut command: Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // Makes known to each command what comes before its name.
    command.build();
    write_page(command, directory)
}

fn write_page(command: Command, directory: &Path) -> io::Result<()> {
    let shown = |it: &&Command| !it.is_hide_set() && it.get_name() != "help";
    for inner in command.get_subcommands().filter(shown).cloned() {
        write_page(inner, directory)?;
    }
    let page = man(command);
    page.render(&mut File::create(directory.join(page.get_filename()))?)
}

fn man(command: Command) -> Man {
    Man::new(command).section(SECTION).manual("lb")
}
