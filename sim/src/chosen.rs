//! Arguments that choose one run: a seed, or a plan.

use std::path::PathBuf;

use brokkr_sim::plan::{Faults, Plan};
use clap::Args;

use crate::arguments::SECS;
use crate::documents::read_plan;
use crate::runner::child::RunSpec;

/// See the module.
#[derive(Args, Clone)]
#[group(skip)]
pub struct Chosen {
    /// The seed of the run
    #[arg(long)]
    pub seed: Option<u64>,
    /// A plan, as `plan` prints it or a failure leaves it, instead of a seed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "secs", "faults"])]
    pub plan: Option<PathBuf>,
    /// Virtual seconds of the run
    #[arg(long, default_value_t = SECS)]
    pub secs: u64,
    /// Faults to inject: none, default, unlimited, or a list of families
    #[arg(long, default_value_t = Faults::Default)]
    pub faults: Faults,
}

impl Chosen {
    /// The run's plan, and how it is repeated.
    ///
    /// # Errors
    /// Neither a seed nor a plan was chosen; the plan can't be read.
    pub fn run(&self) -> Result<(Plan, RunSpec<'_>), String> {
        let what = match (&self.plan, self.seed) {
            (Some(path), _) => {
                let plan = read_plan(path)?;
                let (seed, secs) = (plan.seed, plan.secs);
                return Ok((plan, RunSpec::Plan { path, seed, secs }));
            }
            (None, Some(seed)) => RunSpec::Seed {
                seed,
                secs: self.secs,
                faults: &self.faults,
            },
            (None, None) => return Err("which run? --seed N, or --plan FILE".to_owned()),
        };
        Ok((what.plan()?, what))
    }
}
