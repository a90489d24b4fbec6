//! The process's allocator: the system's, but for the runtime's cache-aligned blocks.
//!
//! An idle session is three blocks that tokio aligns to 128 bytes: its task, and a registration for
//! each of its two sockets. The system's allocator writes a header before each block, so no two
//! aligned ones can touch, and every one drags a gap of up to 128 bytes behind it. Here they lie edge to
//! edge in slabs, by size. Knows nothing of what the blocks are for.
//!
//! A slab belongs to a shard, threads spread over the shards, and a block goes back to the shard that
//! its slab belongs to, whoever frees it. So a worker meets nobody at its lock, and what one
//! thread allocates and another frees is used again. Slabs stay for later sessions: memory follows
//! the most sessions that there ever were at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The alignment that is packed; tokio's, on the processors that fetch cache lines in pairs.
const ALIGN: usize = 128;
/// The largest block that is packed.
const LARGEST: usize = 1024;
/// Sizes of blocks: every multiple of the alignment.
const SIZES: usize = LARGEST / ALIGN;
/// Size and alignment of a slab. Only what was used of it is resident.
const SLAB: usize = 256 * 1024;
/// Locks; a worker should have one of its own.
const SHARDS: usize = 64;

/// The allocator; see the module.
#[derive(Debug)]
pub struct Packed {
    shards: [Shard; SHARDS],
}

impl Packed {
    /// An allocator that holds no slab yet.
    pub const fn new() -> Self {
        Self {
            shards: [const { Shard::new() }; SHARDS],
        }
    }
}

impl Default for Packed {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(unsafe_code, reason = "an allocator is made of promises")]
// SAFETY: what is not packed is the system's, layout and all. A packed block is as large and as
// aligned as asked for, and handed out once until it comes back.
unsafe impl GlobalAlloc for Packed {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match packed_as(layout) {
            Some(size) => self.shards[own_shard()].take(own_shard(), size),
            // SAFETY: the caller's promises are passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match (packed_as(layout), NonNull::new(block.cast::<Free>())) {
            (Some(size), Some(block)) => {
                // SAFETY: a block of this layout came out of `take`, so it lies in a slab, whose
                // address is a multiple of its size and which begins with its head.
                let shard = unsafe { (*slab_of(block)).shard };
                self.shards[shard].give_back(size, block);
            }
            // SAFETY: the caller's promises are passed on.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if packed_as(layout).is_none() {
            // What the kernel has just zeroed need not be zeroed again.
            // SAFETY: the caller's promises are passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above; a block is at least as large as its layout.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size, rounded up to the alignment, fits an isize.
        let grown = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if packed_as(layout).is_none() && packed_as(grown).is_none() {
            // The system may grow it where it is.
            // SAFETY: the caller's promises are passed on.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: both blocks are as large as their layouts, and they are not the same one.
        unsafe {
            let moved = self.alloc(grown);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Which size of block a layout is packed as, if it is.
fn packed_as(layout: Layout) -> Option<usize> {
    let fits = layout.align() == ALIGN && 0 < layout.size() && layout.size() <= LARGEST;
    fits.then(|| layout.size().div_ceil(ALIGN) - 1)
}

fn slab_of(block: NonNull<Free>) -> *const Head {
    block
        .as_ptr()
        .map_addr(|address| address & !(SLAB - 1))
        .cast()
}

/// The calling thread's shard.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Needs neither memory nor a destructor, so an allocator may use it at any time.
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

/// What a slab begins with.
#[repr(align(128))]
struct Head {
    /// Where its blocks go back to.
    shard: usize,
}

/// A free block: where the next one is.
struct Free {
    next: Option<NonNull<Free>>,
}

/// The blocks of one size: those that came back, and the part of the last slab that was never used.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    free: Option<NonNull<Free>>,
    fresh: *mut u8,
    left: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    locked: AtomicBool,
    blocks: UnsafeCell<[Blocks; SIZES]>,
}

#[expect(unsafe_code, reason = "an allocator is made of promises")]
// SAFETY: `blocks` is touched under `locked` only, and pointers in it mean the same on every thread.
unsafe impl Sync for Shard {}

impl Shard {
    const fn new() -> Self {
        let none = Blocks {
            free: None,
            fresh: ptr::null_mut(),
            left: 0,
        };
        Self {
            locked: AtomicBool::new(false),
            blocks: UnsafeCell::new([none; SIZES]),
        }
    }

    /// A block of that size, from this shard, which is number `own`; null when the system has no
    /// memory left.
    #[expect(unsafe_code, reason = "carves blocks out of raw memory")]
    fn take(&self, own: usize, size: usize) -> *mut u8 {
        self.with(size, |blocks| {
            if let Some(block) = blocks.free {
                // SAFETY: a free block is nobody's but this list's, and `give_back` has written its
                // link.
                blocks.free = unsafe { (*block.as_ptr()).next };
                return block.as_ptr().cast();
            }
            let length = (size + 1) * ALIGN;
            if blocks.left < length {
                // SAFETY: the layout has a size.
                let slab = unsafe { System.alloc(SLAB_LAYOUT) };
                if slab.is_null() {
                    return slab;
                }
                // SAFETY: the slab is fresh, large enough for its head, and aligned for it.
                unsafe { slab.cast::<Head>().write(Head { shard: own }) };
                blocks.fresh = slab.wrapping_add(ALIGN);
                blocks.left = SLAB - ALIGN;
            }
            let block = blocks.fresh;
            blocks.fresh = block.wrapping_add(length);
            blocks.left -= length;
            block
        })
    }

    #[expect(unsafe_code, reason = "links blocks of raw memory")]
    fn give_back(&self, size: usize, block: NonNull<Free>) {
        self.with(size, |blocks| {
            let next = blocks.free.replace(block);
            // SAFETY: the caller has no use for the block any more, and it is larger than a link.
            unsafe { block.as_ptr().write(Free { next }) };
        });
    }

    /// Works on the blocks of one size under the lock. Nothing in `work` can panic or allocate
    /// packed memory.
    #[expect(unsafe_code, reason = "the lock is made by hand: std's may allocate")]
    fn with<T>(&self, size: usize, work: impl FnOnce(&mut Blocks) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            // Held for a few instructions; if its holder is off the processor, let it come back.
            std::thread::yield_now();
        }
        // SAFETY: the lock is held, so nobody else has a reference.
        let result = work(unsafe { &mut (&mut *self.blocks.get())[size] });
        self.locked.store(false, Ordering::Release);
        result
    }
}

const SLAB_LAYOUT: Layout = match Layout::from_size_align(SLAB, SLAB) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use proptest::prelude::*;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGN).unwrap()
    }

    /// A block that was filled with a number of its own.
    struct Held {
        block: *mut u8,
        size: usize,
        mark: u8,
    }

    // SAFETY: the block is its holder's alone.
    #[expect(unsafe_code, reason = "raw memory changes threads")]
    unsafe impl Send for Held {}

    impl Held {
        #[expect(unsafe_code, reason = "tests an allocator")]
        fn take(packed: &Packed, size: usize, mark: u8) -> Self {
            // SAFETY: the size is not zero, and the block is as large as asked for.
            let block = unsafe { packed.alloc(layout(size)) };
            assert!(!block.is_null() && block.addr().is_multiple_of(ALIGN));
            // SAFETY: as above.
            unsafe { block.write_bytes(mark, size) };
            Self { block, size, mark }
        }

        #[expect(unsafe_code, reason = "tests an allocator")]
        fn give_back(self, packed: &Packed) {
            // SAFETY: the block was filled when it was taken, and is given back once.
            unsafe {
                let bytes = std::slice::from_raw_parts(self.block, self.size);
                assert!(bytes.iter().all(|&byte| byte == self.mark), "overwritten");
                packed.dealloc(self.block, layout(self.size));
            }
        }
    }

    #[test]
    fn blocks_lie_edge_to_edge() {
        let packed = Packed::new();
        let held: Vec<_> = (0..100).map(|_| Held::take(&packed, 256, 7)).collect();
        for pair in held.windows(2) {
            assert_eq!(pair[1].block.addr() - pair[0].block.addr(), 256);
        }
        held.into_iter().for_each(|held| held.give_back(&packed));
    }

    #[test]
    fn what_another_thread_frees_is_used_again() {
        let packed: &Packed = Box::leak(Box::default());
        let (send, receive) = mpsc::channel::<Held>();
        let (freed, wait) = mpsc::channel();
        let other = std::thread::spawn(move || {
            for held in receive {
                held.give_back(packed);
                freed.send(()).unwrap();
            }
        });
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let held = Held::take(packed, 384, 9);
            seen.insert(held.block.addr());
            send.send(held).unwrap();
            wait.recv().unwrap();
        }
        drop(send);
        other.join().unwrap();
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn threads_do_not_meet_in_a_block() {
        let packed: &Packed = Box::leak(Box::default());
        let threads: Vec<_> = (0..8_u8)
            .map(|mark| {
                std::thread::spawn(move || {
                    let mut held = Vec::new();
                    for turn in 0..20_000_usize {
                        held.push(Held::take(packed, 1 + turn * 37 % LARGEST, mark));
                        if turn % 3 != 0 {
                            held.swap_remove(turn * 7 % held.len()).give_back(packed);
                        }
                    }
                    held.into_iter().for_each(|held| held.give_back(packed));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "tests an allocator")]
    fn a_block_keeps_its_bytes_while_it_grows_into_the_systems_and_back() {
        let packed = Packed::new();
        // SAFETY: sizes are not zero, and every block is given back with its last layout.
        unsafe {
            let mut block = packed.alloc_zeroed(layout(200));
            assert!(
                std::slice::from_raw_parts(block, 200)
                    .iter()
                    .all(|&byte| byte == 0)
            );
            block.write_bytes(5, 200);
            let mut size = 200;
            for wanted in [900, LARGEST + 1, 100_000, LARGEST + 9, 300, 200] {
                block = packed.realloc(block, layout(size), wanted);
                assert!(block.addr().is_multiple_of(ALIGN));
                size = wanted;
                assert!(
                    std::slice::from_raw_parts(block, 200)
                        .iter()
                        .all(|&byte| byte == 5)
                );
            }
            packed.dealloc(block, layout(size));
        }
    }

    #[test]
    fn other_layouts_are_the_systems() {
        for (size, align) in [(LARGEST + 1, ALIGN), (256, 64), (256, 256), (0, ALIGN)] {
            assert_eq!(
                packed_as(Layout::from_size_align(size, align).unwrap()),
                None
            );
        }
    }

    proptest! {
        #[test]
        fn no_block_is_held_twice(steps in prop::collection::vec((any::<bool>(), 1..=LARGEST, any::<u8>()), 1..400)) {
            let packed = Packed::new();
            let mut held: Vec<Held> = Vec::new();
            for (take, size, mark) in steps {
                if take || held.is_empty() {
                    held.push(Held::take(&packed, size, mark));
                } else {
                    held.swap_remove(size % held.len()).give_back(&packed);
                }
            }
            held.into_iter().for_each(|held| held.give_back(&packed));
        }
    }
}
