//! Beginning and ending: a new log, one that is there, and a clean stop.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use brokkr_env::{Durable, EntryKind, Env, ErrorKind, File};
use brokkr_types::{Offset, UnixMillis, Uuid};
use brokkr_wire::records::{BatchHeader, HEADER_LEN};

use crate::ackable::AckableOffset;
use crate::background::{self, Background, make_indexes, remove_if_there, replace, write_tails};
use crate::config::LogConfig;
use crate::dir::LogDir;
use crate::drive::Pipeline;
use crate::epochs::LeaderEpochs;
use crate::error::{Damage, LogError};
use crate::formats::{decode_epochs, decode_partition_metadata, encode_epochs, encode_partition_metadata};
use crate::index::{Entry, OffsetEntry, TimeEntry, relative};
use crate::log::{Log, draw_jitter};
use crate::manifest::{Cutting, Manifest, SegmentInfo};
use crate::names;
use crate::producers::Producers;
use crate::recovery::{Recorded, Recovered, Recovery};
use crate::replay;
use crate::scan::{Chain, Scan, ScanError};
use crate::segment::{Head, Segment, Segments, Tip};
use crate::snapshot;
use crate::view::{Boundary, Mark, Shared};

/// The largest manifest, epoch checkpoint or snapshot that is read.
const SMALL_FILE_BYTES_MAX: u32 = 256 << 20;
/// The largest `partition.metadata` that is read.
const METADATA_BYTES_MAX: u32 = 4096;

/// What is in a partition's folder, without what a crash or a removal left over.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) logs: BTreeSet<Offset>,
    pub(crate) snapshots: BTreeSet<Offset>,
    pub(crate) names: BTreeSet<String>,
}

/// The parts of a log that was opened.
pub(crate) struct Parts<E: Env> {
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    pub(crate) file: File<E>,
    pub(crate) tip: Tip,
    pub(crate) log_start: Offset,
    /// The proof that all of it is durable; without one a clean stop vouches.
    pub(crate) proof: Option<Durable>,
    /// From where on the batches may be of leader epochs that the checkpoint doesn't know.
    pub(crate) scanned_from: Offset,
}

impl<E: Env> Log<E> {
    /// Makes the log of a partition that was never here, at offset 0. Durable when this returns.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if there is anything in the folder already: nothing was changed then.
    pub async fn create(
        dir: &LogDir<E>,
        folder: &str,
        topic_id: Uuid,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::new(dir, folder));
        dir.dir.create_dir(folder).await?;
        dir.dir.sync_dir("").await?;
        if let Some(name) = list(&shared).await?.names.first() {
            return Err(LogError::Malformed {
                file: folder.into(),
                what: format!(
                    "there is something already: {name}; move the folder away, or open what is in it"
                ),
            });
        }
        replace(
            &shared,
            names::PARTITION_METADATA,
            encode_partition_metadata(topic_id).into(),
        )
        .await?;
        let parts = begin_at(&shared, &config, Offset(0)).await?;
        let log = Self::assemble(shared, topic_id, config, parts);
        replace(&log.shared, names::MANIFEST, log.manifest().encode()).await?;
        Ok(log)
    }

    /// Opens the log in `folder` as `recorded` knows it, recovering what a crash left. When this returns, everything in it
    /// is durable, and the caller should record its [`Log::checkpoint`] before long.
    ///
    /// # Errors
    /// [`LogError::Damaged`] where what was durable is not there any more: nothing was cut.
    pub async fn open(
        dir: &LogDir<E>,
        folder: &str,
        config: LogConfig,
        recorded: &Recorded,
    ) -> Result<(Self, Recovery), LogError> {
        let shared = Arc::new(Shared::new(dir, folder));
        if !recorded.clean {
            // BEFORE anything is done about what is read here: a life that was killed may have left names that the next power
            // loss takes back, the folder's own among them. A manifest that is acted upon must not become an older one.
            dir.dir.sync_dir("").await?;
            dir.dir.sync_dir(folder).await?;
        }
        let mut listing = list(&shared).await?;
        let written_id = read_topic_id(&shared, &listing).await?;
        let mut topic_id = written_id;
        let manifest = match recorded.foreign {
            true => None,
            false => read_manifest(&shared, &listing).await?,
        };
        if let Some(manifest) = &manifest {
            topic_id = manifest.belongs_to(&shared, topic_id)?;
        }
        let mut recorded = recorded.of(topic_id);
        if recorded.foreign && !recorded.compacted {
            let sealed_to = sealed_before(&shared, &listing, topic_id).await?;
            recorded.recovery_point = recorded.recovery_point.max(sealed_to);
        }
        let recorded = &recorded;
        if let Some(manifest) = &manifest {
            manifest.is_current(&shared, recorded)?;
        }
        let clean = match &manifest {
            Some(manifest) if recorded.clean => {
                open_clean(&shared, &config, recorded, manifest, &listing).await?
            }
            _ => None,
        };
        let (parts, mut recovery) = match clean {
            Some(parts) => (
                parts,
                Recovery {
                    clean: true,
                    ..Recovery::default()
                },
            ),
            None => {
                let Recovered { parts, recovery } =
                    crate::recovery::recover(&shared, &config, recorded, manifest.as_ref(), &mut listing)
                        .await?;
                (parts, recovery)
            }
        };
        let scanned_from = parts.scanned_from;
        let mut log = Self::assemble(shared, topic_id, config, parts);
        log.truncations = recorded.truncations;
        // In a log of ours that lost its manifest recovery refuses gaps.
        let is_ours = recorded.recovery_point.is_some() && !recorded.foreign;
        log.gaps = manifest.as_ref().map_or(!is_ours, |m| m.gaps);
        if let Some(manifest) = &manifest {
            if recovery.clean {
                log.opened_as = Some((manifest.epochs_crc, crc32fast::hash(&manifest.encode())));
            }
            log.truncations = log.truncations.max(manifest.truncations);
            log.cut_to = manifest.cut_to;
        }
        log.shared.standing.truncated(log.truncations);
        log.shared.standing.started_at(log.log_start);
        log.load_epochs(&listing, scanned_from, manifest.as_ref()).await?;
        replay::load_producers(&mut log, &listing, &mut recovery).await?;
        log.keep_producers_in_room();
        if !recovery.clean {
            replace(&log.shared, names::MANIFEST, log.manifest().encode()).await?;
        }
        if topic_id != written_id {
            log.set_topic_id(topic_id).await?;
            brokkr_types::reached!("a lost partition.metadata was written again");
            if dir
                .error_log
                .is_first_of("partition.metadata written again", folder)
            {
                tracing::warn!(log = folder, id = %topic_id, "partition.metadata written again, as brokkr-manifest says");
            }
        }
        Ok((log, recovery))
    }

    pub(crate) fn assemble(
        shared: Arc<Shared<E>>,
        topic_id: Uuid,
        config: LogConfig,
        parts: Parts<E>,
    ) -> Self {
        let Parts {
            sealed,
            active,
            file,
            tip,
            log_start,
            proof,
            ..
        } = parts;
        let (end, size, base) = (active.head.next, active.head.size, active.head.base);
        let ackable = match proof {
            Some(proof) => AckableOffset::proven(&proof, &file, size, end),
            None => AckableOffset::closed(end),
        };
        Self {
            rng: shared.dir.env.rng("log"),
            producer_room: shared.dir.producer_room.taken(),
            shared,
            topic_id,
            config,
            sealed,
            file,
            log_start,
            high_watermark: Mark {
                offset: log_start,
                place: None,
            },
            recent: VecDeque::from([Boundary {
                offset: end,
                position: size,
            }]),
            durable_end: end,
            ackable,
            tip,
            producers: Producers::default(),
            epochs: LeaderEpochs::default(),
            undo: VecDeque::new(),
            pipeline: Pipeline::new(&active.head),
            background: Background::new(LeaderEpochs::default()),
            truncations: 0,
            cut_to: base,
            gaps: false,
            opened_as: None,
            loose_snapshot: None,
            view: None,
            active,
        }
    }

    /// Reads `leader-epoch-checkpoint` and brings it in line with the log; if it is lost, the log is asked.
    async fn load_epochs(
        &mut self,
        listing: &Listing,
        scanned_from: Offset,
        manifest: Option<&Manifest>,
    ) -> Result<(), LogError> {
        let mut epochs = LeaderEpochs::default();
        let mut lost = true;
        // A log that a crash kept from beginning anew: the epochs are those of what was cut.
        let stale = manifest.is_some_and(|m| m.cutting == Cutting::All);
        if listing.names.contains(names::EPOCHS) {
            let path = format!("{}/{}", self.folder(), names::EPOCHS);
            let text = self.shared.dir.dir.read(&path, SMALL_FILE_BYTES_MAX).await?;
            match decode_epochs(&text) {
                Ok(read) => {
                    let crc = crc32fast::hash(&text);
                    let vouched = manifest.is_some_and(|m| m.active.is_some() && m.epochs_crc == crc);
                    lost = !vouched && !self.epochs_agree(&read, scanned_from).await?;
                    if !lost {
                        epochs = read;
                    } else if self
                        .shared
                        .dir
                        .error_log
                        .is_first_of("leader epochs that disagree", &path)
                    {
                        tracing::error!(path, "disagrees with the log; read from the log itself");
                    }
                }
                Err(what) => {
                    if self
                        .shared
                        .dir
                        .error_log
                        .is_first_of("leader epochs not readable", &path)
                    {
                        tracing::error!(path, what, "not readable; read from the log itself");
                    }
                }
            }
        }
        self.background.persisted_epochs = epochs.clone();
        if stale {
            (epochs, lost) = (LeaderEpochs::default(), true);
        }
        epochs.truncate_from_end(self.written_end());
        epochs.truncate_from_start(self.log_start);
        // What was not scanned the file knows: no segment is listed before its epochs are there.
        let from = if lost { self.log_start } else { scanned_from };
        replay::add_epochs(self, &mut epochs, from).await?;
        self.epochs = epochs;
        // One that began where the log ends may stay in the file: the next start passes over it again.
        let mut known = self.background.persisted_epochs.clone();
        known.truncate_from_end(self.written_end());
        if self.epochs != known {
            background::write_epochs(Arc::clone(&self.shared), self.epochs.clone()).await?;
            self.background.persisted_epochs = self.epochs.clone();
            self.opened_as = None;
        }
        Ok(())
    }

    /// Whether each epoch begins where the checkpoint, which has no checksum, says, as far as `end`. Epochs never decrease in a
    /// log, so all is right if it is on both sides of each begin, and at both ends of the log.
    async fn epochs_agree(&mut self, epochs: &LeaderEpochs, end: Offset) -> Result<bool, LogError> {
        let reader = self.reader();
        let starts = epochs.entries().iter().map(|e| e.start);
        let mut offsets: BTreeSet<Offset> = starts.flat_map(|start| [start.plus(-1), start]).collect();
        offsets.extend([reader.log_start(), end.plus(-1)]);
        for offset in offsets
            .range(reader.log_start()..)
            .filter(|offset| **offset < end)
        {
            let Some(header) = reader.batch_at(*offset).await? else {
                continue;
            };
            // The log may start within a batch.
            let known = epochs.epoch_for(header.base_offset.max(reader.log_start()));
            if header.partition_leader_epoch.0 >= 0 && known != Some(header.partition_leader_epoch) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Rewrites a missing `partition.metadata`. Durable when this returns.
    pub async fn set_topic_id(&mut self, topic_id: Uuid) -> Result<(), LogError> {
        replace(
            &self.shared,
            names::PARTITION_METADATA,
            encode_partition_metadata(topic_id).into(),
        )
        .await?;
        self.topic_id = topic_id;
        // It is not the manifest of a clean stop any more.
        self.opened_as = None;
        Ok(replace(&self.shared, names::MANIFEST, self.manifest().encode()).await?)
    }

    /// What to record of it, checksummed, so that recovery trusts it: see [`crate::checkpoint`].
    pub fn checkpoint(&self) -> Recorded {
        let head = &self.active.head;
        let is_durable = head.first_crc != 0 && self.durable_end > head.base;
        Recorded {
            active: is_durable.then_some((head.base, head.first_crc)),
            topic_id: self.topic_id,
            recovery_point: Some(self.recovery_point()),
            log_start: self.log_start,
            truncations: self.truncations,
            ..Recorded::default()
        }
    }

    /// Ends the log cleanly: all that is staged is written, everything synced, and what the next start needs to read is
    /// written down. Once the caller has recorded the checkpoint that this returns and written the clean-shutdown marker, the
    /// next start scans nothing.
    ///
    /// # Errors
    /// Then the stop is not a clean one, and the marker must not be written.
    pub async fn close(mut self) -> Result<Recorded, LogError> {
        self.settled().await?;
        self.sealed_up().await?;
        let head = self.active.head;
        let closed = Recorded {
            topic_id: self.topic_id,
            recovery_point: Some(head.next),
            log_start: self.log_start,
            truncations: self.truncations,
            clean: true,
            ..Recorded::default()
        };
        if let Some((epochs_crc, manifest_crc)) = self.opened_as
            && manifest_crc == crc32fast::hash(&self.closing_manifest(epochs_crc).encode())
        {
            brokkr_types::reached!("a log was closed as it was opened");
            return Ok(closed);
        }
        let proof = self.file.sync().await?;
        self.proven(&proof, head.next, head.size);
        let last_time = self.tip.time_entry();
        self.active.extend(head, &[], last_time.as_slice());
        write_tails(Arc::clone(&self.shared), self.active.clone(), true).await?;
        background::write_epochs(Arc::clone(&self.shared), self.epochs.clone()).await?;
        let files = snapshot::encode(head.next, &self.producers);
        background::write_snapshot(&self.shared, &files).await?;
        if let Some(loose) = self.loose_snapshot.filter(|loose| *loose != head.next) {
            background::remove_snapshot(&self.shared, loose).await?;
        }
        let epochs_crc = crc32fast::hash(encode_epochs(&self.epochs).as_bytes());
        let manifest = self.closing_manifest(epochs_crc);
        replace(&self.shared, names::MANIFEST, manifest.encode()).await?;
        Ok(closed)
    }

    /// The manifest of a clean stop.
    fn closing_manifest(&self, epochs_crc: u32) -> Manifest {
        Manifest {
            active: Some(self.active.info()),
            epochs_crc,
            ..self.manifest()
        }
    }
}

/// A first, empty segment at `base`, durable.
pub(crate) async fn begin_at<E: Env>(
    shared: &Arc<Shared<E>>,
    config: &LogConfig,
    base: Offset,
) -> Result<Parts<E>, LogError> {
    let path = names::path(&shared.folder, base, names::LOG);
    let file = crate::roll::create_fresh(shared, &path).await?;
    let proof = file.sync().await?;
    make_indexes(shared, base).await?;
    Ok(begun_at(shared, config, base, file, proof))
}

/// The parts of a log whose first, empty segment is `file`.
pub(crate) fn begun_at<E: Env>(
    shared: &Shared<E>,
    config: &LogConfig,
    base: Offset,
    file: File<E>,
    proof: Durable,
) -> Parts<E> {
    let created = shared.dir.env.wall();
    let tip = Tip::new(base, created, draw_jitter(&shared.dir.env.rng("log"), config));
    Parts {
        sealed: Segments::default(),
        active: Segment::new(Head::new(base, created)),
        file,
        tip,
        log_start: base,
        proof: Some(proof),
        scanned_from: base,
    }
}

/// Lists the folder, and removes what is only left over: scratch files and those marked as deleted, of names that we or Kafka give.
pub(crate) async fn list<E: Env>(shared: &Shared<E>) -> Result<Listing, LogError> {
    let (mut listing, mut leftovers) = (Listing::default(), Vec::new());
    for entry in shared.dir.dir.list(&shared.folder).await? {
        let name = entry.name;
        if entry.kind == EntryKind::Dir {
            // None of ours; what should be a file of that name is missing.
            let folder = &*shared.folder;
            let error_log = &shared.dir.error_log;
            if error_log.is_first_of("a directory where only files are", &format!("{folder}/{name}")) {
                tracing::warn!(folder, name, "a directory where only files are; left alone");
            }
            continue;
        }
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        if names::is_leftover(&name) {
            leftovers.push(format!("{}/{name}", shared.folder));
            continue;
        }
        if suffix == names::SWAP {
            let what = "Apache Kafka was killed while it put a compacted segment in place: start Kafka on the directory and stop it \
                cleanly, it finishes that";
            return Err(LogError::Malformed {
                file: format!("{}/{name}", shared.folder),
                what: what.to_owned(),
            });
        }
        match names::parse(&name) {
            Some((base, names::LOG)) => drop(listing.logs.insert(base)),
            Some((offset, names::SNAPSHOT)) => drop(listing.snapshots.insert(offset)),
            _ => {}
        }
        listing.names.insert(name);
    }
    // AFTER all names were seen: what is replaced by a segment that is not in place yet must stay.
    for path in leftovers {
        remove_if_there(shared, &path).await?;
    }
    Ok(listing)
}

impl<E: Env> LogDir<E> {
    /// Whose log is in a folder, without opening it: as `partition.metadata` says, or else the manifest. Zero, if neither does.
    ///
    /// # Errors
    /// The folder can't be read.
    pub async fn topic_id(&self, folder: &str) -> Result<Uuid, LogError> {
        let shared = Shared::new(self, folder);
        let listing = list(&shared).await?;
        let id = read_topic_id(&shared, &listing).await?;
        if !id.is_zero() {
            return Ok(id);
        }
        self.topic_id_by_manifest(folder).await
    }

    /// Whose log is in a folder by its manifest, which has a checksum. Zero, if there is none that can be read.
    ///
    /// # Errors
    /// The folder can't be read.
    pub async fn topic_id_by_manifest(&self, folder: &str) -> Result<Uuid, LogError> {
        let shared = Shared::new(self, folder);
        let listing = list(&shared).await?;
        let manifest = read_manifest(&shared, &listing).await?;
        Ok(manifest.map_or(Uuid::ZERO, |m| m.topic_id))
    }
}

/// What `partition.metadata` says; zero where it is missing or can't be read.
pub(crate) async fn read_topic_id<E: Env>(shared: &Shared<E>, listing: &Listing) -> Result<Uuid, LogError> {
    let file = format!("{}/{}", shared.folder, names::PARTITION_METADATA);
    if !listing.names.contains(names::PARTITION_METADATA) {
        return Ok(Uuid::ZERO);
    }
    let text = shared.dir.dir.read(&file, METADATA_BYTES_MAX).await?;
    if text.is_empty() {
        // A fresh log's, which a power loss took.
        return Ok(Uuid::ZERO);
    }
    Ok(decode_partition_metadata(&text).unwrap_or_else(|what| {
        if shared
            .dir
            .error_log
            .is_first_of("partition.metadata not readable", &file)
        {
            tracing::error!(file, what, "not readable");
        }
        Uuid::ZERO
    }))
}

async fn read_manifest<E: Env>(shared: &Shared<E>, listing: &Listing) -> Result<Option<Manifest>, LogError> {
    if !listing.names.contains(names::MANIFEST) {
        return Ok(None);
    }
    let path = format!("{}/{}", shared.folder, names::MANIFEST);
    let bytes = shared.dir.dir.read(&path, SMALL_FILE_BYTES_MAX).await?;
    let manifest = Manifest::decode(&bytes);
    if manifest.is_none() && shared.dir.error_log.is_first_of("manifest damaged", &path) {
        tracing::error!(path, "damaged; the whole log is scanned");
    }
    Ok(manifest)
}

/// After a clean stop: everything is as the manifest says. `None` if it is not, and recovery has to look.
async fn open_clean<E: Env>(
    shared: &Arc<Shared<E>>,
    config: &LogConfig,
    recorded: &Recorded,
    manifest: &Manifest,
    listing: &Listing,
) -> Result<Option<Parts<E>>, LogError> {
    let Some(info) = manifest.active.filter(|_| manifest.cutting == Cutting::No) else {
        return Ok(None);
    };
    // What was recorded of that stop says the same, or one of both files is of another time.
    let said = (recorded.recovery_point, recorded.log_start, recorded.truncations);
    if said != (Some(info.head.next), manifest.log_start, manifest.truncations) {
        return Ok(None);
    }
    let mut expected: BTreeSet<Offset> = manifest.sealed.iter().map(|s| s.head.base).collect();
    expected.insert(info.head.base);
    if expected != listing.logs || !sealed_are_whole(shared, manifest).await? {
        return Ok(None);
    }
    let file = shared
        .dir
        .dir
        .open(&names::path(&shared.folder, info.head.base, names::LOG))
        .await?;
    if file.len() != info.head.size {
        return Ok(None);
    }
    is_of_this_log(&file, &info.head, names::MANIFEST).await?;
    let Some(last_time) = indexes_agree(shared, &info).await? else {
        return Ok(None);
    };
    let jitter = draw_jitter(&shared.dir.env.rng("log"), config);
    Ok(Some(Parts {
        sealed: Arc::new(
            manifest
                .sealed
                .iter()
                .map(|s| Arc::new(Segment::sealed(*s)))
                .collect(),
        ),
        active: Segment::sealed(info),
        file,
        tip: Tip::loaded(info, last_time, jitter),
        log_start: manifest.log_start,
        proof: None,
        scanned_from: info.head.next,
    }))
}

/// Another broker had the log since its manifest was written, so that is out of date. But unless it has compacted the log, it took
/// sealed segments away from the log's begin on, and shortened none: up to where they reach, which this returns, all is durable.
///
/// # Errors
/// One is missing behind the first, shorter, or another log's.
async fn sealed_before<E: Env>(
    shared: &Shared<E>,
    listing: &Listing,
    topic_id: Uuid,
) -> Result<Option<Offset>, LogError> {
    let Some(manifest) = read_manifest(shared, listing).await? else {
        return Ok(None);
    };
    let is_of_it = manifest.topic_id == topic_id && manifest.partition == shared.partition();
    let (Some(first), true) = (listing.logs.first(), is_of_it && manifest.cutting == Cutting::No) else {
        return Ok(None);
    };
    let all = manifest.sealed.iter().chain(&manifest.active);
    for SegmentInfo { head, .. } in all.filter(|s| s.head.base >= *first) {
        let path = names::path(&shared.folder, head.base, names::LOG);
        let damage = |position, what: &str| {
            let what = format!(
                "{what} than brokkr-manifest says, which is of a time before another broker had the directory"
            );
            LogError::Damaged(Damage {
                file: path.clone(),
                position,
                offset: head.base,
                what,
            })
        };
        if !listing.logs.contains(&head.base) {
            return Err(damage(0, "it is missing: fewer segments are there"));
        }
        let file = shared.dir.files.open(&path).await?;
        if file.len() < head.size {
            return Err(damage(file.len(), "it is shorter"));
        }
        is_of_this_log(&file, head, names::MANIFEST).await?;
    }
    Ok(Some(
        manifest.active.map_or(manifest.rest, |active| active.head.next),
    ))
}

/// Whether every sealed segment is as long as it was.
///
/// # Errors
/// One is another log's.
async fn sealed_are_whole<E: Env>(shared: &Shared<E>, manifest: &Manifest) -> Result<bool, LogError> {
    for SegmentInfo { head, .. } in &manifest.sealed {
        let path = names::path(&shared.folder, head.base, names::LOG);
        let file = shared.dir.files.open(&path).await?;
        if file.len() != head.size {
            return Ok(false);
        }
        is_of_this_log(&file, head, names::MANIFEST).await?;
    }
    Ok(true)
}

/// Looks whether a segment begins with the batch that it began with. One that is rotten is left to who reads it; one that is sound is
/// of another log.
pub(crate) async fn is_of_this_log<E: Env>(
    file: &File<E>,
    head: &Head,
    said_by: &str,
) -> Result<(), LogError> {
    let end = head.size.min(file.len());
    if head.first_crc == 0 || end < HEADER_LEN as u64 {
        return Ok(());
    }
    let first = file.read_at(0, HEADER_LEN as u32).await?;
    let is_it = |header: &BatchHeader| header.crc == head.first_crc;
    if BatchHeader::decode(&first).is_ok_and(|header| is_it(&header)) {
        return Ok(());
    }
    let mut chain = Chain::of_segment(head.base);
    match Scan::new(file, 0, end).next(&mut chain).await {
        Ok(Some(batch)) if !is_it(&batch.header) => Err(LogError::Damaged(Damage {
            file: file.path().to_owned(),
            position: 0,
            offset: head.base,
            what: format!("it begins with another batch than {said_by} says: one of both is another log's"),
        })),
        Err(ScanError::Io(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

/// Whether a segment's index files are as long as they should be, and end with what they should: the last timestamp of the time
/// index. What is wrong in their middle is noticed when it is followed, and the indexes are built again then.
pub(crate) async fn indexes_agree<E: Env>(
    shared: &Shared<E>,
    info: &SegmentInfo,
) -> Result<Option<UnixMillis>, LogError> {
    let path = |suffix| names::path(&shared.folder, info.head.base, suffix);
    let open = async |suffix| match shared.dir.files.open(&path(suffix)).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let (Some(offsets), Some(times)) = (open(names::INDEX).await?, open(names::TIME_INDEX).await?) else {
        return Ok(None);
    };
    let head = &info.head;
    let end = relative(head.base, head.next).unwrap_or(u32::MAX);
    // Whether its batch is there is noticed when it is followed: if it is not, the batch may be what is wrong.
    match last_entry::<E, OffsetEntry>(&offsets, info.offset_entries).await? {
        Some(Some(last)) if last.position == 0 || u64::from(last.position) >= head.size => return Ok(None),
        Some(Some(last)) if last.relative >= end => return Ok(None),
        None => return Ok(None),
        Some(_) => {}
    }
    match last_entry::<E, TimeEntry>(&times, info.time_entries).await? {
        None => Ok(None),
        Some(None) if head.max_timestamp.0 < 0 => Ok(Some(UnixMillis::NONE)),
        Some(None) => Ok(None),
        Some(Some(last)) => {
            let expected = (head.max_timestamp, relative(head.base, head.max_timestamp_offset));
            Ok((expected == (last.timestamp, Some(last.relative))).then_some(last.timestamp))
        }
    }
}

/// The last of an index file's `count` entries, if it has just those; `None` if not.
async fn last_entry<E: Env, T: Entry>(file: &File<E>, count: u32) -> Result<Option<Option<T>>, LogError> {
    let len = u64::from(count) * T::LEN as u64;
    if file.len() != len {
        return Ok(None);
    }
    if len == 0 {
        return Ok(Some(None));
    }
    let last = file.read_at(len - T::LEN as u64, T::LEN as u32).await?;
    Ok(Some(Some(T::get(&last))))
}
