//! The broker on the operating system: the binary, which instantiates the generic crate with `TokioEnv`.

mod exposition;
mod families;
mod http;
mod process;
mod real_broker;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Cli, Command, Serve, completions};
use crate::config::BrokerConfig;

use http::Endpoint;
pub use real_broker::{RealBroker, start};

/// Exit code for an invalid command line or configuration.
const USAGE: u8 = 2;
/// Exit code for a broker that can't start.
const FAILED: u8 = 1;

/// The entry point of the binary.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Completions { shell }) => {
            print(&completions(shell));
            ExitCode::SUCCESS
        }
        Some(Command::Serve(serve)) => run(&serve),
        None => run(&cli.serve),
    }
}

fn run(serve: &Serve) -> ExitCode {
    let filter = match tracing_subscriber::EnvFilter::try_new(&serve.log) {
        Ok(filter) => filter,
        Err(e) => return refuse(USAGE, &format!("--log {}: {e}", serve.log)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Otherwise a log file on a full disk would end the process.
        .log_internal_errors(false)
        .init();
    let file = match serve.config.as_deref().map(read_to_string).transpose() {
        Ok(file) => file,
        Err(e) => {
            return refuse(
                USAGE,
                &format!("{}: {e}", serve.config.as_deref().unwrap_or_default()),
            );
        }
    };
    let config = match serve.configuration(file.as_deref()) {
        Ok((mut config, warnings)) => {
            config.advertise_host(&rustix::system::uname().nodename().to_string_lossy());
            warnings.iter().for_each(|w| tracing::warn!("{w}"));
            config
        }
        Err(e) => return refuse(USAGE, &e),
    };
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime
        .expect("the operating system has threads")
        .block_on(serve_until_signal(config))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the configuration file and the process's status, read before there is a world"
)]
fn read_to_string(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

/// Prints one line on stderr. If that fails, only the exit code reports the error.
fn refuse(code: u8, why: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "brokkr: {why}"));
    ExitCode::from(code)
}

async fn serve_until_signal(config: BrokerConfig) -> ExitCode {
    let clock = TokioEnv::new(1);
    let started_at = clock.now();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return refuse(FAILED, &format!("signals: {e}")),
    };
    let endpoint = match endpoint(&clock, &config).await {
        Ok(endpoint) => endpoint,
        Err(why) => return refuse(FAILED, &why),
    };
    let started = tokio::select! {
        biased;
        () = signals.wait() => None,
        started = start(config) => Some(started),
    };
    let broker = match started {
        Some(Ok(broker)) => broker,
        Some(Err(e)) => return refuse(FAILED, &e.to_string()),
        // No record was acknowledged that isn't on the disk, and recovery can be repeated.
        None => {
            tracing::warn!("stopped while starting");
            return ExitCode::SUCCESS;
        }
    };
    if let Some(endpoint) = &endpoint {
        endpoint.running(&broker);
    }
    let took: Duration = clock.now() - started_at;
    let addrs: Vec<String> = broker.local_addrs().iter().map(ToString::to_string).collect();
    print(format!("ready {} in {} ms\n", addrs.join(","), took.as_millis()).as_bytes());
    signals.wait().await;
    tracing::info!("stopping");
    if let Some(endpoint) = &endpoint {
        endpoint.stopping();
    }
    let clean = tokio::select! {
        biased;
        clean = broker.stop() => clean,
        () = signals.second_stop() => return refuse(FAILED, "second stop signal: not stopped cleanly"),
    };
    if !clean {
        tracing::warn!("not stopped cleanly: the next start will scan what was written last");
    }
    ExitCode::SUCCESS
}

/// Starts the endpoint for metrics and health checks, if configured. BEFORE the broker starts, so that it reports the
/// start.
async fn endpoint(env: &TokioEnv, config: &BrokerConfig) -> Result<Option<Endpoint>, String> {
    let Some((host, port)) = &config.metrics_listen else {
        return Ok(None);
    };
    let endpoint = Endpoint::start(env, (host, *port)).await;
    let endpoint = endpoint.map_err(|e| {
        let bracketed = format!("[{host}]");
        let host = if host.contains(':') { &bracketed } else { host };
        format!("can't listen on {host}:{port} (metrics.listen): {e}")
    })?;
    if *port == 0 {
        drop(writeln!(
            std::io::stderr(),
            "metrics on {}",
            endpoint.local_addr()
        ));
    }
    Ok(Some(endpoint))
}

/// Prints to stdout. A closed stdout is no error.
fn print(text: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text).and_then(|()| out.flush()) {
        tracing::debug!(%error, "stdout can't be written");
    }
}

/// SIGTERM, SIGINT, and SIGHUP unless it is ignored (`nohup`). Also SIGXFSZ, so that a limit on file sizes fails the write
/// and does not end the process.
struct Signals {
    term: Signal,
    int: Signal,
    hangup: Option<Signal>,
    /// Whether SIGTERM or SIGINT arrived, and not only SIGHUP.
    is_terminating: bool,
    _file_size: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let hangup = match is_ignored(rustix::process::Signal::HUP.as_raw()) {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup,
            is_terminating: false,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for one of the signals. Cancel-safe.
    async fn wait(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.term.recv() => self.is_terminating = true,
            _ = self.int.recv() => self.is_terminating = true,
            () = hangup => {}
        }
    }

    /// Waits for a second SIGTERM or SIGINT. SIGHUP does not count: terminals send it together with the first signal, and
    /// it may arrive before that. Cancel-safe.
    async fn second_stop(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.term.recv() => {}
                _ = self.int.recv() => {}
            }
            if std::mem::replace(&mut self.is_terminating, true) {
                return;
            }
        }
    }
}

/// Whether the parent process set a signal to be ignored, as far as the system shows it.
fn is_ignored(signal: i32) -> bool {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Raises the limit of open files to the maximum that the operating system allows.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    ) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
