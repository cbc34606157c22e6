//! Where a node is asked, as arguments name it.

use reqwest::Url;

/// `http://HOST:PORT`, without a slash behind it; paths are put there.
pub(super) fn node_url(text: &str) -> Result<String, String> {
    let (text, rule) = (text.trim(), "must be like http://127.0.0.1:7101");
    let url = Url::parse(text).map_err(|error| format!("{rule}: {error}"))?;
    if url.scheme() != "http" {
        return Err(format!("{rule}: nodes speak plain HTTP"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{rule}: a path is put behind it"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_plain_http_behind_which_a_path_can_stand() {
        for (text, base) in [
            ("http://127.0.0.1:7101", "http://127.0.0.1:7101"),
            ("http://[::1]:7101/", "http://[::1]:7101"),
            (" http://ads.internal/turret// ", "http://ads.internal/turret"),
        ] {
            assert_eq!(node_url(text), Ok(base.to_owned()));
        }
        for (text, says) in [
            ("nonsense", "relative URL without a base"),
            ("localhost:7101", "plain HTTP"),
            ("https://ads.internal", "plain HTTP"),
            ("http://", "empty host"),
            ("http://127.0.0.1:71010", "invalid port number"),
            ("http://127.0.0.1:7101?k=1", "a path is put behind it"),
        ] {
            let error = node_url(text).unwrap_err();
            assert!(error.starts_with("must be like http://") && error.contains(says), "{text}: {error}");
        }
    }
}
