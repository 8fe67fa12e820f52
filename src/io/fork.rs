//! Whether this process is a forked child of the one that made an endpoint.
//!
//! Asking for the process id is a system call, a tenth of what sending a datagram costs. Linux wipes a page in a
//! forked child that was marked so (madvise(2), `MADV_WIPEONFORK`): one load tells. Where that cannot be had the id is
//! compared.

use std::{
    process, ptr,
    sync::atomic::{AtomicU32, Ordering},
};

/// The process that made this.
#[derive(Debug)]
pub(super) struct Birthplace {
    process: u32,
    /// Holds [`HERE`] in that process and zero in its children.
    mark: Option<Page>,
}

/// What is in the page.
const HERE: u32 = 1;

impl Birthplace {
    /// The current process.
    pub(super) fn here() -> Self {
        Self { process: process::id(), mark: Page::new() }
    }

    /// Whether the current process is another.
    pub(super) fn is_elsewhere(&self) -> bool {
        match &self.mark {
            Some(page) => page.value().load(Ordering::Relaxed) != HERE,
            None => self.process != process::id(),
        }
    }
}

/// A page that is wiped in forked children.
#[derive(Debug)]
struct Page {
    start: ptr::NonNull<AtomicU32>,
    length: usize,
}

// SAFETY: the page is shared only as an atomic number.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    #[cfg(target_os = "linux")]
    fn new() -> Option<Self> {
        // SAFETY: asks for a number.
        let length = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        let page = Self { start: ptr::NonNull::new(start.cast())?, length };
        // SAFETY: the mapping is ours, and as long as told.
        if unsafe { libc::madvise(start, length, libc::MADV_WIPEONFORK) } != 0 {
            return None;
        }
        page.value().store(HERE, Ordering::Relaxed);
        Some(page)
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Option<Self> {
        None
    }

    fn value(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as `self`, zeroed at first, aligned, and used as this number only.
        unsafe { self.start.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}
