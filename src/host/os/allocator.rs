//! The runtime's allocator: dlmalloc without its lock, which took a ninth of the instructions of a call.

#![expect(unsafe_code, reason = "GlobalAlloc is unsafe to implement, and here without a lock")]

use dlmalloc::Dlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;

/// The allocator of a program that has one thread only.
pub struct SingleThreaded(UnsafeCell<Dlmalloc>);

impl SingleThreaded {
    /// An allocator that has no memory yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "Default cannot initialize a static")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Dlmalloc::new()))
    }
}

// SAFETY: the runtime starts no thread, so nothing is shared: a tidy test finds `std::thread` in what it is made of.
// A signal handler could interrupt an allocation, but the only handlers are std's, which report a stack overflow
// without allocating. A child of posix_spawn(3) executes its program without allocating.
unsafe impl Sync for SingleThreaded {}

// SAFETY: dlmalloc keeps the contract of each method, as its own GlobalDlmalloc does. The exclusive reference ends
// with the statement, and no allocation happens within dlmalloc.
unsafe impl GlobalAlloc for SingleThreaded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see above.
        unsafe { (*self.0.get()).free(block, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { (*self.0.get()).realloc(block, layout.size(), layout.align(), size) }
    }
}
