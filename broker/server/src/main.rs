//! The binary `brokkr`.

fn main() -> std::process::ExitCode {
    brokkr::production::main()
}
