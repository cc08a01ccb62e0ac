//! The owner opens its log, retries transient errors, and answers requests with an error while the log is not open.

use std::sync::Arc;

use brokkr_env::{Env, ErrorKind};
use brokkr_log::LogError;
use brokkr_replication::Leader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::assignment::{Assignment, OwnedLog};
use super::message::{CloseResult, ControlMessage};
use super::owner::Owner;
use super::view::PartitionState;

/// How the time without an open log ends.
enum OfflineExit {
    Retry,
    End,
}

impl<E: Env> Owner<E> {
    /// Opens the log, with retries. `None` if the owner must end.
    pub(super) async fn open(&mut self, assignment: &mut Assignment<E>) -> Option<(OwnedLog<E>, Leader)> {
        let mut attempts = 0u32;
        loop {
            let permit = match assignment
                .log_dir
                .as_ref()
                .map(|log_dir| Arc::clone(&log_dir.openings))
            {
                Some(openings) => Some(self.open_permit(openings, assignment).await?),
                None => None,
            };
            let Some(permit) = permit.flatten() else {
                // Without a log directory, or after it failed, the partition stays offline.
                self.go_offline();
                self.run_without_log(assignment, None).await;
                return None;
            };
            let opened = assignment.open(&self.error_log).await;
            drop(permit);
            let error = match opened {
                Ok(mut log) => {
                    let leader = assignment.leader(self.node, &log);
                    if let OwnedLog::Open(log) = &mut log {
                        log.set_high_watermark(leader.high_watermark());
                    }
                    return Some((log, leader));
                }
                Err(error) => error,
            };
            brokkr_types::reached!("a log went offline when it was opened");
            let retry_at = is_transient(&error).then(|| {
                let after = self.limits.partition_reopen * 2u32.saturating_pow(attempts);
                let after = after.min(self.limits.partition_reopen_max);
                let what = format_args!("{}, again after {after:?}: {error}", assignment.folder);
                self.error_log
                    .record("offline: its log can't be opened now; tried again", &what);
                self.env.now() + after
            });
            if retry_at.is_none() {
                self.log_damaged(&assignment.folder, &error);
            }
            attempts += 1;
            self.go_offline();
            match self.run_without_log(assignment, retry_at).await {
                OfflineExit::Retry => {}
                OfflineExit::End => return None,
            }
        }
    }

    /// Logs one line for each of these logs, up to a limit, since an operator must repair each.
    fn log_damaged(&self, folder: &str, error: &LogError) {
        if self
            .error_log
            .is_first_of("offline: its log can't be opened", folder)
        {
            tracing::error!(log = folder, %error, "offline: its log can't be opened; nothing of it was changed");
        } else {
            let what = format_args!("{folder}: {error}");
            self.error_log
                .record("offline: still more logs can't be opened", &what);
        }
    }

    /// Waits for a permit to open the log. The outer `None`: the owner must end. The inner `None`: the log directory
    /// failed.
    async fn open_permit(
        &mut self,
        openings: Arc<Semaphore>,
        assignment: &mut Assignment<E>,
    ) -> Option<Option<OwnedSemaphorePermit>> {
        let mut permit = std::pin::pin!(openings.acquire_owned());
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control? {
                    ControlMessage::Configure(config) => assignment.config = config,
                    ControlMessage::Retention => {}
                    ControlMessage::LogDirFailed => return Some(None),
                    ControlMessage::Close(reply) => {
                        // Requests that wait for the log are answered.
                        self.go_offline();
                        drop(reply.send(assignment.close_unopened()));
                        return None;
                    }
                    ControlMessage::Delete(reply) => {
                        self.go_offline();
                        let _ = reply.send(assignment.delete(&self.error_log).await);
                        return None;
                    }
                },
                permit = &mut permit => return Some(Some(permit.expect("the semaphore is never closed"))),
            }
        }
    }

    /// Publishes that the partition is offline, and notifies the waiters.
    pub(super) fn go_offline(&mut self) {
        self.publisher.publish(PartitionState::Offline);
        self.publisher.notify_waiters(true);
    }

    /// Answers all data messages with an error until the log must be opened again or the owner must end.
    async fn run_without_log(
        &mut self,
        assignment: &mut Assignment<E>,
        retry_at: Option<brokkr_types::Instant>,
    ) -> OfflineExit {
        let retry = async {
            match retry_at {
                Some(at) => self.env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut retry = std::pin::pin!(retry);
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    None => return OfflineExit::End,
                    Some(ControlMessage::Configure(config)) => assignment.config = config,
                    Some(ControlMessage::Retention | ControlMessage::LogDirFailed) => {}
                    Some(ControlMessage::Close(reply)) => {
                        // The next start recovers it.
                        drop(reply.send(CloseResult::Unclean));
                        return OfflineExit::End;
                    }
                    Some(ControlMessage::Delete(reply)) => {
                        // A new topic of the same name would use this folder.
                        let _ = reply.send(assignment.delete(&self.error_log).await);
                        return OfflineExit::End;
                    }
                },
                message = self.queue.recv() => match message {
                    None => return OfflineExit::End,
                    Some(message) => message.reply_offline(),
                },
                () = &mut retry => return OfflineExit::Retry,
            }
        }
    }
}

/// Whether an error may be transient.
fn is_transient(error: &LogError) -> bool {
    match error {
        LogError::Io(e) => !matches!(e.kind(), ErrorKind::Poisoned | ErrorKind::Gone),
        _ => false,
    }
}
