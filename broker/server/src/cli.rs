//! The command line.

use std::collections::BTreeMap;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{BrokerConfig, StartupError, host_port, properties};

/// An event-streaming broker that speaks Kafka's protocol.
#[derive(Parser, Debug)]
#[command(name = "brokkr", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the broker (the default)
    Serve(Serve),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

/// How to run the broker.
#[derive(Args, Debug, Default, Clone)]
pub struct Serve {
    /// A server.properties file, with Kafka's keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Set a key, overriding the file; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The directory for all data [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The address to listen at; port 0 binds a free port [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The log level on stderr: error, warn, info, debug, trace, or a filter such as brokkr=debug
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log: String,
}

impl Serve {
    /// The configuration, given the text of the file that `--config` names; and warnings.
    ///
    /// # Errors
    /// One line that says what to change.
    pub fn configuration(&self, file: Option<&str>) -> Result<(BrokerConfig, Vec<String>), String> {
        let mut set = match file {
            Some(text) => properties::parse(text)
                .map_err(|e| format!("{}: {e}", self.config.as_deref().unwrap_or_default()))?,
            None => BTreeMap::new(),
        };
        for pair in &self.sets {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("--set {pair}: not of the form key=value"))?;
            set.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        if let Some(dir) = &self.data_dir {
            set.remove("log.dirs");
            set.insert("log.dir".to_owned(), dir.clone());
        }
        if let Some(listen) = &self.listen {
            host_port(listen).map_err(|why| format!("--listen {listen}: {why}"))?;
            set.insert("listeners".to_owned(), format!("PLAINTEXT://{listen}"));
        }
        BrokerConfig::new(set).map_err(|e: StartupError| e.to_string())
    }
}

/// The completion script for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "brokkr", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_sets_and_sets_override_the_file() {
        let serve = Serve {
            sets: vec!["num.partitions=3".into(), "node.id=5".into()],
            listen: Some("127.0.0.1:0".into()),
            data_dir: Some("/d".into()),
            ..Serve::default()
        };
        let (config, _) = serve
            .configuration(Some("num.partitions=2\nlog.dirs=/x\n"))
            .expect("valid");
        assert_eq!(
            (config.num_partitions, config.node_id, config.log_dirs()),
            (3, 5, &["/d".to_owned()][..])
        );
        assert_eq!(config.listeners[0].port, 0);
    }

    #[test]
    fn errors_are_one_line() {
        let with = |set: &str| Serve {
            sets: vec![set.into()],
            ..Serve::default()
        };
        for set in [
            "no-equals",
            "num.partitions=x",
            "no.such.key=1",
            "listeners=nonsense",
        ] {
            let error = with(set).configuration(None).expect_err(set);
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
