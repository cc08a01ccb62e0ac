//! The broker in the real world: the one place where the generic shell meets it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use brokkr_env::Env;
use brokkr_env::tokio::{SocketBuffers, TokioEnv};
use clap::Parser;

use crate::broker::{Broker, StartError};
use crate::cli::{Cli, Command, Serve, completions};
use crate::config::BrokerConfig;

/// What is said when the command line or the configuration can't be used.
const USAGE: u8 = 2;
/// What is said when the broker can't start.
const FAILED: u8 = 1;
/// Threads for blocking IO on the log directory where `num.io.threads` isn't set.
const IO_THREADS: usize = 16;

/// A broker in the real world.
pub type RealBroker = Broker<TokioEnv>;

/// Starts a broker in the real world. Must be called on a tokio runtime.
pub async fn start(config: BrokerConfig) -> Result<RealBroker, StartError> {
    let io_threads = match config.set.get("num.io.threads") {
        Some(_) => usize::try_from(config.num_io_threads).unwrap_or(IO_THREADS),
        None => IO_THREADS,
    };
    // -1 is the operating system's own size, as in Kafka; for what is received that is the default here, because
    // Kafka's 100 KiB cost a fifth of the throughput of large batches.
    let receive = config
        .set
        .get("socket.receive.buffer.bytes")
        .map(|_| config.socket_receive_buffer_bytes);
    let buffers = SocketBuffers {
        send: usize::try_from(config.socket_send_buffer_bytes).ok(),
        receive: receive.and_then(|bytes| usize::try_from(bytes).ok()),
    };
    Broker::start(TokioEnv::with_buffers(io_threads, buffers), config).await
}

/// The binary.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Completions { shell }) => {
            completions(shell);
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
        // Else a log file on a full disk would end the process: what can't be logged can't be complained of in the log.
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
        .block_on(serve_until_told(config))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the configuration file, read before there is a world"
)]
fn read_to_string(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

fn refuse(code: u8, why: &str) -> ExitCode {
    eprintln!("brokkr: {why}");
    ExitCode::from(code)
}

async fn serve_until_told(config: BrokerConfig) -> ExitCode {
    let clock = TokioEnv::new(1);
    let begun = clock.now();
    let mut told = match Signals::new() {
        Ok(told) => told,
        Err(e) => return refuse(FAILED, &format!("signals: {e}")),
    };
    let broker = match start(config).await {
        Ok(broker) => broker,
        Err(e) => return refuse(FAILED, &e.to_string()),
    };
    let took: Duration = clock.now() - begun;
    let addrs: Vec<String> = broker.local_addrs().iter().map(ToString::to_string).collect();
    tell(&format!("ready {} in {} ms", addrs.join(","), took.as_millis()));
    told.wait().await;
    tracing::info!("stopping");
    if !broker.stop().await {
        tracing::warn!("not stopped cleanly: the next start will scan what was written last");
    }
    ExitCode::SUCCESS
}

/// One line on stdout. Whether anybody reads it is not the broker's concern.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the ready line");
    }
}

/// SIGTERM and SIGINT. And SIGXFSZ, so that a limit on the size of files fails the write that meets it, not the process.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    _file_size: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// As many files and connections as the operating system allows.
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
