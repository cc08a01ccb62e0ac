//! The binary `brokkr-jepsen`: judges histories from any source.
#![expect(
    clippy::disallowed_methods,
    reason = "a command line tool reads files; it does not run in the simulator"
)]

mod arguments;
mod chart;
mod check;
mod html;
mod input;
mod report;
mod series;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use brokkr_history::{Reader, Syntax, Writer};
use clap::Parser as _;

use arguments::{Cli, Command, Convert, Notation};
use input::{Failure, left_out, open, unreadable};

fn convert(args: &Convert) -> Result<ExitCode, Failure> {
    let syntax = match args.to {
        Notation::Json => Syntax::Json,
        Notation::Edn => Syntax::Edn,
    };
    let mut writer = Writer::with_syntax(BufWriter::new(io::stdout().lock()), syntax);
    let mut reader = Reader::new(open(&args.file)?);
    for operation in reader.by_ref() {
        let operation = operation.map_err(|e| unreadable(&args.file, e))?;
        writer.write(&operation).map_err(Failure::Output)?;
    }
    writer.finish().map_err(Failure::Output)?;
    if let Some(at) = reader.torn() {
        // If stderr is closed it can't be said.
        let _ = writeln!(io::stderr(), "{}", left_out(at));
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check(args) => check::check(&args),
        Command::Convert(args) => convert(&args),
    };
    done.unwrap_or_else(|failure| {
        let code = match &failure {
            // A closed pipe is no error: its reader needed no more.
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 2,
            Failure::Output(e) => print_error(&e.to_string()),
            Failure::History(Some(at), what) => print_error(&format!("{at}: {what}")),
            Failure::History(None, what) | Failure::Usage(what) => print_error(what),
        };
        ExitCode::from(code)
    })
}

/// Prints an error; returns the exit code.
fn print_error(what: &str) -> u8 {
    let mut stderr = io::stderr().lock();
    let (red, plain) = if stderr.is_terminal() {
        ("\x1b[31m", "\x1b[0m")
    } else {
        ("", "")
    };
    // If stderr is closed the error can't be reported.
    let _ = writeln!(stderr, "{red}error{plain}: {what}");
    2
}
