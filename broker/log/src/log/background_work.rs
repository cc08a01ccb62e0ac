//! The state of a log's background work: at most one job and one index rebuild in flight.

use brokkr_env::Result;
use brokkr_types::Offset;

use crate::error::LogError;
use crate::log::pipeline::InFlight;
use crate::log::staged::SealPlan;
use crate::state::epochs::LeaderEpochs;
use crate::state::segment::Segment;

pub(crate) struct BackgroundWork {
    pub(crate) job: Option<(BackgroundJob, InFlight<Result<()>>)>,
    /// The rebuild of a segment's indexes, with its base offset.
    pub(crate) rebuilding: Option<InFlight<(Offset, std::result::Result<Segment, LogError>)>>,
    /// The last sealed segment, until the manifest lists it.
    pub(crate) seal: Option<SealPlan>,
    /// The content of `leader-epoch-checkpoint`.
    pub(crate) persisted_epochs: LeaderEpochs,
    /// Whether the last job failed. The next one waits for a successful write.
    pub(crate) stalled: bool,
}

pub(crate) enum BackgroundJob {
    Seal(LeaderEpochs),
    Epochs(LeaderEpochs),
    IndexTails { offsets: usize, times: usize },
}

impl BackgroundWork {
    pub(crate) fn new(persisted_epochs: LeaderEpochs) -> Self {
        Self {
            job: None,
            rebuilding: None,
            seal: None,
            persisted_epochs,
            stalled: false,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.job.is_some() || self.rebuilding.is_some()
    }
}
