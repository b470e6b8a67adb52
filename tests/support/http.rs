//! A small blocking HTTP client that hides nothing: one connection per request, and every answer is held to what the API
//! promises of every answer.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence before a test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server, as somebody with a key sees it.
#[derive(Debug, Clone)]
pub struct Api {
    /// `127.0.0.1:port`.
    pub address: String,
    /// The key; without one, no `Authorization` is sent.
    pub key: Option<String>,
}

impl Api {
    /// The same server with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { address: self.address.clone(), key: Some(key.to_owned()) }
    }

    /// The same server without a key.
    pub fn anonymous(&self) -> Self {
        Self { address: self.address.clone(), key: None }
    }

    /// A request of any method.
    pub fn call(&self, method: &str, path: impl Into<String>) -> Call {
        let headers = self.key.iter().map(|key| ("Authorization".to_owned(), format!("Bearer {key}"))).collect();
        Call { address: self.address.clone(), method: method.to_owned(), path: path.into(), headers, body: None }
    }

    pub fn get(&self, path: impl Into<String>) -> Call {
        self.call("GET", path)
    }

    pub fn post(&self, path: impl Into<String>) -> Call {
        self.call("POST", path)
    }

    pub fn put(&self, path: impl Into<String>) -> Call {
        self.call("PUT", path)
    }

    pub fn patch(&self, path: impl Into<String>) -> Call {
        self.call("PATCH", path)
    }

    pub fn delete(&self, path: impl Into<String>) -> Call {
        self.call("DELETE", path)
    }

    /// A bare connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes and gives what comes back until the server closes.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // The server may close before it has read all.
        stream.write_all(bytes.as_ref()).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends these bytes and gives the answers that come back until the server closes.
    #[track_caller]
    pub fn answers(&self, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
        let text = self.raw(bytes);
        let (mut rest, mut answers) = (text.as_str(), Vec::new());
        while !rest.is_empty() {
            let (head, after) = rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
            let mut lines = head.split("\r\n");
            let line = lines.next().unwrap_or_default();
            assert!(line.starts_with("HTTP/1."), "{text:?}");
            let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
            let headers = lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {text:?}")));
            let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.as_str());
            let length: usize = length.unwrap_or_else(|| panic!("no length: {text:?}")).parse().expect("a length");
            let body = after.as_bytes().get(..length).unwrap_or_else(|| panic!("it broke off: {text:?}")).to_owned();
            rest = &after[length..];
            let answer = Answer { what: "raw bytes".into(), status, headers, body };
            answer.keeps_its_promises();
            answers.push(answer);
        }
        answers
    }
}

/// A request that is being put together.
#[derive(Debug, Clone)]
pub struct Call {
    address: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_owned());
        self.header("Content-Type", content_type)
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    fn head(&self, length: Option<u64>) -> String {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.method, self.path, self.address);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = length {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head + "\r\n"
    }

    /// Sends it and reads the head of the answer; the body is read as it comes.
    #[track_caller]
    pub fn open(&self) -> Open {
        let body = self.body.as_deref();
        self.stream(body.map(|body| body.len() as u64), body.unwrap_or_default())
    }

    /// Like [`open`](Self::open), with a body that is read as it is sent.
    #[track_caller]
    pub fn stream(&self, length: Option<u64>, mut body: impl Read) -> Open {
        let mut stream = TcpStream::connect(&self.address).expect("the server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(self.head(length).as_bytes()).expect("the server reads the head");
        // A server that refuses closes before it has read all; its answer is there nevertheless.
        std::io::copy(&mut body, &mut stream).ok();
        let what = format!("{} {}", self.method, self.path);
        Open::read(stream, &what, self.method == "HEAD")
    }

    /// Sends it and reads the whole answer.
    #[track_caller]
    pub fn send(&self) -> Answer {
        self.open().finish()
    }
}

/// An answer whose body is still coming.
pub struct Open {
    what: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: BufReader<Box<dyn Read + Send>>,
    /// The connection, to cut it.
    pub connection: TcpStream,
}

impl Open {
    #[track_caller]
    fn read(stream: TcpStream, what: &str, no_body: bool) -> Self {
        let connection = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("{what}: no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim_end_matches(['\r', '\n']);
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let body: Box<dyn Read + Send> = if no_body || status == 304 || status == 204 {
            Box::new(std::io::empty())
        } else if find("transfer-encoding") == Some("chunked") {
            Box::new(Chunks { inner: reader, left: 0, ended: false })
        } else if let Some(length) = find("content-length") {
            Box::new(Exactly { inner: reader, left: length.parse().unwrap() })
        } else {
            Box::new(reader)
        };
        Self { what: what.to_owned(), status, headers, body: BufReader::new(body), connection }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads the rest.
    #[track_caller]
    pub fn finish(mut self) -> Answer {
        let mut body = Vec::new();
        let whole = self.body.read_to_end(&mut body);
        whole.unwrap_or_else(|error| panic!("{}: the answer broke off: {error}", self.what));
        let answer = Answer { what: self.what, status: self.status, headers: self.headers, body };
        answer.keeps_its_promises();
        answer
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    what: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// What holds for every answer of the API: a request id, and errors that are problems with a code of the table.
    #[track_caller]
    fn keeps_its_promises(&self) {
        let id = self.header("x-request-id").unwrap_or_else(|| panic!("no X-Request-ID: {self:?}"));
        assert_ne!(self.status, 500, "{self}");
        let about_health = self.what.ends_with("/readyz");
        if self.status < 400 || about_health || self.what.starts_with("HEAD ") {
            return;
        }
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let body: ade::api::ProblemBody = serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self}"));
        let code = ade::api::Code::ALL.iter().find(|code| code.as_str() == body.code);
        let code = code.unwrap_or_else(|| panic!("the code is not in the table: {self}"));
        assert_eq!((body.status, code.status().as_u16()), (self.status, self.status), "{self}");
        assert_eq!(body.title, code.title(), "{self}");
        assert_eq!(body.kind, format!("/problems#{}", body.code), "{self}");
        assert_eq!(body.request_id.as_deref(), Some(id), "{self}");
        if let Some(seconds) = body.extensions.get("retry_after") {
            assert_eq!(self.header("retry-after"), Some(seconds.to_string().as_str()), "{self}");
        }
        if self.status == 401 {
            assert!(self.header("www-authenticate").is_some(), "a 401 says how (RFC 9110, 15.5.2): {self}");
        }
        if self.status == 405 {
            assert!(self.header("allow").is_some(), "a 405 says what is allowed (RFC 9110, 15.5.6): {self}");
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Asserts that it is this problem; its body.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        let body = self.json();
        assert_eq!(body["code"], code, "{self}");
        body
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(4000)]);
        write!(f, "{} -> {} {text}", self.what, self.status)
    }
}

/// A body of a known length, which must come whole.
struct Exactly {
    inner: BufReader<TcpStream>,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        if read == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

/// A chunked body (RFC 9112, 7.1), which must come to its end.
struct Chunks {
    inner: BufReader<TcpStream>,
    left: usize,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            self.inner.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16);
            self.left = size.map_err(|_| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let most = self.left.min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        if self.left == 0 {
            self.inner.read_line(&mut String::new())?;
        }
        Ok(read)
    }
}

/// A form (RFC 7578) of parts: name, file name, content.
pub fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "a-boundary-that-no-part-has";
    let mut body = Vec::new();
    for (name, file, content) in parts {
        body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"").bytes());
        if let Some(file) = file {
            body.extend(format!("; filename=\"{file}\"\r\nContent-Type: text/csv").bytes());
        }
        body.extend(b"\r\n\r\n");
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}
