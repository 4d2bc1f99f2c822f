//! The `leakline` command.

fn main() -> std::process::ExitCode {
    leakline_cli::run(std::env::args_os())
}
