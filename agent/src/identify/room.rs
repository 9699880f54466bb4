//! What the gate may hold in memory for one workload, and for all: whole bodies, messages, and what they were decoded to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use thiserror::Error;

/// How many workloads' rooms there are in all: several workloads of one person do not use up the machine's memory, and
/// one leaves the others theirs.
pub const ROOMS: usize = 8;

/// A workload's bound, in bytes, within that of all.
#[derive(Debug)]
pub struct Room {
    own: Left,
    all: Arc<Left>,
}

/// Bytes that are left of a bound.
#[derive(Debug)]
pub struct Left(AtomicUsize);

/// As much is held as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoRoom {
    /// For the workload.
    #[error("as much is held in memory for this workload as `limits.held_bytes` permits")]
    Own,
    /// For all workloads together.
    #[error("as much is held in memory for all workloads as `limits.held_bytes` permits")]
    All,
}

/// A part of a workload's room, which lasts as long as this does: it stays with what takes the room.
#[derive(Debug)]
pub struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Left {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    // Nothing is read or written on the strength of the number but the number: no order is needed.
    fn take(&self, bytes: usize) -> bool {
        let order = Ordering::Relaxed;
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(order, order, less).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Room {
    /// Room for so many bytes, of those that are left for all.
    pub fn new(bytes: usize, all: Arc<Left>) -> Arc<Self> {
        let own = Left::new(bytes);
        Arc::new(Self { own, all })
    }

    fn give_back(&self, bytes: usize) {
        self.all.give_back(bytes);
        self.own.give_back(bytes);
    }

    /// None of it yet.
    pub fn none(self: &Arc<Self>) -> Taken {
        Taken {
            room: Arc::clone(self),
            bytes: 0,
        }
    }

    /// So many bytes of it.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Taken, NoRoom> {
        let mut taken = self.none();
        taken.grow(bytes)?;
        Ok(taken)
    }
}

impl Taken {
    /// Takes so many bytes more, at once or not at all: who waited could wait for itself.
    ///
    /// # Errors
    /// [`NoRoom`]; what was taken before stays taken.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Room { own, all } = &*self.room;
        if !own.take(bytes) {
            return Err(NoRoom::Own);
        }
        if !all.take(bytes) {
            own.give_back(bytes);
            return Err(NoRoom::All);
        }
        // No more than the room has.
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Takes, or gives back, until it is so many bytes.
    ///
    /// # Errors
    /// [`NoRoom`]; what was taken before stays taken.
    pub fn resize(&mut self, bytes: usize) -> Result<(), NoRoom> {
        match bytes.checked_sub(self.bytes) {
            Some(0) => Ok(()),
            Some(more) => self.grow(more),
            None => {
                self.shrink(bytes);
                Ok(())
            }
        }
    }

    /// Gives back what is beyond so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.bytes = bytes;
            self.room.give_back(less);
        }
    }

    /// So many bytes of it for themselves; all of it, where it is less.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        Self {
            room: Arc::clone(&self.room),
            bytes,
        }
    }

    /// `bytes`, with which this ends: when the last part of them is dropped.
    pub fn around(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Around {
            bytes,
            _taken: self,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

struct Around<T> {
    bytes: T,
    _taken: Taken,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Around<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn room(bytes: usize) -> Arc<Room> {
        Room::new(bytes, Arc::new(Left::new(usize::MAX)))
    }

    fn left(room: &Room) -> usize {
        let left = room.own.0.load(Ordering::Relaxed);
        let all = room.all.0.load(Ordering::Relaxed);
        assert_eq!(usize::MAX - all, 10 - left, "the two agree");
        left
    }

    #[test]
    fn what_is_taken_is_given_back_with_what_takes_it() {
        let room = room(10);
        let (mut one, mut other) = (room.none(), room.none());
        one.grow(4).unwrap();
        one.grow(3).unwrap();
        assert_eq!(other.grow(4), Err(NoRoom::Own), "not all: nothing");
        assert_eq!(left(&room), 3);
        other.grow(3).unwrap();
        assert_eq!(other.grow(1), Err(NoRoom::Own));
        assert_eq!(room.take(usize::MAX).unwrap_err(), NoRoom::Own);
        other.grow(0).unwrap();
        drop(one);
        assert_eq!(left(&room), 7);
        other.grow(7).unwrap();
        drop(other);
        assert_eq!(left(&room), 10);
    }

    #[test]
    fn what_changes_its_size_keeps_what_it_needs() {
        let room = room(10);
        let mut taken = room.none();
        for (size, rest) in [(0, 10), (6, 4), (6, 4), (10, 0), (2, 8), (0, 10), (1, 9)] {
            taken.resize(size).unwrap();
            assert_eq!(left(&room), rest);
        }
        assert_eq!(taken.resize(11), Err(NoRoom::Own));
        assert_eq!(taken.resize(usize::MAX), Err(NoRoom::Own));
        assert_eq!(left(&room), 9);
    }

    #[test]
    fn what_is_divided_is_given_back_by_each_part() {
        let room = room(10);
        let mut whole = room.take(8).unwrap();
        let (part, rest) = (whole.split(3), whole.split(usize::MAX));
        assert_eq!(left(&room), 2);
        drop(whole);
        assert_eq!(left(&room), 2, "nothing was left to it");
        drop(part);
        assert_eq!(left(&room), 5);
        drop(rest);
        assert_eq!(left(&room), 10);
    }

    #[test]
    fn bytes_hold_it_until_the_last_part_of_them_goes() {
        let room = room(10);
        let bytes = room.take(5).unwrap().around(String::from("hello"));
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(left(&room), 5);
        assert_eq!(part, "e");
        drop(part);
        assert_eq!(left(&room), 10);
    }

    #[test]
    fn all_have_a_bound_and_what_it_refuses_takes_nothing() {
        let all = Arc::new(Left::new(15));
        let (one, other) = (
            Room::new(10, Arc::clone(&all)),
            Room::new(10, Arc::clone(&all)),
        );
        let taken = one.take(10).unwrap();
        assert_eq!(other.take(6).unwrap_err(), NoRoom::All);
        assert_eq!(other.own.0.load(Ordering::Relaxed), 10);
        let rest = other.take(5).unwrap();
        drop(taken);
        assert_eq!(all.0.load(Ordering::Relaxed), 10);
        drop(rest);
        assert_eq!(all.0.load(Ordering::Relaxed), 15);
    }

    #[test]
    fn many_at_once_take_no_more_than_there_is_and_give_back_all() {
        const TIMES: usize = 5_000;
        let room = room(10);
        let takes = |size: usize| {
            let room = &room;
            move || {
                let mut taken = 0;
                while taken < TIMES {
                    // Refused for as long as who holds it does not run.
                    let Ok(part) = room.take(size + taken % 2) else {
                        thread::yield_now();
                        continue;
                    };
                    let left = room.own.0.load(Ordering::Relaxed);
                    assert!(left <= 10 - part.bytes, "{left}");
                    taken += 1;
                }
            }
        };
        thread::scope(|scope| {
            for size in [5, 6, 7, 8] {
                scope.spawn(takes(size));
            }
        });
        assert_eq!(left(&room), 10);
    }
}
