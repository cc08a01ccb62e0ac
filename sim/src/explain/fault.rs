//! A fault in words, and how long it lasts on which nodes.

use crate::disk::FileDamage;
use crate::plan::{BROKER, EVENT_WAIT_MAX_S, Fault, Kind, Plan, node_name};
use crate::trigger::{Act, with_article};

/// A fault in words.
pub fn fault_text(plan: &Plan, fault: &Fault) -> String {
    let text = kind_text(plan, &fault.kind);
    match &fault.when {
        None => text,
        Some(when) => format!("{text} It strikes {when}, or after {EVENT_WAIT_MAX_S} s."),
    }
}

fn kind_text(plan: &Plan, kind: &Kind) -> String {
    let name = |client: u32| node_name(plan, client);
    let clients = |client: Option<u32>| client.map_or("all clients".to_owned(), name);
    let restart = |power| match power {
        true => "cuts the power",
        false => "ends the process",
    };
    match kind {
        Kind::Kill { down_ms } => {
            format!("The broker is killed (kill -9) and is started {down_ms} ms later.")
        }
        Kind::KillClient { client, down_ms } => format!(
            "{} is killed and is started {down_ms} ms later under another identity.",
            capital(&name(*client))
        ),
        Kind::Blackout { down_ms } => {
            format!("The broker and all clients lose their power; it is back {down_ms} ms later.")
        }
        Kind::PowerLoss { down_ms, unsynced } => {
            let when = if *unsynced {
                " as soon as a log has an unsynced write"
            } else {
                ""
            };
            format!("The broker loses its power{when}; it is back {down_ms} ms later.")
        }
        Kind::CleanStop { down_ms, power } => {
            let then = if *power {
                "; the power fails while it is down"
            } else {
                ""
            };
            format!("The broker is stopped cleanly and is started {down_ms} ms after its end{then}.")
        }
        Kind::Pause { for_ms } => format!("The broker's process is paused for {for_ms} ms (SIGSTOP)."),
        Kind::SyncFails { restart_ms, power } => format!(
            "The next sync of the broker's disk fails; the operator {} {restart_ms} ms later.",
            restart(*power)
        ),
        Kind::WriteFails { restart_ms, power } => format!(
            "The next write to the broker's disk fails with EIO, in the middle; the operator {} {restart_ms} ms later.",
            restart(*power)
        ),
        Kind::OperationFails {
            act,
            of,
            no_space,
            restart_ms,
            power,
        } => {
            let error = if *no_space { "ENOSPC" } else { "EIO" };
            let then = match *no_space && *act != Act::Sync {
                true => format!("for {restart_ms} ms nothing is done about it"),
                false => format!("the operator {} {restart_ms} ms later", restart(*power)),
            };
            format!(
                "The next {} of {} fails with {error}; {then}.",
                act.name(),
                with_article(of)
            )
        }
        Kind::NoSpace { free_bytes, for_ms } => {
            format!("Only {free_bytes} bytes of the broker's disk are free for {for_ms} ms.")
        }
        Kind::SlowDisk { times, for_ms } => {
            format!("Operations of the broker's disk take {times} times as long for {for_ms} ms.")
        }
        Kind::HangingDisk { for_ms } => {
            format!("No operation of the broker's disk completes for {for_ms} ms.")
        }
        Kind::Cut {
            client,
            to_broker,
            from_broker,
            for_ms,
        } => {
            let (client, direction) = (
                clients(*client),
                match (to_broker, from_broker) {
                    (true, true) => "in both directions",
                    (true, false) => "to the broker",
                    (false, _) => "from the broker",
                },
            );
            format!("The link between the broker and {client} is cut {direction} for {for_ms} ms.")
        }
        Kind::Delay { by_ms, for_ms } => {
            format!("Bytes between the broker and all clients take {by_ms} ms longer for {for_ms} ms.")
        }
        Kind::Narrow {
            client,
            bytes_per_s,
            for_ms,
        } => format!(
            "The link between the broker and {} carries {bytes_per_s} bytes a second for {for_ms} ms.",
            clients(*client)
        ),
        Kind::Swizzle { for_ms } => format!(
            "Clients are cut off one after another, and are connected again in another order, within {for_ms} ms."
        ),
        Kind::Shut { silent, for_ms } => format!(
            "The broker's node {} new connections for {for_ms} ms.",
            if *silent { "does not answer" } else { "refuses" }
        ),
        Kind::Reset { client, half_open } => format!(
            "The connections of {} are reset{}.",
            name(*client),
            if *half_open {
                "; only the client learns of it"
            } else {
                ""
            }
        ),
        Kind::ClockStep { by_ms, client } => format!(
            "The wall clock of {} steps by {by_ms} ms.",
            client.map_or("the broker".to_owned(), name)
        ),
        Kind::Damage {
            topic,
            partition,
            how,
        } => format!("The disk damages a file of {topic}-{partition}: {}.", how.name()),
        Kind::DirectoryFails { directory, for_ms } => format!(
            "The broker's log directory {directory} can't be read, written or synced for {for_ms} ms; then the operator ends the process."
        ),
        Kind::DamageFile {
            file,
            how,
            kill,
            down_ms,
        } => format!(
            "The broker is {} for {down_ms} ms; meanwhile a file {file} {}.",
            ended(*kill),
            damage_text(*how)
        ),
        Kind::Restart {
            kill,
            down_ms,
            broker,
        } => {
            let settings: Vec<String> = broker.iter().map(|(k, v)| format!("{k} = {v}")).collect();
            let with = match &settings[..] {
                [] => "the same settings".to_owned(),
                some => some.join(", "),
            };
            format!(
                "The broker is {} and is started {down_ms} ms later with {with}.",
                ended(*kill)
            )
        }
    }
}

fn damage_text(how: FileDamage) -> &'static str {
    match how {
        FileDamage::Missing => "is removed",
        FileDamage::Emptied => "is emptied",
        FileDamage::Shortened => "loses its end",
        FileDamage::Zeroed => "is filled with zeros",
        FileDamage::Anothers => "is replaced by one from another folder",
        FileDamage::Older => "is replaced by an older version of itself",
        FileDamage::FlippedBit => "has one bit flipped",
    }
}

fn ended(kill: bool) -> &'static str {
    if kill { "killed" } else { "stopped cleanly" }
}

/// How long a fault lasts, if the trace has no event of its end, and on which node: none is every client.
pub fn lasting(kind: &Kind) -> Option<(u64, Option<u32>)> {
    let broker = Some(BROKER);
    match kind {
        Kind::SyncFails { restart_ms, .. }
        | Kind::WriteFails { restart_ms, .. }
        | Kind::OperationFails { restart_ms, .. } => Some((*restart_ms, broker)),
        Kind::NoSpace { for_ms, .. }
        | Kind::SlowDisk { for_ms, .. }
        | Kind::HangingDisk { for_ms }
        | Kind::DirectoryFails { for_ms, .. }
        | Kind::Shut { for_ms, .. } => Some((*for_ms, broker)),
        Kind::Cut { client, for_ms, .. } | Kind::Narrow { client, for_ms, .. } => Some((*for_ms, *client)),
        Kind::Delay { for_ms, .. } | Kind::Swizzle { for_ms } => Some((*for_ms, None)),
        _ => None,
    }
}

/// With a capital first letter.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}
