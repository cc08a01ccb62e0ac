//! How long a broker takes to start, what it holds when idle, and how long it takes to stop.

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
    /// What the report calls it.
    pub name: String,
    /// A shell command that becomes the broker, which prints a line that begins with `ready`.
    pub command: String,
}

const READY_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(60);
const STOP_POLL: Duration = Duration::from_millis(1);

/// Starts and stops everybody in turns; the first round, which may format a directory, doesn't count.
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
            match once(broker, idle) {
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

fn once(broker: &Startable, idle: Duration) -> Result<Vec<Figure>, BenchError> {
    let begin = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {}", broker.command)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(BenchError::io(format!("starting {}", broker.name)))?;
    let figures = lifetime(broker, &mut child, begin, idle);
    if figures.is_err() {
        // It must not outlive the measurement, and may have ended by itself.
        let _ended_already = child.kill();
        let _ended_already = child.wait();
    }
    figures
}

fn lifetime(
    broker: &Startable,
    child: &mut Child,
    begin: Instant,
    idle: Duration,
) -> Result<Vec<Figure>, BenchError> {
    let ready = ready(child, begin).map_err(BenchError::io(broker.name.clone()))?;
    std::thread::sleep(idle);
    let pid = i32::try_from(child.id()).expect("a process id is positive and an i32");
    let usage = proc::usage(pid)?;
    let asked = Instant::now();
    // SAFETY: the child is not waited for yet, so that the id is still its own.
    if unsafe { libc::kill(pid, libc::SIGTERM) } != 0 {
        return Err(BenchError::io("SIGTERM")(std::io::Error::last_os_error()));
    }
    let waiting = || format!("waiting for {}", broker.name);
    while child.try_wait().map_err(BenchError::io(waiting()))?.is_none() {
        if asked.elapsed() > STOP_MAX {
            return Err(BenchError::Check(format!("{} does not stop", broker.name)));
        }
        std::thread::sleep(STOP_POLL);
    }
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
            value: ms(asked.elapsed()),
        },
    ])
}

fn ready(child: &mut Child, begin: Instant) -> std::io::Result<Duration> {
    let stdout = child.stdout.take().expect("its output is piped");
    let (say, hear) = mpsc::channel();
    // Lives until the broker closes its output, which must be read to its end.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("ready") {
                let _too_late = say.send(begin.elapsed());
            }
        }
    });
    hear.recv_timeout(READY_MAX)
        .map_err(|_| std::io::Error::other("ended, or said nothing in time, without a ready line"))
}
