//! A broker's start time, idle memory and stop time.

use crate::client::Client;
use crate::error::BenchError;
use crate::proc;
use crate::report::{Figure, Subject, Table};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A broker that can be started.
#[derive(Clone, Debug)]
pub struct Startable {
    /// Its name in the report.
    pub name: String,
    /// A shell command that becomes the broker, which prints a line that begins with `ready`.
    pub command: String,
}

const READY_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(60);
const STOP_POLL: Duration = Duration::from_millis(1);

/// Starts and stops each broker once per round; the first round does not count, since it may format a directory.
pub fn run(
    brokers: &[Startable],
    reference: Option<String>,
    rounds: u32,
    idle: Duration,
    say: &dyn Fn(&str),
) -> Table {
    let mut subjects: Vec<Subject> = brokers.iter().map(|b| Subject::new(&b.name, None)).collect();
    for round in 0..=rounds {
        for (broker, subject) in brokers.iter().zip(&mut subjects) {
            if subject.failure.is_some() {
                continue;
            }
            match measure_once(broker, idle) {
                Ok(figures) => {
                    say(&format!(
                        "start {round}/{rounds}: {} {:.1} ms",
                        broker.name, figures[0].value
                    ));
                    if round > 0 {
                        subject.rounds.push(figures);
                    }
                }
                Err(e) => subject.failure = Some(e.to_string()),
            }
        }
    }
    Table {
        work: "start".to_owned(),
        about: "from exec to the ready line; resident once idle; from SIGTERM to the end".to_owned(),
        subjects,
        reference,
    }
}

/// A running broker. Dropping it kills it.
pub struct RunningBroker {
    name: String,
    child: Child,
    begun: Instant,
    ready: Duration,
    addr: String,
}

impl RunningBroker {
    /// Starts a broker and waits until it is ready.
    pub fn start(broker: &Startable) -> Result<Self, BenchError> {
        let begun = Instant::now();
        let child = Command::new("sh")
            .args(["-c", &format!("exec {}", broker.command)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::io(format!("starting {}", broker.name)))?;
        let mut running = Self {
            name: broker.name.clone(),
            child,
            begun,
            ready: Duration::ZERO,
            addr: String::new(),
        };
        let ready = ready(&mut running.child, begun).map_err(BenchError::io(broker.name.clone()))?;
        (running.ready, running.addr) = ready;
        Ok(running)
    }

    /// The time from the start to the ready line.
    pub fn ready(&self) -> Duration {
        self.ready
    }

    /// The time since it was started.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id is positive and an i32")
    }

    /// A connection to the address in its ready line.
    pub fn client(&self) -> Result<Client, BenchError> {
        let addr = self.addr.parse();
        let addr =
            addr.map_err(|_| BenchError::Usage(format!("{}: no address in its ready line", self.name)))?;
        Client::connect(addr)
    }

    /// Sends SIGTERM. Returns how long the process took to end.
    pub fn stop(mut self) -> Result<Duration, BenchError> {
        let sent_at = Instant::now();
        // SAFETY: the child has not been waited for, so the process id is still its own.
        if unsafe { libc::kill(self.pid(), libc::SIGTERM) } != 0 {
            return Err(BenchError::io("SIGTERM")(std::io::Error::last_os_error()));
        }
        while !self.has_ended()? {
            if sent_at.elapsed() > STOP_MAX {
                return Err(BenchError::Check(format!("{} does not stop", self.name)));
            }
            std::thread::sleep(STOP_POLL);
        }
        Ok(sent_at.elapsed())
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill().map_err(BenchError::io("SIGKILL"))?;
        while !self.has_ended()? {
            std::thread::sleep(STOP_POLL);
        }
        Ok(())
    }

    fn has_ended(&mut self) -> Result<bool, BenchError> {
        let ended = self.child.try_wait();
        let ended = ended.map_err(BenchError::io(format!("waiting for {}", self.name)))?;
        Ok(ended.is_some())
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        // It must not outlive the measurement; it may already have ended.
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

fn measure_once(broker: &Startable, idle: Duration) -> Result<Vec<Figure>, BenchError> {
    let running = RunningBroker::start(broker)?;
    let ready = running.ready();
    std::thread::sleep(idle);
    let usage = proc::usage(running.pid())?;
    let stopped = running.stop()?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(vec![
        Figure {
            name: "start ms",
            value: ms(ready),
        },
        Figure {
            name: "idle RSS MB",
            value: usage.resident_bytes as f64 / 1e6,
        },
        Figure {
            name: "start CPU s",
            value: usage.cpu_s,
        },
        Figure {
            name: "stop ms",
            value: ms(stopped),
        },
    ])
}

/// When the ready line appeared, and the address in it.
fn ready(child: &mut Child, begin: Instant) -> std::io::Result<(Duration, String)> {
    let stdout = child.stdout.take().expect("its output is piped");
    let (say, hear) = mpsc::channel();
    // The thread ends when the broker closes its output, which must be read to the end.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("ready") {
                let addr = rest.split_whitespace().next().unwrap_or_default();
                let _too_late = say.send((begin.elapsed(), addr.to_owned()));
            }
        }
    });
    hear.recv_timeout(READY_MAX)
        .map_err(|_| std::io::Error::other("ended, or said nothing in time, without a ready line"))
}
