//! A pool of threads that process pieces of work in parallel rounds.
//!
//! A round takes 0.1 ms. Waking a thread would take as long, so threads poll for the next one.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Polls for the next round before a thread sleeps.
const LOOKS: u32 = 20_000;
/// Polls for the end of a round before a thread yields.
const LOOKS_FOR_END: u32 = 1_000;

/// Slot of a piece of work.
#[derive(Debug)]
struct Desk<T> {
    piece: Mutex<Option<T>>,
    /// The last round in which a thread took it.
    taken: AtomicU64,
}

#[derive(Debug)]
struct Shared<T> {
    work: fn(&mut T, u64),
    desks: Vec<Desk<T>>,
    threads: usize,
    /// Argument of the current round.
    argument: AtomicU64,
    /// Number of the current round.
    round: AtomicU64,
    /// Pieces not done in the current round.
    left: AtomicUsize,
    over: AtomicBool,
}

impl<T> Desk<T> {
    fn new() -> Self {
        Self {
            piece: Mutex::new(None),
            taken: AtomicU64::new(0),
        }
    }
}

/// Counts a piece as done when dropped, also by a panic.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<T> Shared<T> {
    /// Processes the thread's own pieces, then untaken ones of other threads: memory is best freed
    /// by the thread that has allocated it.
    fn take_part(&self, thread: usize, round: u64) {
        let own = (thread..self.desks.len()).step_by(self.threads);
        for desk in own.chain((0..self.desks.len()).rev()) {
            let desk = &self.desks[desk];
            let (before, order) = (round - 1, Ordering::AcqRel);
            let taken = &desk.taken;
            if taken
                .compare_exchange(before, round, order, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            let _done = Done(&self.left);
            // a piece on which a thread has panicked is lost; `run` panics for it
            if let Ok(mut piece) = desk.piece.lock()
                && let Some(piece) = piece.as_mut()
            {
                (self.work)(piece, self.argument.load(Ordering::Acquire));
            }
        }
    }

    fn take_part_for_ever(&self, thread: usize) {
        let mut round = 0;
        loop {
            let mut looks = 0;
            while self.round.load(Ordering::Acquire) == round {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                looks += 1;
                if looks < LOOKS {
                    spin_loop();
                } else {
                    // `run` unparks it
                    thread::park();
                }
            }
            round = self.round.load(Ordering::Acquire);
            self.take_part(thread, round);
        }
    }
}

/// A pool of threads, with the calling thread as one of them.
#[derive(Debug)]
pub struct Crew<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Crew<T> {
    /// Makes a pool of `threads` threads for `pieces` pieces. `None` if no thread can be started.
    pub fn new(threads: usize, pieces: usize, work: fn(&mut T, u64)) -> Option<Self> {
        let shared = Arc::new(Shared {
            work,
            desks: (0..pieces).map(|_| Desk::new()).collect(),
            threads,
            argument: AtomicU64::new(0),
            round: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let spawn = |thread| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .spawn(move || shared.take_part_for_ever(thread))
                .ok()
        };
        let threads: Vec<_> = (1..threads).map_while(spawn).collect();
        (!threads.is_empty()).then_some(Self { shared, threads })
    }

    /// Processes all pieces, as many as given to [`Crew::new`], with this argument.
    ///
    /// # Panics
    /// The work on a piece panics.
    pub fn run(&self, pieces: &mut Vec<T>, argument: u64) {
        let shared = &*self.shared;
        let count = pieces.len();
        for (desk, piece) in shared.desks.iter().zip(pieces.drain(..)) {
            *desk.piece.lock().unwrap_or_else(PoisonError::into_inner) = Some(piece);
        }
        shared.argument.store(argument, Ordering::Release);
        shared.left.store(count, Ordering::Release);
        let round = shared.round.fetch_add(1, Ordering::AcqRel) + 1;
        for thread in &self.threads {
            thread.thread().unpark();
        }
        shared.take_part(0, round);
        let mut looks = 0;
        while shared.left.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks % LOOKS_FOR_END == 0 {
                thread::yield_now();
            } else {
                spin_loop();
            }
        }
        let back = |desk: &Desk<T>| {
            let piece = desk.piece.lock();
            piece.expect("the thread that worked on it panicked").take()
        };
        pieces.extend(shared.desks.iter().filter_map(back));
    }
}

impl<T> Drop for Crew<T> {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // a panic has been printed already
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_piece_is_done_once_a_round_and_all_come_back_in_order() {
        let crew = Crew::new(3, 7, |piece: &mut (usize, u64), n| piece.1 += n).unwrap();
        let mut pieces: Vec<_> = (0..7).map(|n| (n, 0)).collect();
        for n in 0..10_000 {
            crew.run(&mut pieces, n);
            if n % 2_000 == 0 {
                // long enough for the threads to sleep
                thread::sleep(Duration::from_millis(20));
            }
        }
        let sum = 10_000 * 9_999 / 2;
        assert_eq!(pieces, Vec::from_iter((0..7).map(|n| (n, sum))));
    }

    #[test]
    fn a_panic_reaches_whoever_waits() {
        let work = |piece: &mut u64, n| assert!(*piece != n, "as it should be");
        let crew = Crew::new(2, 4, work).unwrap();
        let mut pieces = vec![0, 1, 2, 3];
        crew.run(&mut pieces, 9);
        let run = AssertUnwindSafe(|| crew.run(&mut pieces, 2));
        assert!(catch_unwind(run).is_err());
    }

    #[test]
    fn one_thread_is_no_crew() {
        assert!(Crew::new(1, 4, |_: &mut u64, _| ()).is_none());
    }
}
