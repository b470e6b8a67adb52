//! A package index (PEP 503, PEP 691) on a port of this machine.

use super::wheel::{Wheel, sha256};
use crate::support::web::identity;
use base64::Engine as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One file of a project.
#[derive(Debug, Clone)]
struct File {
    name: String,
    content: Vec<u8>,
    /// What its page says of it.
    claimed: String,
    requires_python: Option<String>,
}

/// What the index has and how it behaves.
#[derive(Debug, Default)]
struct State {
    projects: BTreeMap<String, Vec<File>>,
    /// `user:password` that it asks for.
    credentials: Option<String>,
    /// Pages as HTML only.
    html: bool,
    /// How long it thinks before it sends a file.
    file_delay: Duration,
    /// Where it sends whoever asks for anything.
    redirect: Option<String>,
    /// What it answers to everything instead, byte for byte.
    instead: Option<Vec<u8>>,
    /// Paths that were asked for.
    asked: Vec<String>,
}

/// An index; dropping it closes it.
#[derive(Debug)]
pub struct Index {
    address: SocketAddr,
    /// The authority that vouches for it, PEM; empty without TLS.
    authority: String,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

impl Index {
    /// An empty index.
    pub fn start() -> Self {
        Self::listen("127.0.0.1", None, String::new())
    }

    /// An empty index on another address of this machine.
    pub fn on(ip: &str) -> Self {
        Self::listen(ip, None, String::new())
    }

    /// An empty index with TLS, under an authority that nobody else trusts.
    pub fn with_tls() -> Self {
        let (config, authority) = identity(&["127.0.0.1"]);
        Self::listen("127.0.0.1", Some(config), authority)
    }

    fn listen(ip: &str, tls: Option<Arc<ServerConfig>>, authority: String) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (state, over) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let index = Self { address, authority, state: Arc::clone(&state), over: Arc::clone(&over) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (state, over, tls) = (Arc::clone(&state), Arc::clone(&over), tls.clone());
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
                    match tls {
                        Some(config) => {
                            answer(StreamOwned::new(ServerConnection::new(config).ok()?, stream), &state, &over)
                        }
                        None => answer(stream, &state, &over),
                    }
                });
            }
        });
        index
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_empty() { "http" } else { "https" };
        format!("{scheme}://{}/simple", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The authority that vouches for it, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Takes up wheels.
    pub fn with(self, wheels: &[Wheel]) -> Self {
        wheels.iter().for_each(|wheel| self.add(wheel));
        self
    }

    /// Takes up a wheel.
    pub fn add(&self, wheel: &Wheel) {
        self.add_file(wheel.name(), &wheel.filename(), wheel.build(), None);
    }

    /// Takes up a source archive.
    pub fn add_source(&self, wheel: &Wheel) {
        self.add_file(wheel.name(), &wheel.source_name(), wheel.source(), None);
    }

    /// Takes up any file of a project.
    pub fn add_file(&self, project: &str, name: &str, content: Vec<u8>, requires_python: Option<&str>) {
        let claimed = sha256(&content);
        let requires_python = requires_python.map(str::to_owned);
        let file = File { name: name.to_owned(), content, claimed, requires_python };
        self.lock().projects.entry(project.to_owned()).or_default().push(file);
    }

    /// Serves other bytes of a file than its page says, from now on.
    pub fn falsify(&self, project: &str, content: &[u8]) {
        for file in self.lock().projects.get_mut(project).unwrap() {
            content.clone_into(&mut file.content);
        }
    }

    /// Asks for `user:password` from now on.
    pub fn demand(&self, credentials: &str) {
        self.lock().credentials = Some(credentials.to_owned());
    }

    /// Shows its pages as HTML only.
    pub fn speak_html(&self) {
        self.lock().html = true;
    }

    /// Thinks so long before it sends a file.
    pub fn delay_files(&self, delay: Duration) {
        self.lock().file_delay = delay;
    }

    /// Sends whoever asks elsewhere, to this URL with the path behind it.
    pub fn redirect(&self, to: &str) {
        self.lock().redirect = Some(to.to_owned());
    }

    /// Answers everything with these bytes and closes.
    pub fn break_with(&self, bytes: impl AsRef<[u8]>) {
        self.lock().instead = Some(bytes.as_ref().to_owned());
    }

    /// Paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    /// How often a file was asked for.
    pub fn downloads(&self, filename: &str) -> usize {
        self.asked().iter().filter(|path| path.ends_with(filename)).count()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener, which sees that it is over.
        TcpStream::connect(self.address).ok();
    }
}

fn answer(mut stream: impl Read + Write, state: &Mutex<State>, over: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(&mut stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut json, mut authorization) = (false, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "accept" => json = value.contains("application/vnd.pypi.simple.v1+json"),
            "authorization" => value.trim().clone_into(&mut authorization),
            _ => {}
        }
    }
    let (response, delay) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(path.clone());
        let delay = if path.starts_with("/files/") { state.file_delay } else { Duration::ZERO };
        (respond(&state, &path, json, &authorization), delay)
    };
    let mut waited = Duration::ZERO;
    while waited < delay && !over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(50));
        waited += Duration::from_millis(50);
    }
    stream.write_all(&response).and_then(|()| stream.flush()).ok()
}

fn respond(state: &State, path: &str, json: bool, authorization: &str) -> Vec<u8> {
    if let Some(bytes) = &state.instead {
        return bytes.clone();
    }
    if let Some(to) = &state.redirect {
        return http("302 Found", &format!("Location: {to}{path}\r\n"), b"");
    }
    if let Some(credentials) = &state.credentials {
        let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials));
        if authorization != expected {
            return http("401 Unauthorized", "WWW-Authenticate: Basic realm=\"index\"\r\n", b"who are you");
        }
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["simple", project] if state.projects.contains_key(project) => {
            let files = &state.projects[project];
            if json && !state.html { json_page(project, files) } else { html_page(project, files) }
        }
        ["files", project, name] => {
            let file = state.projects.get(project).and_then(|files| files.iter().find(|file| file.name == name));
            file.map_or_else(not_found, |file| {
                http("200 OK", "Content-Type: application/octet-stream\r\n", &file.content)
            })
        }
        _ => not_found(),
    }
}

fn json_page(project: &str, files: &[File]) -> Vec<u8> {
    let files: Vec<_> = files
        .iter()
        .map(|file| {
            json!({
                "filename": file.name, "url": format!("/files/{project}/{}", file.name),
                "hashes": {"sha256": file.claimed}, "requires-python": file.requires_python,
            })
        })
        .collect();
    let page = json!({"meta": {"api-version": "1.0"}, "name": project, "files": files});
    http("200 OK", "Content-Type: application/vnd.pypi.simple.v1+json\r\n", page.to_string().as_bytes())
}

fn html_page(project: &str, files: &[File]) -> Vec<u8> {
    let mut page = format!("<!DOCTYPE html><html><body><h1>{project}</h1>\n");
    for file in files {
        let python = file.requires_python.as_ref().map_or(String::new(), |versions| {
            format!(" data-requires-python=\"{}\"", versions.replace('>', "&gt;").replace('<', "&lt;"))
        });
        page.push_str(&format!(
            "<a href=\"/files/{project}/{0}#sha256={1}\"{python}>{0}</a><br>\n",
            file.name, file.claimed
        ));
    }
    page.push_str("</body></html>\n");
    http("200 OK", "Content-Type: text/html\r\n", page.as_bytes())
}

fn not_found() -> Vec<u8> {
    http("404 Not Found", "", b"no such thing")
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut bytes = std::mem::take(&mut answer).into_bytes();
    bytes.extend(body);
    bytes
}
