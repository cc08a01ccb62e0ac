//! Creating a log, and opening an existing one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_types::{Offset, Uuid};

use super::replay;
use crate::error::{Damage, LogError};
use crate::files::dir::LogDir;
use crate::files::folder::{FolderListing, list, read_manifest, read_topic_id, replace};
use crate::files::index_files::check_indexes;
use crate::files::segment_scan::verify_first_batch;
use crate::files::shared::LogShared;
use crate::formats::manifest::{Manifest, PendingTruncation};
use crate::formats::names;
use crate::formats::text::encode_partition_metadata;
use crate::log::Log;
use crate::log::background_work::BackgroundWork;
use crate::log::parts::{LogParts, create_first_segment, draw_jitter};
use crate::log::pipeline::Pipeline;
use crate::log::recovery::{RecoveredLog, Recovery, recover};
use crate::reader::view::{Boundary, OffsetMetadata};
use crate::state::ackable::AckableOffset;
use crate::state::config::LogConfig;
use crate::state::epochs::LeaderEpochs;
use crate::state::log_checkpoint::LogCheckpoint;
use crate::state::producers::Producers;
use crate::state::segment::{Segment, SegmentBuilder, SegmentInfo};

impl<E: Env> Log<E> {
    /// Creates the log of a new partition, at offset 0. Durable when this returns.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the folder has files; they are unchanged.
    pub async fn create(
        dir: &LogDir<E>,
        folder: &str,
        topic_id: Uuid,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(LogShared::new(dir, folder));
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
        let parts = create_first_segment(&shared, &config, Offset(0)).await?;
        let log = Self::assemble(shared, topic_id, config, parts);
        replace(&log.shared, names::MANIFEST, log.manifest().encode()).await?;
        Ok(log)
    }

    /// Opens the log in `folder`, whose checkpoint is `recorded`, and recovers it after a crash. When this returns,
    /// everything in it is durable; the caller should record its [`Log::checkpoint`] soon.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if durable bytes are missing or damaged; nothing was cut.
    pub async fn open(
        dir: &LogDir<E>,
        folder: &str,
        config: LogConfig,
        recorded: &LogCheckpoint,
    ) -> Result<(Self, Recovery), LogError> {
        let shared = Arc::new(LogShared::new(dir, folder));
        if !recorded.clean {
            // BEFORE anything read here is acted upon: a killed process may have left directory entries that the next
            // power loss reverts, the folder's own included, and the manifest must not revert to an older one.
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
            topic_id = manifest.check_identity(&shared.folder, topic_id)?;
        }
        let mut recorded = recorded.of(topic_id);
        if recorded.foreign && !recorded.compacted {
            let sealed_to = durable_end_of_sealed(&shared, &listing, topic_id).await?;
            recorded.recovery_point = recorded.recovery_point.max(sealed_to);
        }
        let recorded = &recorded;
        if let Some(manifest) = &manifest {
            manifest.check_not_older(&shared.folder, recorded)?;
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
                let RecoveredLog { parts, recovery } =
                    recover(&shared, &config, recorded, manifest.as_ref(), &mut listing).await?;
                (parts, recovery)
            }
        };
        let scanned_from = parts.scanned_from;
        let mut log = Self::assemble(shared, topic_id, config, parts);
        log.truncations = recorded.truncations;
        // Without its manifest a log of this broker has no gaps: recovery refuses them.
        let is_own_log = recorded.recovery_point.is_some() && !recorded.foreign;
        log.gaps = manifest.as_ref().map_or(!is_own_log, |m| m.gaps);
        if let Some(manifest) = &manifest {
            if recovery.clean {
                log.opened_crcs = Some((manifest.epochs_crc, crc32fast::hash(&manifest.encode())));
            }
            log.truncations = log.truncations.max(manifest.truncations);
            log.truncated_to = manifest.truncated_to;
        }
        log.shared.status.set_truncations(log.truncations);
        log.shared.status.set_log_start(log.log_start);
        log.load_epochs(&listing, scanned_from, manifest.as_ref()).await?;
        replay::load_producers(&mut log, &listing, &mut recovery).await?;
        log.enforce_producer_budget();
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
        shared: Arc<LogShared<E>>,
        topic_id: Uuid,
        config: LogConfig,
        parts: LogParts<E>,
    ) -> Self {
        let LogParts {
            sealed,
            active,
            file,
            builder,
            log_start,
            proof,
            ..
        } = parts;
        let (end, size, base) = (active.summary.next, active.summary.size, active.summary.base);
        let ackable = match proof {
            Some(proof) => AckableOffset::from_proof(&proof, &file, size, end),
            None => AckableOffset::closed(end),
        };
        Self {
            rng: shared.dir.env.rng("log"),
            producer_budget: shared.dir.producer_budget.usage(),
            shared,
            topic_id,
            config,
            sealed,
            file,
            log_start,
            high_watermark: OffsetMetadata {
                offset: log_start,
                position: None,
            },
            recent: VecDeque::from([Boundary {
                offset: end,
                position: size,
            }]),
            durable_end: end,
            ackable,
            builder,
            producers: Producers::default(),
            epochs: LeaderEpochs::default(),
            undo: VecDeque::new(),
            pipeline: Pipeline::new(&active.summary),
            background: BackgroundWork::new(LeaderEpochs::default()),
            truncations: 0,
            truncated_to: base,
            gaps: false,
            opened_crcs: None,
            clean_stop_snapshot: None,
            unretired: None,
            view: None,
            active,
        }
    }

    /// Writes `partition.metadata` anew. Durable when this returns.
    pub async fn set_topic_id(&mut self, topic_id: Uuid) -> Result<(), LogError> {
        replace(
            &self.shared,
            names::PARTITION_METADATA,
            encode_partition_metadata(topic_id).into(),
        )
        .await?;
        self.topic_id = topic_id;
        // The manifest is then no longer that of a clean stop.
        self.opened_crcs = None;
        Ok(replace(&self.shared, names::MANIFEST, self.manifest().encode()).await?)
    }
}

/// Opens a log after a clean stop. `None` if the files don't match the manifest: then recovery scans them.
async fn open_clean<E: Env>(
    shared: &Arc<LogShared<E>>,
    config: &LogConfig,
    recorded: &LogCheckpoint,
    manifest: &Manifest,
    listing: &FolderListing,
) -> Result<Option<LogParts<E>>, LogError> {
    let Some(info) = manifest
        .active
        .filter(|_| manifest.pending_truncation == PendingTruncation::None)
    else {
        return Ok(None);
    };
    // The checkpoint of that stop must agree with the manifest; otherwise one of both files is from another time.
    let recorded_state = (recorded.recovery_point, recorded.log_start, recorded.truncations);
    if recorded_state != (Some(info.summary.next), manifest.log_start, manifest.truncations) {
        return Ok(None);
    }
    let mut expected: BTreeSet<Offset> = manifest.sealed.iter().map(|s| s.summary.base).collect();
    expected.insert(info.summary.base);
    if expected != listing.logs || !sealed_sizes_match(shared, manifest).await? {
        return Ok(None);
    }
    let file = shared
        .dir
        .dir
        .open(&names::path(&shared.folder, info.summary.base, names::LOG))
        .await?;
    if file.len() != info.summary.size {
        return Ok(None);
    }
    verify_first_batch(&file, &info.summary, names::MANIFEST).await?;
    let Some(last_time) = check_indexes(shared, &info).await? else {
        return Ok(None);
    };
    let jitter = draw_jitter(&shared.dir.env.rng("log"), config);
    Ok(Some(LogParts {
        sealed: Arc::new(
            manifest
                .sealed
                .iter()
                .map(|s| Arc::new(Segment::sealed(*s)))
                .collect(),
        ),
        active: Segment::sealed(info),
        file,
        builder: SegmentBuilder::loaded(info, last_time, jitter),
        log_start: manifest.log_start,
        proof: None,
        scanned_from: info.summary.next,
    }))
}

/// The end of the durable batches, by a manifest that is out of date because another broker had the log since. Unless
/// that broker compacted the log, it removed sealed segments only from the start and shortened none. `None` if the
/// manifest is of no use.
///
/// # Errors
/// [`LogError::Damaged`] if a segment after the first is missing, shorter, or of another log.
async fn durable_end_of_sealed<E: Env>(
    shared: &LogShared<E>,
    listing: &FolderListing,
    topic_id: Uuid,
) -> Result<Option<Offset>, LogError> {
    let Some(manifest) = read_manifest(shared, listing).await? else {
        return Ok(None);
    };
    let is_of_it = manifest.topic_id == topic_id && manifest.partition == shared.partition();
    let (Some(first), true) = (
        listing.logs.first(),
        is_of_it && manifest.pending_truncation == PendingTruncation::None,
    ) else {
        return Ok(None);
    };
    let all = manifest.sealed.iter().chain(&manifest.active);
    for SegmentInfo { summary, .. } in all.filter(|s| s.summary.base >= *first) {
        let path = names::path(&shared.folder, summary.base, names::LOG);
        let damage = |position, what: &str| {
            let what = format!(
                "{what} than brokkr-manifest says, which is of a time before another broker had the directory"
            );
            LogError::Damaged(Damage {
                file: path.clone(),
                position,
                offset: summary.base,
                what,
            })
        };
        if !listing.logs.contains(&summary.base) {
            return Err(damage(0, "it is missing: fewer segments are there"));
        }
        let file = shared.dir.files.open(&path).await?;
        if file.len() < summary.size {
            return Err(damage(file.len(), "it is shorter"));
        }
        verify_first_batch(&file, summary, names::MANIFEST).await?;
    }
    Ok(Some(
        manifest
            .active
            .map_or(manifest.unlisted_base, |active| active.summary.next),
    ))
}

/// Whether every sealed segment has the size in the manifest.
///
/// # Errors
/// [`LogError::Damaged`] if one is of another log.
async fn sealed_sizes_match<E: Env>(shared: &LogShared<E>, manifest: &Manifest) -> Result<bool, LogError> {
    for SegmentInfo { summary, .. } in &manifest.sealed {
        let path = names::path(&shared.folder, summary.base, names::LOG);
        let file = shared.dir.files.open(&path).await?;
        if file.len() != summary.size {
            return Ok(false);
        }
        verify_first_batch(&file, summary, names::MANIFEST).await?;
    }
    Ok(true)
}

impl<E: Env> LogDir<E> {
    /// [`Log::open`]; on a full disk it uses the reserve. Recovery writes little, and without it a topic could not
    /// even be deleted.
    pub async fn open_log(
        &self,
        folder: &str,
        config: &LogConfig,
        recorded: &LogCheckpoint,
    ) -> Result<(Log<E>, Recovery), LogError> {
        loop {
            match Log::open(self, folder, config.clone(), recorded).await {
                Err(error) if self.free_reserve_after(&error).await => {}
                other => return other,
            }
        }
    }
}
