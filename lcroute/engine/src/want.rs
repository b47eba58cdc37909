//! A source filter in little room: most of the interest of a network wants every source.

use crate::filter::Filter;

/// What is wanted of a group on one side: 16 bytes for what a [`Filter`] needs 24 and a heap cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    #[default]
    Nothing,
    /// Every source: EXCLUDE{}.
    All,
    /// Some sources.
    Some(Box<Filter>),
}

impl Want {
    /// Whether anything is wanted.
    pub fn is_something(&self) -> bool {
        *self != Self::Nothing
    }

    /// Whether sources are listed.
    pub fn lists_sources(&self) -> bool {
        matches!(self, Self::Some(_))
    }

    /// Number of listed sources.
    pub fn sources(&self) -> usize {
        match self {
            Self::Some(filter) => filter.sources().len(),
            Self::Nothing | Self::All => 0,
        }
    }

    /// Whether packets of `source` are wanted.
    pub fn allows(&self, source: std::net::Ipv6Addr) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Some(filter) => filter.allows(source),
        }
    }

    /// What both together want.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nothing, want) | (want, Self::Nothing) => want.clone(),
            (Self::Some(a), Self::Some(b)) => Some(a.union(b)).into(),
        }
    }

    /// The filter, as it is told.
    pub fn filter(&self) -> Option<Filter> {
        match self {
            Self::Nothing => None,
            Self::All => Some(Filter::all()),
            Self::Some(filter) => Some((**filter).clone()),
        }
    }
}

impl From<Option<Filter>> for Want {
    fn from(filter: Option<Filter>) -> Self {
        match filter {
            None => Self::Nothing,
            Some(filter) if filter.is_all() => Self::All,
            Some(filter) => Self::Some(Box::new(filter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_are_small() {
        assert_eq!(size_of::<Want>(), 16);
    }

    #[test]
    fn everything_swallows_the_rest() {
        let one = Want::from(Filter::include([std::net::Ipv6Addr::LOCALHOST]));
        assert_eq!(one.union(&Want::All), Want::All);
        assert_eq!(one.union(&Want::Nothing), one);
        assert_eq!(one.sources(), 1);
        assert_eq!(Want::from(Some(Filter::all())), Want::All);
    }
}
