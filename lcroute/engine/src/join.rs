//! A Join in little memory: most Joins of a network are for every source.

use crate::source_filter::SourceFilter;

/// One side's Join of a group: 16 bytes, while a [`SourceFilter`] needs 24 and a heap cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Join {
    /// Nothing.
    #[default]
    None,
    /// Every source: EXCLUDE{}.
    All,
    /// Some sources.
    Filtered(Box<SourceFilter>),
}

impl Join {
    pub fn is_some(&self) -> bool {
        *self != Self::None
    }

    pub fn lists_sources(&self) -> bool {
        matches!(self, Self::Filtered(_))
    }

    pub fn sources(&self) -> usize {
        match self {
            Self::Filtered(filter) => filter.sources().len(),
            Self::None | Self::All => 0,
        }
    }

    /// Whether packets of `source` are joined.
    pub fn allows(&self, source: std::net::Ipv6Addr) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Filtered(filter) => filter.allows(source),
        }
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, join) | (join, Self::None) => join.clone(),
            (Self::Filtered(a), Self::Filtered(b)) => Some(a.union(b)).into(),
        }
    }

    /// The filter to advertise.
    pub fn filter(&self) -> Option<SourceFilter> {
        match self {
            Self::None => None,
            Self::All => Some(SourceFilter::all()),
            Self::Filtered(filter) => Some((**filter).clone()),
        }
    }
}

impl From<Option<SourceFilter>> for Join {
    fn from(filter: Option<SourceFilter>) -> Self {
        match filter {
            None => Self::None,
            Some(filter) if filter.is_all() => Self::All,
            Some(filter) => Self::Filtered(Box::new(filter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_small() {
        assert_eq!(size_of::<Join>(), 16);
    }

    #[test]
    fn everything_swallows_the_rest() {
        let one = Join::from(SourceFilter::include([std::net::Ipv6Addr::LOCALHOST]));
        assert_eq!(one.union(&Join::All), Join::All);
        assert_eq!(one.union(&Join::None), one);
        assert_eq!(one.sources(), 1);
        assert_eq!(Join::from(Some(SourceFilter::all())), Join::All);
    }
}
