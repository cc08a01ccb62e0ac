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
    /// Indexes that are built again.
    pub(crate) rebuilding: Option<InFlight<(Offset, std::result::Result<Segment, LogError>)>>,
    /// The segment that was sealed last, while the manifest doesn't list it.
    pub(crate) seal: Option<SealPlan>,
    /// What `leader-epoch-checkpoint` says.
    pub(crate) persisted_epochs: LeaderEpochs,
    /// The last job failed; none is begun before a write has succeeded.
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
