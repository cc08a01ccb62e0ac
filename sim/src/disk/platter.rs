//! What becomes of changes on their way to the platter.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::SECTOR;
use crate::keyed::Keyed;

/// A change of a file's bytes.
pub(super) enum Change {
    Write {
        at: u64,
        bytes: Bytes,
    },
    /// A write that the disk says it carried out: the file is as long as if it had, and the bytes are nowhere or elsewhere.
    Astray {
        at: u64,
        len: u64,
        landed: Option<(u64, Bytes)>,
    },
    Truncate {
        to: u64,
    },
}

fn lengthen(image: &mut Vec<u8>, to: u64) {
    image.resize(image.len().max(to as usize), 0);
}

pub(super) fn lay(data: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[at..end].copy_from_slice(bytes);
}

pub(super) fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes } => lay(image, *at, bytes),
        Change::Astray { at, len, landed } => {
            lengthen(image, *at + len);
            if let Some((to, bytes)) = landed {
                lay(image, *to, bytes);
            }
        }
        Change::Truncate { to } => image.truncate(*to as usize),
    }
}

/// Lets each change reach the platter or not.
pub(super) fn settle(
    durable: &mut Vec<u8>,
    changes: &[(u64, Change)],
    node: u64,
    choices: &mut Keyed,
    befell: &mut BTreeMap<&'static str, u64>,
) {
    let mut count = |what| *befell.entry(what).or_insert(0) += 1;
    for (_, change) in changes {
        match change {
            Change::Truncate { .. } => {
                if choices.one_in("truncate survives", node, 2) {
                    apply(durable, change);
                } else {
                    count("truncate undone");
                }
            }
            Change::Astray { .. } => apply(durable, change),
            Change::Write { at, bytes } => match choices.below("write survives", node, 8) {
                0..3 => apply(durable, change),
                3..5 => count("write lost"),
                5 => {
                    count("write zeroed");
                    lengthen(durable, at + bytes.len() as u64);
                }
                _ => {
                    count("write torn");
                    tear(durable, *at, bytes, node, choices);
                }
            },
        }
    }
}

/// Some sectors of a write survive, others not.
fn tear(data: &mut Vec<u8>, at: u64, bytes: &[u8], node: u64, choices: &mut Keyed) {
    let end = at + bytes.len() as u64;
    let mut from = at;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if choices.one_in("sector survives", node, 2) {
            lay(data, from, &bytes[(from - at) as usize..(to - at) as usize]);
        }
        from = to;
    }
}
