//! Selectors: the nodes of a command, in the operator's notation; evaluated on each node.
//!
//! ```text
//! selector = all-of *( "+" all-of )          or
//! all-of   = term *( "," term )              and: binds tighter than +
//! term     = [ "!" ] ( "all" / label "=" glob / glob )
//! glob     = text in which * stands for any characters and ? for one
//! ```
//!
//! A glob without a label is compared with the node's name and with its PeerId. A label that a node
//! does not have matches no value, so `!role=web` selects the nodes without a label `role` as well.
//! Spaces around a term do not count. `,`, `+`, `=` and spaces cannot be written inside a name; `?`
//! matches them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use librecast::id::PeerId;
use thiserror::Error;

/// Longest selector, in bytes.
pub const MAX_SELECTOR: usize = 1024;
/// Most terms in one selector.
pub const MAX_TERMS: usize = 64;

/// The reason why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Longer than [`MAX_SELECTOR`].
    #[error("selector of {0} bytes; at most {MAX_SELECTOR}")]
    TooLong(usize),
    /// More than [`MAX_TERMS`] terms.
    #[error("more than {MAX_TERMS} terms in a selector")]
    TooManyTerms,
    /// Nothing between two operators, or nothing at all.
    #[error("empty term in a selector; write `all` to select every node")]
    EmptyTerm,
    /// A term that is neither a name nor `label=value`.
    #[error("`{0}` is neither a name nor label=value")]
    BadTerm(String),
}

/// A node's data for a selector.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Name in the node's configuration.
    pub name: &'a str,
    /// The PeerId in text form.
    pub id: &'a str,
    /// Labels of the configuration and of the certificate.
    pub labels: &'a BTreeMap<String, String>,
}

/// A parsed selector: or-ed groups of and-ed terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    any_of: Vec<Vec<Term>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    negated: bool,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    All,
    Name(String),
    Label { label: String, value: String },
}

impl Selector {
    /// The selector `all`: every node of the channel.
    #[must_use]
    pub fn all() -> Self {
        Self {
            any_of: vec![vec![Term {
                negated: false,
                what: What::All,
            }]],
        }
    }

    /// Returns two names that each alternative demands of one node; probably `,` stands for `+`.
    #[must_use]
    pub fn contradiction(&self) -> Option<(&str, &str)> {
        let mut first = None;
        for all_of in &self.any_of {
            let mut names = all_of.iter().filter_map(Term::exact_name);
            let name = names.next()?;
            let other = names.find(|other| *other != name)?;
            first = first.or(Some((name, other)));
        }
        first
    }

    /// Returns whether the command is for `node`.
    #[must_use]
    pub fn selects(&self, node: &Node<'_>) -> bool {
        self.any_of
            .iter()
            .any(|all_of| all_of.iter().all(|term| term.holds(node)))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR {
            return Err(SelectorError::TooLong(text.len()));
        }
        if text.bytes().filter(|b| matches!(b, b',' | b'+')).count() >= MAX_TERMS {
            return Err(SelectorError::TooManyTerms);
        }
        let any_of = text
            .split('+')
            .map(|all_of| all_of.split(',').map(Term::parse).collect())
            .collect::<Result<_, _>>()?;
        Ok(Self { any_of })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, all_of) in self.any_of.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "+" })?;
            for (j, term) in all_of.iter().enumerate() {
                f.write_str(if j == 0 { "" } else { "," })?;
                term.fmt(f)?;
            }
        }
        Ok(())
    }
}

impl Term {
    /// Returns the only name that a node may have; a PeerId does not count as one.
    fn exact_name(&self) -> Option<&str> {
        match &self.what {
            What::Name(name) if !self.negated && !name.contains(['*', '?']) => {
                name.parse::<PeerId>().is_err().then_some(name)
            }
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim_matches(' ');
        let (negated, atom) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start_matches(' ')),
            None => (false, text),
        };
        if atom.is_empty() {
            return Err(SelectorError::EmptyTerm);
        }
        let bad = || SelectorError::BadTerm(text.chars().take(80).collect());
        if atom.contains(|c: char| c.is_whitespace() || c.is_control() || c == '!') {
            return Err(bad());
        }
        let what = match atom.split_once('=') {
            None if atom == "all" => What::All,
            None => What::Name(atom.to_owned()),
            Some((label, value)) => {
                if label.is_empty() || label.contains(['*', '?']) || value.contains('=') {
                    return Err(bad());
                }
                What::Label {
                    label: label.to_owned(),
                    value: value.to_owned(),
                }
            }
        };
        Ok(Self { negated, what })
    }

    fn holds(&self, node: &Node<'_>) -> bool {
        let holds = match &self.what {
            What::All => true,
            What::Name(glob) => glob_matches(glob, node.name) || glob_matches(glob, node.id),
            What::Label { label, value } => node
                .labels
                .get(label)
                .is_some_and(|has| glob_matches(value, has)),
        };
        holds != self.negated
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.negated { "!" } else { "" })?;
        match &self.what {
            What::All => f.write_str("all"),
            What::Name(glob) => f.write_str(glob),
            What::Label { label, value } => write!(f, "{label}={value}"),
        }
    }
}

/// Returns whether `glob` matches the whole of `text`. Backtracks to the last `*` only, so the
/// steps are bounded by the product of both lengths.
pub(crate) fn glob_matches(glob: &str, text: &str) -> bool {
    let (mut glob, mut text) = (glob.chars(), text.chars());
    // the glob after the last `*`, and the text that this `*` has not taken yet
    let mut last_star = None;
    loop {
        let (mut next_glob, mut next_text) = (glob.clone(), text.clone());
        match (next_glob.next(), next_text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                last_star = Some((next_glob.clone(), text.clone()));
                glob = next_glob;
            }
            (Some(want), Some(is)) if want == '?' || want == is => {
                (glob, text) = (next_glob, next_text);
            }
            _ => {
                let Some((behind, from)) = &mut last_star else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                (glob, text) = (behind.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    fn selects(selector: &str, name: &str, pairs: &[(&str, &str)]) -> bool {
        let labels = labels(pairs);
        selector.parse::<Selector>().unwrap().selects(&Node {
            name,
            id: "12D3KooWExample",
            labels: &labels,
        })
    }

    #[test]
    fn two_names_for_one_node_are_a_contradiction() {
        let two = |text: &str| {
            let selector: Selector = text.parse().unwrap();
            let found = selector.contradiction();
            found.map(|(one, other)| format!("{one} {other}"))
        };
        assert_eq!(two("beta,gamma").as_deref(), Some("beta gamma"));
        assert_eq!(two("beta,role=web,gamma").as_deref(), Some("beta gamma"));
        assert_eq!(two("a,b+c,d").as_deref(), Some("a b"));
        for possible in [
            "beta+gamma",
            "be*,beta",
            "beta,!gamma",
            "beta,beta",
            "a,b+c",
            "all",
        ] {
            assert_eq!(two(possible), None, "{possible}");
        }
    }

    #[test]
    fn names_labels_and_globs_select() {
        let web = [("role", "web"), ("site", "berlin-2")];
        for (selector, expected) in [
            ("all", true),
            ("!all", false),
            ("web1", true),
            ("web2", false),
            ("web*", true),
            ("w?b1", true),
            ("*", true),
            ("12D3KooWEx*", true),
            ("role=web", true),
            ("role=w*", true),
            ("role=", false),
            ("site=berlin-?", true),
            ("role=db", false),
            ("missing=*", false),
            ("!missing=*", true),
            ("!role=web", false),
            (" role=web , ! site=paris* ", true),
        ] {
            assert_eq!(selects(selector, "web1", &web), expected, "{selector}");
        }
    }

    #[test]
    fn and_binds_tighter_than_or() {
        // a + (b and c), not (a + b) and c
        assert!(selects("a=1+b=1,c=1", "n", &[("a", "1")]));
        assert!(selects("b=1,c=1+a=1", "n", &[("a", "1")]));
        assert!(!selects("a=1+b=1,c=1", "n", &[("b", "1")]));
        assert!(!selects("a=1+b=1,c=1", "n", &[("c", "1")]));
        assert!(selects("a=1+b=1,c=1", "n", &[("b", "1"), ("c", "1")]));
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        use SelectorError as E;
        for text in ["", " ", "!", "a,", ",a", "a+", "a++b", "a,,b"] {
            assert_eq!(text.parse::<Selector>(), Err(E::EmptyTerm), "{text:?}");
        }
        for text in [
            "=web", "!!a", "a b", "a\tb", "r*=web", "a=b=c", "a\nb", "x!y",
        ] {
            assert!(
                matches!(text.parse::<Selector>(), Err(E::BadTerm(_))),
                "{text:?}"
            );
        }
        let many = vec!["a"; MAX_TERMS + 1].join(",");
        assert_eq!(many.parse::<Selector>(), Err(E::TooManyTerms));
        assert!(vec!["a"; MAX_TERMS].join("+").parse::<Selector>().is_ok());
        let long = "a".repeat(MAX_SELECTOR + 1);
        assert_eq!(long.parse::<Selector>(), Err(E::TooLong(MAX_SELECTOR + 1)));
        assert!("a".repeat(MAX_SELECTOR).parse::<Selector>().is_ok());
    }

    /// Matches by the definition of globs; exponential at worst.
    fn glob_by_definition(glob: &[char], text: &[char]) -> bool {
        match (glob, text) {
            ([], []) => true,
            (['*', behind @ ..], _) => {
                (0..=text.len()).any(|n| glob_by_definition(behind, &text[n..]))
            }
            ([g, glob @ ..], [t, text @ ..]) => {
                (*g == '?' || g == t) && glob_by_definition(glob, text)
            }
            _ => false,
        }
    }

    #[test]
    fn glob_that_backtracks_is_decided_in_bounded_steps() {
        // by definition this takes more than 2^60 steps
        assert!(!glob_matches(&"*a".repeat(60), &"a".repeat(59)));
        assert!(!glob_matches(
            &format!("{}b", "*a".repeat(400)),
            &"a".repeat(1000)
        ));
    }

    proptest! {
        #[test]
        fn glob_agrees_with_its_definition(glob in "[ab*?]{0,8}", text in "[abß]{0,8}") {
            let (g, t): (Vec<_>, Vec<_>) = (glob.chars().collect(), text.chars().collect());
            prop_assert_eq!(glob_matches(&glob, &text), glob_by_definition(&g, &t));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), name in any::<String>()) {
            if let Ok(selector) = text.parse::<Selector>() {
                let _ = selector.selects(&Node { name: &name, id: "", labels: &BTreeMap::new() });
            }
        }

        #[test]
        fn written_form_reads_back_the_same(text in "[ab=*?!,+ ]{1,24}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
            }
        }

        #[test]
        fn negation_selects_the_complement(term in "(all|[ab*]{1,3}|[ab]=[ab*?]{0,3})", name in "[ab]{1,3}", value in "[ab]{0,3}") {
            let node = [("a", value.as_str())];
            prop_assert_ne!(selects(&term, &name, &node), selects(&format!("!{term}"), &name, &node));
        }
    }
}
