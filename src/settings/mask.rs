//! Secrets in URLs, kept out of sight.

/// A URL without its password, for people and logs: `scheme://user:***@host/…`. Query values that look like secrets are
/// hidden as well.
#[must_use]
pub fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let authority = match authority.rsplit_once('@') {
        // A lone user may be a token, as package indexes use them.
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("***@{host}"),
        },
        None => authority.to_owned(),
    };
    let tail = match tail.split_once('?') {
        Some((path, query)) => {
            let hidden = query.split('&').map(|pair| match pair.split_once('=') {
                Some((name, _))
                    if ["pass", "secret", "token", "key"].iter().any(|word| name.to_lowercase().contains(word)) =>
                {
                    format!("{name}=***")
                }
                _ => pair.to_owned(),
            });
            format!("{path}?{}", hidden.collect::<Vec<_>>().join("&"))
        }
        None => tail.to_owned(),
    };
    format!("{scheme}://{authority}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_hidden_and_the_rest_is_not() {
        for (url, masked) in [
            ("postgres://ade:s3cr3t@db:5432/ade?sslmode=require", "postgres://ade:***@db:5432/ade?sslmode=require"),
            ("https://token@index.example/simple", "https://***@index.example/simple"),
            ("https://u:p@ss@host/", "https://u:***@host/"),
            ("postgres://db/ade?password=x&user=y", "postgres://db/ade?password=***&user=y"),
            ("sqlite:///var/lib/ade/ade.db", "sqlite:///var/lib/ade/ade.db"),
            ("/srv/a@b", "/srv/a@b"),
        ] {
            assert_eq!(mask(url), masked);
        }
    }
}
