//! Reasons for dropping packets or messages, with counters.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// The reason for a drop: an enum made by [`crate::drop_reasons`].
pub trait Reason: Copy + Debug + 'static {
    /// All reasons, in the order of their declaration.
    const ALL: &'static [Self];

    /// Returns its index in [`Self::ALL`].
    fn index(self) -> usize;

    /// Returns the name for `status --json`. Names are stable: users and tests read them.
    fn name(self) -> &'static str;

    /// Returns its meaning in a sentence.
    fn meaning(self) -> &'static str;
}

/// Declares an enum of drop reasons: a sentence, a variant, its name.
#[macro_export]
macro_rules! drop_reasons {
    ($(#[$outer:meta])* $vis:vis enum $reason:ident { $($(#[doc = $doc:literal])* $variant:ident = $name:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $reason { $($(#[doc = $doc])* $variant,)* }

        impl $crate::drops::Reason for $reason {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

/// The number of drops for each reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drops<R> {
    counts: Vec<u64>,
    reason: std::marker::PhantomData<R>,
}

impl<R: Reason> Default for Drops<R> {
    fn default() -> Self {
        Self {
            counts: vec![0; R::ALL.len()],
            reason: std::marker::PhantomData,
        }
    }
}

impl<R: Reason> Drops<R> {
    /// Counts one drop.
    pub fn count(&mut self, reason: R) {
        self.add(reason, 1);
    }

    /// Counts `n` drops.
    pub fn add(&mut self, reason: R, n: u64) {
        let count = &mut self.counts[reason.index()];
        *count = count.saturating_add(n);
    }

    /// Returns the number of drops.
    pub fn get(&self, reason: R) -> u64 {
        self.counts[reason.index()]
    }

    /// Returns the reasons that occurred, by name.
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let all = R::ALL
            .iter()
            .map(|reason| (reason.name(), self.get(*reason)));
        all.filter(|(_, n)| *n > 0).collect()
    }
}

/// Returns names and meanings of all reasons of a kind, for the reference.
#[must_use]
pub fn list<R: Reason>() -> Vec<(&'static str, &'static str)> {
    let all = R::ALL.iter();
    all.map(|reason| (reason.name(), reason.meaning()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    drop_reasons! {
        enum Test {
            /// The first.
            First = "first",
            /// The second.
            Second = "second",
        }
    }

    #[test]
    fn counts_appear_under_their_names() {
        let mut drops = Drops::default();
        drops.count(Test::First);
        drops.add(Test::Second, u64::MAX);
        drops.count(Test::Second);
        assert_eq!(drops.get(Test::First), 1);
        let expected = BTreeMap::from([("first", 1), ("second", u64::MAX)]);
        assert_eq!(drops.by_name(), expected);
        assert_eq!(list::<Test>()[1], ("second", "The second."));
    }
}
