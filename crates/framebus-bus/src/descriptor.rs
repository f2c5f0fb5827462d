//! The file descriptor that becomes readable when a reader is woken: for poll, epoll and
//! whatever is built on them.

#![allow(unsafe_code)]

use crate::{Ipc, wake::Waker};
use iceoryx2::prelude::FileDescriptorBased as _;
use std::os::fd::{AsFd, BorrowedFd};

impl AsFd for Waker<Ipc> {
    /// Readable from the moment something was sent until [`Waker::drain`] or
    /// [`Waker::wait`]. To be waited for and nothing else: bytes that somebody else
    /// takes from it wake nobody.
    fn as_fd(&self) -> BorrowedFd<'_> {
        let descriptor = self.listener().file_descriptor();
        // SAFETY: the number is only borrowed, for as long as the listener is, which
        // owns the descriptor and closes it nowhere but in its own drop.
        let number = unsafe { descriptor.native_handle() };
        // SAFETY: as above; the listener made its socket, so the number is not -1.
        unsafe { BorrowedFd::borrow_raw(number) }
    }
}
