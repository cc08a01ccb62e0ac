//! Errors of the operating system as errors of this crate.

use crate::{Error, ErrorKind};

/// Whether the machine lacks something that it may have again soon, or the call was interrupted.
pub(super) fn is_short(e: &std::io::Error) -> bool {
    let codes = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINTR,
    ];
    e.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// The error of a failed call; `what` names the call and its object.
pub(super) fn os_error(what: &str, e: &std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let short = matches!(
        e.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
    );
    let kind = match e.kind() {
        _ if short => ErrorKind::Resources,
        K::OutOfMemory | K::Interrupted => ErrorKind::Resources,
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::PermissionDenied | K::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        K::AddrInUse | K::WouldBlock | K::ResourceBusy => ErrorKind::InUse,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorKind::NoSpace,
        K::UnexpectedEof => ErrorKind::UnexpectedEof,
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::TimedOut => ErrorKind::Refused,
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::NotConnected => {
            ErrorKind::Disconnected
        }
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what}: {e}"))
}
