//! Links of pages that enter a network.

use librecast::plain::is_name;

/// Returns the link of a page with a token, and a session of Studio if given: after the `#`, which
/// browsers do not send. A page without a path is one of `lcroute web`.
///
/// # Errors
/// It is no URL of a page.
pub fn link(page: &str, token: &str, session: Option<&str>) -> Result<String, String> {
    let schemes = ["https://", "http://"];
    let rest = schemes.iter().find_map(|scheme| page.strip_prefix(scheme));
    let (host, path) = rest
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .unwrap_or_default();
    if host.is_empty() || page.contains(|c: char| c == '#' || c.is_whitespace()) || !is_name(page) {
        return Err(format!(
            "{page:?} is no address of a page, such as https://alpha.example:7180"
        ));
    }
    // browsers keep the page of lectures, which opens without a network
    let folder = match (path.is_empty(), session) {
        (false, _) => "",
        (true, Some(_)) => "/studio/",
        (true, None) => "/node/",
    };
    let page = if path.is_empty() {
        page.trim_end_matches('/')
    } else {
        page
    };
    let session = session.map(|session| format!(",{session}"));
    Ok(format!(
        "{page}{folder}#{token}{}",
        session.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_its_token_where_no_server_sees_it() {
        for (page, expected) in [
            ("https://a.example:7180", "https://a.example:7180/node/#t"),
            ("http://[::1]:7180/", "http://[::1]:7180/node/#t"),
            (
                "https://a.example/lc/node/?x",
                "https://a.example/lc/node/?x#t",
            ),
        ] {
            assert_eq!(link(page, "t", None).as_deref(), Ok(expected));
            let both = format!("{expected},s");
            let both = both.replace("7180/node/", "7180/studio/");
            assert_eq!(link(page, "t", Some("s")), Ok(both));
        }
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "https:///node/",
            "http://a/#b",
            "http://a b",
            "http://a/\n",
        ] {
            assert!(link(bad, "t", None).is_err(), "{bad:?}");
        }
    }
}
