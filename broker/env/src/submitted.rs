//! A handle to an operation that has already started.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::sync::oneshot;

use crate::{Error, ErrorKind, Result};

/// An operation that the call submitted. Awaiting it waits for its result; dropping it cancels nothing.
#[must_use = "the operation goes on, but its failure would go unseen"]
pub struct Submitted<T> {
    state: State<T>,
}

enum State<T> {
    Ready(Option<Result<T>>),
    Waiting(oneshot::Receiver<Result<T>>),
}

/// Completes a [`Submitted`]. If it is dropped without a result, the result is [`ErrorKind::Gone`].
pub struct Completer<T>(oneshot::Sender<Result<T>>);

/// A handle and its completer.
pub fn submitted<T>() -> (Completer<T>, Submitted<T>) {
    let (tx, rx) = oneshot::channel();
    (
        Completer(tx),
        Submitted {
            state: State::Waiting(rx),
        },
    )
}

impl<T> Completer<T> {
    /// Sets the result. The handle may have been dropped.
    pub fn complete(self, result: Result<T>) {
        drop(self.0.send(result));
    }
}

impl<T> Submitted<T> {
    /// A handle whose result is already known.
    pub fn ready(result: Result<T>) -> Self {
        Self {
            state: State::Ready(Some(result)),
        }
    }
}

impl<T> Unpin for Submitted<T> {}

impl<T> Future for Submitted<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.state {
            State::Ready(result) => Poll::Ready(result.take().expect("a Submitted is awaited once")),
            State::Waiting(rx) => Pin::new(rx).poll(cx).map(|result| {
                result.unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Gone, "the world ended before it answered"))
                })
            }),
        }
    }
}
