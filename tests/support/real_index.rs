//! The real package index, as this machine reaches it.

/// The settings with which the program reaches it, whatever its addresses are here.
pub fn real_index() -> Vec<(&'static str, String)> {
    let mut settings = vec![("ADE_EGRESS_ALLOW_CIDRS", addresses(&["pypi.org", "files.pythonhosted.org"]))];
    // Where a proxy intercepts TLS, this machine knows its authority, and the image does not.
    let bundle = ["ADE_CA_BUNDLE", "SSL_CERT_FILE"].into_iter().find_map(|name| std::env::var(name).ok());
    settings.extend(bundle.filter(|bundle| !bundle.is_empty()).map(|bundle| ("ADE_CA_BUNDLE", bundle)));
    settings
}

/// The addresses of hosts as this machine finds them, as a list of networks.
fn addresses(hosts: &[&str]) -> String {
    use std::net::ToSocketAddrs;
    let mut found: Vec<String> = hosts
        .iter()
        .flat_map(|host| (*host, 443).to_socket_addrs().into_iter().flatten())
        .map(|address| format!("{}/{}", address.ip(), if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    found.sort();
    found.dedup();
    found.join(",")
}
