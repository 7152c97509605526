//! The control CLI. Everything it does is in [`lb::cli`].

fn main() -> std::process::ExitCode {
    lb::cli::main()
}
