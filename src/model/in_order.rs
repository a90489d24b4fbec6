//! A list that is asked for one of its own after the other.

use std::hash::Hash;

use super::Map;

/// Finds what is in a list for somebody who asks for most of it in its order, as one who holds a list against
/// what it was before does: what comes after the one that was found last is looked at first, which takes no
/// hash. Only where that is somebody else a map is made, once.
#[derive(Debug)]
pub struct InOrder<'a, T, K> {
    all: &'a [T],
    key: fn(&T) -> &K,
    /// After the one that was found last.
    next: usize,
    places: Option<Map<&'a K, usize>>,
}

impl<'a, T, K: Eq + Hash> InOrder<'a, T, K> {
    /// Everything in `all` is known by its `key`, no two by the same.
    pub fn new(all: &'a [T], key: fn(&T) -> &K) -> Self {
        Self {
            all,
            key,
            next: 0,
            places: None,
        }
    }

    /// What is known by `key`.
    pub fn find(&mut self, key: &K) -> Option<&'a T> {
        self.all.get(self.place(key)?)
    }

    /// Where in the list that is.
    pub fn place(&mut self, key: &K) -> Option<usize> {
        // One may have gone from between the two.
        let mut near = self.next..self.next + 2;
        let is_it = |at: &usize| self.all.get(*at).is_some_and(|it| (self.key)(it) == key);
        let at = match near.find(is_it) {
            Some(at) => at,
            None => *self.places().get(key)?,
        };
        self.next = at + 1;
        Some(at)
    }

    fn places(&mut self) -> &Map<&'a K, usize> {
        self.places.get_or_insert_with(|| {
            let all = self.all.iter().enumerate();
            all.map(|(at, it)| ((self.key)(it), at)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_asks_in_order_needs_no_map() {
        let all: Vec<u32> = (0..100).collect();
        let mut list = InOrder::new(&all, |it| it);
        for it in (0..100).filter(|it| it % 7 != 3) {
            assert_eq!(list.find(&it), Some(&it));
        }
        assert!(list.places.is_none());
        assert_eq!(list.find(&100), None);
        assert_eq!(list.place(&5), Some(5));
        assert_eq!(list.place(&6), Some(6));
    }

    proptest! {
        #[test]
        fn it_finds_what_is_there(
            keys in proptest::collection::hash_set(0_u8..40, 0..40),
            asked in proptest::collection::vec(0_u8..40, 0..80),
        ) {
            let all: Vec<u8> = keys.into_iter().collect();
            let mut list = InOrder::new(&all, |it| it);
            for key in asked {
                prop_assert_eq!(list.place(&key), all.iter().position(|it| *it == key));
            }
        }
    }
}
