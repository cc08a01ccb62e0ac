//! Room on the disk that is kept for making room.
//!
//! Giving up records takes a write: the log's start is raised on disk before anything goes, a topic is deleted by a record of
//! the metadata log. On a disk that is full to the last block that write fails, and the disk would stay full for ever. So a
//! directory keeps a few files of no content, [`PIECES`] times [`PIECE_BYTES`], where there is room for them. What makes room
//! gives them up, one by one, until its write goes through; appends never do. They are made anew once there is room.
//!
//! This needs a file system that gives a removed file's blocks to whoever asks next (ext4, XFS, tmpfs). Somebody else may ask
//! first, so a piece is many times what the write needs, and there are several.

use std::sync::atomic::{AtomicBool, Ordering};

use brokkr_env::{Env, ErrorKind};
use brokkr_types::LeaderEpoch;
use bytes::Bytes;

use crate::config::LogConfig;
use crate::dir::LogDir;
use crate::error::LogError;
use crate::log::Log;
use crate::recovery::{Recorded, Recovery};

const PIECES: usize = 4;
const PIECE_BYTES: usize = 1 << 20;
/// What a piece is made of. It is never written to, so it costs neither room in the binary nor memory.
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
/// Less free space than this is left to others.
const FREE_BYTES_MIN: u64 = 4 * (PIECES * PIECE_BYTES) as u64;

fn name(piece: usize) -> String {
    format!("brokkr-reserve-{piece}")
}

/// What a directory knows of its reserve.
#[derive(Default)]
pub(crate) struct Reserve {
    complete: AtomicBool,
}

impl<E: Env> LogDir<E> {
    /// Makes what is missing of the reserve, if there is room. Cheap where nothing is missing.
    pub async fn keep_reserve(&self) -> Result<(), LogError> {
        let reserve = &self.files.reserve;
        if reserve.complete.load(Ordering::Relaxed) || self.dir.space().await?.0 < FREE_BYTES_MIN {
            return Ok(());
        }
        // BEFORE it is made: who spends a piece meanwhile is not overlooked.
        reserve.complete.store(true, Ordering::Relaxed);
        for piece in 0..PIECES {
            if let Err(error) = self.keep(&name(piece)).await {
                reserve.complete.store(false, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn keep(&self, name: &str) -> Result<(), LogError> {
        let file = match self.dir.open(name).await {
            Err(e) if e.kind() == ErrorKind::NotFound => self.dir.create(name).await?,
            other => other?,
        };
        let (had, whole) = (file.len(), PIECE_BYTES as u64);
        if had < whole {
            let zeros = &ZEROS[..(whole - had) as usize];
            file.write_at(had, vec![Bytes::from_static(zeros)]).await?;
        }
        Ok(())
    }

    /// Whether `error` is one that giving up a piece of the reserve may cure, and one was given up: try again.
    pub async fn makes_room_after(&self, error: &LogError) -> bool {
        match error {
            LogError::Io(e) if e.kind() == ErrorKind::NoSpace => self.spend().await,
            _ => false,
        }
    }

    /// [`Log::open`], with the reserve's help: what recovery writes is little, and without it a topic could not even be deleted.
    pub async fn open_log(
        &self,
        folder: &str,
        config: &LogConfig,
        recorded: &Recorded,
    ) -> Result<(Log<E>, Recovery), LogError> {
        loop {
            match Log::open(self, folder, config.clone(), recorded).await {
                Err(error) if self.makes_room_after(&error).await => {}
                other => return other,
            }
        }
    }

    /// [`Log::assign_epoch`], with the reserve's help: a start on a full disk needs it.
    pub async fn assign_epoch(&self, log: &mut Log<E>, epoch: LeaderEpoch) -> Result<(), LogError> {
        while let Err(error) = log.assign_epoch(epoch).await {
            if !self.makes_room_after(&error).await {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn spend(&self) -> bool {
        for piece in 0..PIECES {
            if self.dir.remove(&name(piece)).await.is_ok() {
                self.files.reserve.complete.store(false, Ordering::Relaxed);
                tracing::info!(piece, "the disk is full: a piece of the reserve is given up");
                return true;
            }
        }
        false
    }
}
