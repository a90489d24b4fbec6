//! The line itself: who stands in it, and whose turn it is.
//!
//! Those who were failed by the same backends may have the same places, so they stand in one group: if
//! its oldest finds no room, nobody in it does, and only the oldest of each group need be looked at.
//! There are as many groups as combinations of backends that fail just now. Knows no lock, wakes nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::{Outcome, Placed};
use crate::pool::Lease;
use crate::pool::service::{Placement, Service, Snapshot};
use crate::strategy::{Flow, Skip};

/// The line, and by what it is served.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Whose snapshot the line is served from. Who waits holds on to a service, so this one is
    /// there for as long as it matters.
    service: Weak<Service>,
    /// None is empty.
    groups: Vec<Group>,
    /// How many ever joined.
    joined: u64,
}

/// Those whom the same backends have failed.
#[derive(Debug)]
struct Group {
    /// These, by index in `snapshot`.
    skip: Skip,
    snapshot: Arc<Snapshot>,
    waiters: Waiters,
    /// Whether its oldest was looked at this time, and there was no room.
    is_full: bool,
}

pub(super) type Waiters = BTreeMap<Turn, Waiter>;

/// A place in the line: the cursor, and a number that tells sessions of two services apart which had
/// the same name one after the other.
pub(super) type Turn = (u64, u64);

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) flow: Flow,
    pub(super) served: oneshot::Sender<Outcome>,
}

/// Who has left the line under the lock and is told after it.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) placed: Vec<(Waiter, Placed)>,
    pub(super) hopeless: Vec<Waiters>,
}

/// So many places are handed out under one hold of the lock; sessions that end wait for it.
pub(super) const MOST_AT_ONCE: usize = 64;

impl Line {
    /// Is served from the snapshots of `service` from now on.
    pub(super) fn lead_to(&mut self, service: &Arc<Service>) {
        self.service = Arc::downgrade(service);
    }

    /// Takes one in whom `skip` has failed, by index in `snapshot`.
    pub(super) fn join(&mut self, waiter: Waiter, skip: Skip, snapshot: &Arc<Snapshot>) -> Turn {
        let turn = (waiter.flow.sequence, self.joined);
        self.joined += 1;
        self.group(skip, snapshot).waiters.insert(turn, waiter);
        turn
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.waiters.len()).sum()
    }

    /// The group of those whom `skip` has failed, by index in `snapshot`.
    fn group(&mut self, skip: Skip, snapshot: &Arc<Snapshot>) -> &mut Group {
        let is_it = |it: &Group| it.skip == skip && Arc::ptr_eq(&it.snapshot, snapshot);
        let at = self.groups.iter().position(is_it).unwrap_or_else(|| {
            self.groups.push(Group {
                skip,
                snapshot: Arc::clone(snapshot),
                waiters: Waiters::new(),
                is_full: false,
            });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    /// Takes a waiter out, wherever it stands.
    pub(super) fn remove(&mut self, turn: &Turn) -> Option<Waiter> {
        let mut groups = self.groups.iter_mut();
        let waiter = groups.find_map(|group| group.waiters.remove(turn));
        self.groups.retain(|group| !group.waiters.is_empty());
        waiter
    }

    /// Gives the room that there is to those whose turn it is, and turns away whom nobody may serve.
    /// Tells whether that was all: it may be some room is left.
    pub(super) fn serve(&mut self, news: &mut News) -> bool {
        self.renew(news);
        while let Some(at) = self.next() {
            if news.placed.len() >= MOST_AT_ONCE {
                return false;
            }
            let group = &mut self.groups[at];
            match group.look() {
                Placement::Nobody => news.hopeless.push(self.groups.swap_remove(at).waiters),
                // Without room for those who may go anywhere, there is none for anybody.
                Placement::Full if group.skip.is_empty() => break,
                Placement::Full => group.is_full = true,
                Placement::Taken(index, lease) => {
                    // It may have become free since those before were looked at: then it is theirs,
                    // and this one is looked at again.
                    let to = self.heir(at, index).unwrap_or(at);
                    self.place(to, index, lease, news);
                }
            }
        }
        true
    }

    /// Has the line look at the snapshot in force, and lets those go for whom nobody is left in it.
    fn renew(&mut self, news: &mut News) {
        let service = self.service.upgrade();
        let Some(snapshot) = service.map(|it| it.snapshot_in_force()) else {
            // Who waits holds on to a service, and the line is led by the latest.
            news.hopeless
                .extend(self.groups.drain(..).map(|it| it.waiters));
            return;
        };
        let is_new = |group: &Group| Arc::ptr_eq(&group.snapshot, &snapshot);
        if !self.groups.iter().all(is_new) {
            for group in std::mem::take(&mut self.groups) {
                // Who failed it is told by identity.
                let skip = match is_new(&group) {
                    true => group.skip,
                    false => snapshot.skip_of(&group.skip, &group.snapshot),
                };
                self.group(skip, &snapshot).take_in(group.waiters);
            }
        }
        for group in &mut self.groups {
            group.is_full = false;
            if !snapshot.is_anyone_left(&group.skip) {
                news.hopeless.push(std::mem::take(&mut group.waiters));
            }
        }
        self.groups.retain(|group| !group.waiters.is_empty());
    }

    /// Whose turn it is: the group with the oldest of all, but for those that found no room.
    fn next(&self) -> Option<usize> {
        let all = self.groups.iter().enumerate();
        let open = all.filter(|(_, group)| !group.is_full);
        open.min_by_key(|(_, group)| group.oldest())
            .map(|(at, _)| at)
    }

    /// Who has found no room before it was the turn of the group `at`, and could use the backend of that
    /// index.
    fn heir(&self, at: usize, index: usize) -> Option<usize> {
        let turn = self.groups[at].oldest();
        let all = self.groups.iter().enumerate();
        let heirs = all.filter(|(_, group)| {
            group.is_full && group.oldest() < turn && !group.skip.contains(index)
        });
        heirs
            .min_by_key(|(_, group)| group.oldest())
            .map(|(at, _)| at)
    }

    /// Gives a place to the oldest of the group `at`.
    fn place(&mut self, at: usize, index: usize, lease: Lease, news: &mut News) {
        let group = &mut self.groups[at];
        let placed = Placed {
            lease,
            index,
            snapshot: Arc::clone(&group.snapshot),
            skip: group.skip.clone(),
        };
        let oldest = group.waiters.pop_first();
        news.placed
            .extend(oldest.map(|(_, waiter)| (waiter, placed)));
        if group.waiters.is_empty() {
            self.groups.swap_remove(at);
        }
    }
}

impl Group {
    fn oldest(&self) -> Option<&Turn> {
        self.waiters.first_key_value().map(|(turn, _)| turn)
    }

    /// What there is for its oldest.
    fn look(&self) -> Placement {
        match self.waiters.first_key_value() {
            Some((_, oldest)) => self.snapshot.place(&oldest.flow, &self.skip),
            None => Placement::Nobody,
        }
    }

    fn take_in(&mut self, mut others: Waiters) {
        if self.waiters.len() < others.len() {
            std::mem::swap(&mut self.waiters, &mut others);
        }
        self.waiters.extend(others);
    }
}
