//! Writes the checkpoints: at intervals, how far each log is durable, and the high watermarks.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_log::{LogCheckpoint, checkpoint};
use brokkr_types::Offset;

use super::{LogDirs, OwnedLogDir};
use crate::ctx::Ctx;
use crate::partition::PartitionHandle;
use crate::partitions::Routes;
use crate::stop::StopSignal;

/// What was last recorded in a directory.
#[derive(Clone, Default)]
struct LastRecorded {
    logs: BTreeMap<String, LogCheckpoint>,
    high_watermarks: BTreeMap<String, Offset>,
}

/// Writes the checkpoints until the stop signal.
pub async fn checkpoints<E: Env>(mut ctx: Ctx<E>, log_dirs: LogDirs<E>, stop: StopSignal) {
    let mut last = vec![LastRecorded::default(); log_dirs.opened().count()];
    // The state when everything was last recorded, and the change count when the high watermarks were.
    let (mut recorded_at, mut high_watermarks_at) = (None, None);
    for round in 0u64.. {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = ctx.env.sleep_until(ctx.env.now() + ctx.config.limits.checkpoint) => {}
        }
        for dir in log_dirs.opened() {
            if let Err(error) = dir.logs.fill_reserve().await {
                ctx.error_log.record("no reserve on the disk", &error);
            }
        }
        // BEFORE the state is read: a later change is seen in the next round.
        let now = (ctx.changes.count(), ctx.controller.recorded());
        let high_watermarks =
            round % ctx.config.limits.checkpoint_high_watermarks == 0 && high_watermarks_at != Some(now.0);
        if recorded_at.as_ref() == Some(&now) && !high_watermarks {
            continue;
        }
        let routes = Arc::clone(ctx.routes());
        ctx.release();
        let mut is_ok = true;
        for (dir, last) in log_dirs.opened().zip(&mut last) {
            let metadata = (dir.path == log_dirs.metadata.path).then(|| now.1.clone());
            is_ok &= dir.record(&ctx, &routes, metadata, last, high_watermarks).await;
        }
        if high_watermarks {
            high_watermarks_at = is_ok.then_some(now.0);
        }
        recorded_at = is_ok.then_some(now);
    }
}

impl<E: Env> OwnedLogDir<E> {
    /// The checkpoint of each log: for open logs from their owners, for the others as at the start. Logs that nothing was
    /// ever appended to have none.
    fn logs_now(
        &self,
        routes: &Routes<E>,
        metadata: Option<(String, LogCheckpoint)>,
    ) -> BTreeMap<String, LogCheckpoint> {
        let now = |(_, folder, handle): (_, String, &PartitionHandle<E>)| {
            let recorded = match handle.view() {
                Ok(Some(view)) => view.recorded.clone(),
                Ok(None) | Err(_) => self.recorded(&folder).cloned(),
            };
            Some((folder, recorded?))
        };
        let mut logs: BTreeMap<_, _> = routes
            .handles()
            .filter(|(directory, ..)| *directory == self.id())
            .filter_map(now)
            .collect();
        logs.extend(self.unmanaged(&self.remembered.logs));
        logs.extend(metadata);
        logs
    }

    /// Writes the checkpoints that changed. Returns whether all writes succeeded.
    async fn record(
        &self,
        ctx: &Ctx<E>,
        routes: &Routes<E>,
        metadata: Option<(String, LogCheckpoint)>,
        last: &mut LastRecorded,
        high_watermarks: bool,
    ) -> bool {
        let mut is_ok = true;
        let logs = self.logs_now(routes, metadata);
        if logs != last.logs {
            match checkpoint::write(&self.logs, &logs).await {
                Ok(()) => last.logs = logs,
                Err(error) => {
                    is_ok = false;
                    ctx.error_log.record("checkpoint failed", &error);
                }
            }
        }
        if high_watermarks {
            let high: BTreeMap<_, _> = routes
                .handles()
                .filter(|(directory, ..)| *directory == self.id())
                .filter_map(|(_, folder, handle)| Some((folder, handle.view_if_open()?)))
                .filter(|(_, view)| view.recorded.is_some())
                .map(|(folder, view)| (folder, view.high_watermark))
                .chain(self.unmanaged(&self.remembered.high_watermarks))
                .collect();
            if high != last.high_watermarks {
                match checkpoint::write_high_watermarks(&self.logs, &high).await {
                    Ok(()) => last.high_watermarks = high,
                    Err(error) => {
                        is_ok = false;
                        ctx.error_log.record("checkpoint failed", &error);
                    }
                }
            }
        }
        is_ok
    }
}
