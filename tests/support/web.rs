//! A web server of a test, on an address of loopback of its own, in plain HTTP or with a certificate that nobody else trusts.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A server until the end of the process. What it answers:
///
/// | path | answer |
/// | --- | --- |
/// | `/redirect?URL` | a redirect to the URL |
/// | `/bytes?N` | N bytes |
/// | `/echo` | the body of the request |
/// | `/hang` | nothing, ever |
/// | any other | `hello` |
pub struct Web {
    /// Where it listens.
    pub address: SocketAddr,
    /// The authority that vouches for it, PEM; empty without TLS.
    pub certificate: String,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// A server in plain HTTP, on a free port of an address of this machine.
    pub fn http(ip: &str) -> Self {
        Self::start(ip, None, String::new())
    }

    /// A server with TLS, for its address and these names.
    pub fn https(ip: &str, names: &[&str]) -> Self {
        let (config, authority) = identity(&[names, &[ip]].concat());
        Self::start(ip, Some(config), authority)
    }

    fn start(ip: &str, tls: Option<Arc<ServerConfig>>, certificate: String) -> Self {
        let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counter, seen) = (Arc::clone(&connections), Arc::clone(&heads));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        let _ = serve(StreamOwned::new(connection, stream), &seen);
                    }
                    None => {
                        let _ = serve(stream, &seen);
                    }
                });
            }
        });
        Self { address, certificate, connections, heads }
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.certificate.is_empty() { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Connections that it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Heads of the requests that it has seen.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// What a server with TLS shows for these names and addresses, and the authority that nobody else trusts, PEM.
pub fn identity(names: &[&str]) -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "the authority of a test");
    let own_key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&own_key).unwrap().pem();
    let issuer = Issuer::new(authority, own_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (Arc::new(config), pem)
}

/// One request, one answer.
fn serve(mut stream: impl Read + Write, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut text = Vec::new();
    let head = loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        read(&mut stream, &mut text)?;
    };
    let body = text.split_off(head);
    let head = String::from_utf8_lossy(&text).into_owned();
    seen.lock().unwrap().push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut answer = |status: &str, fields: &str, length: u64| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())
    };
    match path {
        "/redirect" => answer("302 Found", &format!("Location: {query}\r\n"), 0).ok()?,
        "/hang" => loop {
            std::thread::park();
        },
        "/bytes" => {
            let mut left = query.parse::<u64>().unwrap();
            answer("200 OK", "", left).ok()?;
            let chunk = vec![b'x'; 256 * 1024];
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(chunk.len()).min(chunk.len());
                stream.write_all(&chunk[..now]).ok()?;
                left -= now as u64;
            }
        }
        "/echo" => {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
            let length: usize = length.unwrap_or(0);
            let mut body = body;
            answer("200 OK", "", length as u64).ok()?;
            let mut passed = 0;
            while passed < length {
                if body.is_empty() {
                    read(&mut stream, &mut body)?;
                }
                stream.write_all(&body).ok()?;
                passed += body.len();
                body.clear();
            }
        }
        _ => {
            answer("200 OK", "", 5).ok()?;
            stream.write_all(b"hello").ok()?;
        }
    }
    stream.flush().ok()
}

fn read(stream: &mut impl Read, into: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 64 * 1024];
    let size = stream.read(&mut chunk).ok().filter(|size| *size > 0)?;
    into.extend_from_slice(&chunk[..size]);
    Some(())
}

/// A connection of the test's own, to see whether a server is there.
pub fn answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}
