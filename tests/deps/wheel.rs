//! Wheels and source archives, honest and hostile, made on the fly.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use zip::write::SimpleFileOptions;

/// A distribution that is being put together: a wheel, or a source archive with the same files.
#[derive(Debug, Clone)]
pub struct Wheel {
    name: String,
    version: String,
    tag: String,
    metadata: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Wheel {
    /// A pure wheel with one module of its name, whose `VERSION` is its version.
    pub fn new(name: &str, version: &str) -> Self {
        let module = format!("{}.py", name.replace('-', "_"));
        Self::empty(name, version).file(&module, format!("VERSION = {version:?}\n"))
    }

    /// A pure wheel with no module at all.
    pub fn empty(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            tag: "py3-none-any".to_owned(),
            metadata: String::new(),
            files: BTreeMap::new(),
        }
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.to_owned(), content.as_ref().to_owned());
        self
    }

    /// Says what it needs in turn.
    #[must_use]
    pub fn requires(mut self, requirement: &str) -> Self {
        self.metadata.push_str(&format!("Requires-Dist: {requirement}\n"));
        self
    }

    /// Says which Python it needs.
    #[must_use]
    pub fn python(mut self, versions: &str) -> Self {
        self.metadata.push_str(&format!("Requires-Python: {versions}\n"));
        self
    }

    /// Sets what it runs on, such as `cp311-cp311-win_amd64`.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        tag.clone_into(&mut self.tag);
        self
    }

    /// The name as an index has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn stem(&self) -> String {
        format!("{}-{}", self.name.replace('-', "_"), self.version)
    }

    /// The name of the wheel's file.
    pub fn filename(&self) -> String {
        format!("{}-{}.whl", self.stem(), self.tag)
    }

    /// The name of the source archive.
    pub fn source_name(&self) -> String {
        format!("{}.tar.gz", self.stem())
    }

    fn core_metadata(&self) -> String {
        format!("Metadata-Version: 2.1\nName: {}\nVersion: {}\n{}", self.name, self.version, self.metadata)
    }

    /// The wheel.
    pub fn build(&self) -> Vec<u8> {
        let info = format!("{}.dist-info", self.stem());
        let mut files = self.files.clone();
        files.insert(format!("{info}/METADATA"), self.core_metadata().into_bytes());
        let wheel = format!("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {}\n", self.tag);
        files.insert(format!("{info}/WHEEL"), wheel.into_bytes());
        let mut record = String::new();
        for (path, content) in &files {
            let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(content));
            record.push_str(&format!("{path},sha256={digest},{}\n", content.len()));
        }
        record.push_str(&format!("{info}/RECORD,,\n"));
        files.insert(format!("{info}/RECORD"), record.into_bytes());
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (path, content) in &files {
            archive.start_file(path.as_str(), SimpleFileOptions::default()).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    /// The source archive: the files as they are, `setup.py` among them if there is to be one.
    pub fn source(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let metadata = self.core_metadata().into_bytes();
        let files = self.files.iter().map(|(path, content)| (path.as_str(), content));
        for (path, content) in files.chain([("PKG-INFO", &metadata)]) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, format!("{}/{path}", self.stem()), content.as_slice()).unwrap();
        }
        gzip(&archive.into_inner().unwrap())
    }

    /// Writes the wheel into a folder that everyone may read.
    pub fn write_to(&self, folder: &Path) {
        std::fs::write(folder.join(self.filename()), self.build()).unwrap();
    }
}

/// Lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// A gzip file (RFC 1952) of stored blocks.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let last = data.len().saturating_sub(1) / 0xffff;
    for (at, piece) in data.chunks(0xffff).enumerate() {
        let length = u16::try_from(piece.len()).unwrap();
        out.push(u8::from(at == last));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(piece);
    }
    out.extend(crc32fast::hash(data).to_le_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out
}
