//! Maps for what there may be ten thousand of.

use foldhash::fast::RandomState;

/// A map whose keys are hashed in a few nanoseconds, by a seed of the process: with the default of the standard
/// library a fifth of the time of a long reload goes into hashes.
pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// The same for a set.
pub type Set<T> = std::collections::HashSet<T, RandomState>;
