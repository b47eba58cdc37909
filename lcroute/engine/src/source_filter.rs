//! Source filters: filter mode and source list (RFC 9777 §2 and §4.2).

use std::borrow::Borrow;
use std::net::Ipv6Addr;

use librecast::mld::MAX_SOURCES;

/// A source filter of a joined group. A group without a filter is not joined, so an INCLUDE list is
/// never empty. At most [`MAX_SOURCES`] sources, sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(tag = "mode", content = "sources", rename_all = "lowercase")]
pub enum SourceFilter {
    /// These sources only.
    Include(Box<[Ipv6Addr]>),
    /// All sources but these.
    Exclude(Box<[Ipv6Addr]>),
}

impl SourceFilter {
    /// EXCLUDE{}: every source.
    #[must_use]
    pub fn all() -> Self {
        Self::Exclude(Box::default())
    }

    /// INCLUDE of these sources: without any no filter, with too many EXCLUDE{}.
    pub fn include(sources: impl IntoIterator<Item = Ipv6Addr>) -> Option<Self> {
        let sources = sorted(sources);
        match sources.len() {
            0 => None,
            n if n > MAX_SOURCES => Some(Self::all()),
            _ => Some(Self::Include(sources)),
        }
    }

    /// EXCLUDE of these sources; with too many EXCLUDE{}, rather than deliver too little.
    pub fn exclude(sources: impl IntoIterator<Item = Ipv6Addr>) -> Self {
        let sources = sorted(sources);
        if sources.len() > MAX_SOURCES {
            Self::all()
        } else {
            Self::Exclude(sources)
        }
    }

    /// Whether packets of `source` pass.
    pub fn allows(&self, source: Ipv6Addr) -> bool {
        match self {
            Self::Include(list) => list.binary_search(&source).is_ok(),
            Self::Exclude(list) => list.is_empty() || list.binary_search(&source).is_err(),
        }
    }

    /// Whether every source passes.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::Exclude(list) if list.is_empty())
    }

    /// The listed sources.
    pub fn sources(&self) -> &[Ipv6Addr] {
        match self {
            Self::Include(list) | Self::Exclude(list) => list,
        }
    }

    /// The union of both filters (RFC 9777 §4.2).
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Include(a), Self::Include(b)) => {
                Self::include(a.iter().chain(b).copied()).unwrap_or_else(Self::all)
            }
            (Self::Exclude(a), Self::Exclude(b)) => {
                Self::exclude(a.iter().filter(|s| b.contains(s)).copied())
            }
            (Self::Exclude(a), Self::Include(b)) | (Self::Include(b), Self::Exclude(a)) => {
                Self::exclude(a.iter().filter(|s| !b.contains(s)).copied())
            }
        }
    }

    /// The filter with only those listed sources that are kept; `None` if no source passes then.
    #[must_use]
    pub fn retain(&self, keep: impl Fn(Ipv6Addr) -> bool) -> Option<Self> {
        let listed = || self.sources().iter().copied().filter(|s| keep(*s));
        match self {
            Self::Include(_) => Self::include(listed()),
            Self::Exclude(_) => Some(Self::exclude(listed())),
        }
    }

    /// The filter for a place where only `present` can send; `None` if none of them passes. So
    /// INCLUDE{S} goes only towards S, and no router receives sources that are not behind it.
    #[must_use]
    pub fn restricted_to(&self, present: &[Ipv6Addr]) -> Option<Self> {
        let listed = |list: &[Ipv6Addr]| -> Vec<_> {
            present
                .iter()
                .filter(|s| list.binary_search(s).is_ok())
                .copied()
                .collect()
        };
        match self {
            Self::Include(list) => Self::include(listed(list)),
            Self::Exclude(list) => {
                let list = listed(list);
                (list.len() < present.len()).then(|| Self::exclude(list))
            }
        }
    }
}

fn sorted(sources: impl IntoIterator<Item = Ipv6Addr>) -> Box<[Ipv6Addr]> {
    let mut list: Vec<_> = sources.into_iter().collect();
    list.sort_unstable();
    list.dedup();
    list.into_boxed_slice()
}

/// The union of all filters.
pub fn merge<F: Borrow<SourceFilter>>(
    filters: impl IntoIterator<Item = F>,
) -> Option<SourceFilter> {
    let mut merged: Option<SourceFilter> = None;
    for filter in filters {
        let filter = filter.borrow();
        if filter.is_all() {
            return Some(SourceFilter::all());
        }
        merged = Some(merged.map_or_else(|| filter.clone(), |m| m.union(filter)));
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(n: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())
    }

    fn any_filter() -> impl Strategy<Value = SourceFilter> {
        let sources = || prop::collection::vec((0u8..8).prop_map(source), 0..6);
        prop_oneof![
            sources().prop_filter_map("empty", SourceFilter::include),
            sources().prop_map(SourceFilter::exclude),
        ]
    }

    #[test]
    fn too_many_sources_become_everything() {
        let many = |n: u8| (0..n).map(source);
        assert_eq!(SourceFilter::include(many(64)).unwrap().sources().len(), 64);
        assert!(SourceFilter::include(many(65)).unwrap().is_all());
        assert!(SourceFilter::exclude(many(65)).is_all());
        assert_eq!(SourceFilter::include([]), None);
    }

    proptest! {
        #[test]
        fn merged_filter_allows_what_any_part_allows(filters in prop::collection::vec(any_filter(), 0..5)) {
            let merged = merge(&filters);
            for s in (0..10).map(source) {
                prop_assert_eq!(
                    merged.as_ref().is_some_and(|m| m.allows(s)),
                    filters.iter().any(|f| f.allows(s))
                );
            }
        }

        #[test]
        fn restriction_changes_nothing_for_those_present(
            filter in any_filter(), present in prop::collection::btree_set((0u8..8).prop_map(source), 1..4),
        ) {
            let present: Vec<_> = present.into_iter().collect();
            let restricted = filter.restricted_to(&present);
            for s in &present {
                prop_assert_eq!(restricted.as_ref().is_some_and(|r| r.allows(*s)), filter.allows(*s));
            }
            if let Some(r) = restricted {
                prop_assert!(r.sources().iter().all(|s| present.contains(s)));
                prop_assert!(present.iter().any(|s| r.allows(*s)));
            }
        }
    }
}
