//! Beginning and ending: a new log, one that is there, and a clean stop.

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

    /// Opens the log in `folder` as `recorded` knows it, recovering what a crash left. When this returns, everything in it
    /// is durable, and the caller should record its [`Log::checkpoint`] before long.
    ///
    /// # Errors
    /// [`LogError::Damaged`] where what was durable is not there any more: nothing was cut.
    pub async fn open(
        dir: &LogDir<E>,
        folder: &str,
        config: LogConfig,
        recorded: &LogCheckpoint,
    ) -> Result<(Self, Recovery), LogError> {
        let shared = Arc::new(LogShared::new(dir, folder));
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
        // In a log of ours that lost its manifest recovery refuses gaps.
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
            view: None,
            active,
        }
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
        self.opened_crcs = None;
        Ok(replace(&self.shared, names::MANIFEST, self.manifest().encode()).await?)
    }
}

/// After a clean stop: everything is as the manifest says. `None` if it is not, and recovery has to look.
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
    // What was recorded of that stop says the same, or one of both files is of another time.
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

/// Another broker had the log since its manifest was written, so that is out of date. But unless it has compacted the log, it took
/// sealed segments away from the log's begin on, and shortened none: up to where they reach, which this returns, all is durable.
///
/// # Errors
/// One is missing behind the first, shorter, or another log's.
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

/// Whether every sealed segment is as long as it was.
///
/// # Errors
/// One is another log's.
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
    /// [`Log::open`], with the reserve's help: what recovery writes is little, and without it a topic could not even be deleted.
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
