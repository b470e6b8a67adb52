//! The runner image, built for real by both routes on this machine's Docker Engine.
//!
//! The registry route needs a registry: Debian's `docker-registry`, unpacked for the test, serves a stand-in for the official
//! slim Python that is assembled from Debian packages. Everything is removed afterwards, also when a test fails.

#![allow(clippy::expect_used, reason = "helpers of tests fail the test they help")]

use ade::image::{self, BuildOptions, ImageSpec, LABEL_CONTEXT, LABEL_ROUTE, LABEL_RUNNER, Route};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, ListImagesOptionsBuilder, LogsOptionsBuilder, PushImageOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashMap};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn docker() -> Docker {
    Docker::connect_with_local_defaults().expect("these tests need a Docker Engine")
}

/// Runs `work` to its end from a destructor, which is not async and may run inside a runtime.
fn finish<F>(work: impl FnOnce(Docker) -> F + Send)
where
    F: Future<Output = ()>,
{
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { work(docker()).await });
        });
    });
}

/// An image name that is gone when the test ends.
struct Throwaway(String);

impl Throwaway {
    fn new(purpose: &str) -> Self {
        Self(format!("ade-runner-test-{purpose}:{}", std::process::id()))
    }

    fn spec(&self) -> ImageSpec {
        ImageSpec { tag: self.0.clone(), ..ImageSpec::embedded() }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let name = self.0.clone();
        finish(move |docker| async move {
            docker.remove_image(&name, Some(RemoveImageOptionsBuilder::default().force(true).build()), None).await.ok();
        });
    }
}

/// A container that is gone when the test ends.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let id = self.0.clone();
        finish(move |docker| async move {
            docker.remove_container(&id, Some(RemoveContainerOptionsBuilder::default().force(true).build())).await.ok();
        });
    }
}

async fn create(docker: &Docker, image: &str, command: &[&str]) -> Container {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(command.iter().map(|&part| part.to_owned()).collect()),
        network_disabled: Some(true),
        ..ContainerCreateBody::default()
    };
    Container(docker.create_container(None::<CreateContainerOptions>, body).await.expect("a container").id)
}

/// Runs a command in a container; panics with its output unless it succeeds.
async fn run(docker: &Docker, image: &str, command: &[&str]) -> String {
    let container = create(docker, image, command).await;
    docker.start_container(&container.0, None::<StartContainerOptions>).await.expect("starts");
    let ended = docker.wait_container(&container.0, None::<WaitContainerOptions>).next().await;
    let logs = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let output: Vec<_> = docker.logs(&container.0, Some(logs)).try_collect().await.expect("logs");
    let output: String = output.iter().map(ToString::to_string).collect();
    assert!(matches!(ended, Some(Ok(_))), "{command:?}: {ended:?}\n{output}");
    output
}

/// One entry of an image's root file system.
struct Entry {
    mode: u32,
    owner: (u64, u64),
    link: Option<PathBuf>,
    kind: tar::EntryType,
}

/// The file system of an image as a job would find it, by path without leading slash.
async fn file_system(docker: &Docker, image: &str) -> BTreeMap<String, Entry> {
    let container = create(docker, image, &["python3"]).await;
    let chunks: Vec<_> = docker.export_container(&container.0).try_collect().await.expect("an export");
    let bytes: Vec<u8> = chunks.concat();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().expect("a tar archive").map(|entry| {
        let entry = entry.expect("an entry");
        let header = entry.header();
        let path = entry.path().expect("a path").to_string_lossy().trim_end_matches('/').to_owned();
        let described = Entry {
            mode: header.mode().expect("a mode"),
            owner: (header.uid().expect("a uid"), header.gid().expect("a gid")),
            link: entry.link_name().expect("a link").map(|link| link.into_owned()),
            kind: header.entry_type(),
        };
        (path, described)
    });
    entries.collect()
}

/// What Docker itself puts into every container.
fn is_dockers_own(path: &str) -> bool {
    matches!(path, ".dockerenv" | "etc/hostname" | "etc/hosts" | "etc/resolv.conf" | "etc/mtab")
        || path.starts_with("dev/")
}

/// Every promise about the image that does not depend on the route.
async fn keeps_its_promises(docker: &Docker, image: &str, route: &str) {
    let inspected = docker.inspect_image(image).await.expect("the image");
    let config = inspected.config.expect("a config");
    let mut env = config.env.unwrap_or_default();
    env.sort();
    assert_eq!(
        env,
        ["HOME=/job/tmp", "LANG=C.UTF-8", "PATH=/usr/bin", "PYTHONHASHSEED=0", "PYTHONHOME=/usr", "TMPDIR=/job/tmp"]
    );
    assert_eq!(
        config.cmd.unwrap_or_default(),
        ["/usr/bin/python3", "-S", "-s", "-P", "-B", "-X", "utf8", "/opt/ade/boot.pyc"]
    );
    assert_eq!(config.entrypoint.unwrap_or_default(), Vec::<String>::new());
    assert_eq!(config.user.as_deref(), Some("65532:65532"));
    let labels = config.labels.unwrap_or_default();
    assert_eq!(labels.get(LABEL_ROUTE).map(String::as_str), Some(route));
    assert_eq!(labels.get(LABEL_CONTEXT), Some(&ImageSpec::embedded().context_sha256));
    assert!(labels.contains_key(LABEL_RUNNER));

    let files = file_system(docker, image).await;
    for path in [
        "usr/bin/python3",
        "opt/ade/boot.py",
        "opt/ade/boot.pyc",
        "etc/ld.so.cache",
        "opt/ade/ade_runner/__init__.py",
        "opt/ade/lib/ade_native.abi3.so",
        "opt/ade/lib/python_calamine/__init__.py",
    ] {
        assert!(files.contains_key(path), "{path} is missing");
    }
    assert!(
        files.contains_key("opt/ade/ade_runner/__pycache__/__init__.cpython-311.pyc"),
        "the runner is not compiled"
    );
    assert_eq!(files["tmp"].link.as_deref(), Some(Path::new("/job/tmp")));
    assert!(
        files["job"].kind.is_dir() && !files.keys().any(|path| path.starts_with("job/")),
        "/job must be an empty directory"
    );
    for (path, entry) in files.iter().filter(|(path, _)| !is_dockers_own(path)) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let forbidden =
            ["sh", "bash", "dash", "busybox", "perl", "apt", "apt-get", "dpkg", "pip", "pip3", "env", "openssl"];
        // What installs dependencies lies apart, on no path of a job.
        let installer = path.starts_with("opt/ade/installer/");
        assert!(
            !forbidden.contains(&name) || path.starts_with("usr/share/zoneinfo") || installer,
            "{path} must not be in the image"
        );
        let program = name.starts_with("python3") || path == "opt/ade/installer/bin/uv";
        assert!(
            !path.contains("bin/") || program || path.starts_with("opt/ade/installer/pip"),
            "{path} is a program that nobody asked for"
        );
        let left_out = ["test", "idlelib", "ensurepip", "tkinter", "lib2to3"];
        assert!(!left_out.contains(&name) || !path.contains("lib/python3"), "{path} must not be in the image");
        assert_eq!(entry.mode & 0o6000, 0, "{path} is setuid or setgid");
        assert_eq!(entry.owner, (0, 0), "{path} does not belong to root");
        if !entry.kind.is_symlink() {
            // A new volume takes over the mode of its mount point, and an installer has a uid of its own.
            let writable = if path == "deps" { 0o022 } else { 0 };
            assert_eq!(entry.mode & 0o022, writable, "{path} is writable by others");
            assert_eq!(entry.mode & 0o004, 0o004, "{path} is not readable by everyone");
            assert!(!entry.kind.is_dir() || entry.mode & 0o001 == 0o001, "{path} cannot be entered by everyone");
        }
    }

    let program = r#"
import sys
sys.path.insert(0, "/opt/ade/lib")
import ade_native, asyncio, bz2, ctypes, decimal, hashlib, json, lzma, multiprocessing, os, python_calamine, sqlite3, ssl, unittest, uuid
import xml.etree.ElementTree, zlib, zoneinfo
assert sys.version_info[:2] == (3, 11), sys.version
assert os.getuid() == 65532
assert len(ssl.create_default_context().get_ca_certs()) > 100
assert zoneinfo.ZoneInfo("Europe/Berlin").key == "Europe/Berlin" and len(zoneinfo.available_timezones()) > 400
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
for library in "libstdc++.so.6", "libgcc_s.so.1", "libz.so.1", "libexpat.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1":
    ctypes.CDLL(library)
uncompiled = [name for name, module in sys.modules.items()
              if (path := getattr(module, "__cached__", None)) and ".zip/" not in path and not os.path.exists(path)]
assert not uncompiled, uncompiled
print("fine")
"#;
    let parked = r#"
import sys
sys.path.insert(0, "/opt/ade")
import boot, re
from re import _compiler
def unknown(pattern, flags=0):
    raise AssertionError(f"compiled while loading: {pattern!r}")
compile, _compiler.compile, before = _compiler.compile, unknown, set(sys.modules)
_, bundle = boot.start()
from ade_runner import child
with bundle:
    child.load()
_compiler.compile = compile
files = [name for name in set(sys.modules) - before
         if (spec := getattr(sys.modules[name], "__spec__", None)) and spec.origin not in ("built-in", "frozen") and not sys.meta_path[0].find_spec(name)]
assert not files, f"loaded from a file of their own: {files}"
left = [name for name in boot.STAND_INS if name in sys.modules]
assert not left, left
import pathlib, shutil, tarfile, zipfile
assert type(shutil) is type(sys) and zipfile.pathlib.PurePath is pathlib.PurePath and tarfile.shutil.copy is shutil.copy
assert "ade_runner.tunnel" in sys.modules and "socket" not in sys.modules
import csv, importlib
assert importlib.reload(csv) is csv
assert re.compile("a+(?P<b>c)").match("aac")["b"] == "c" and re.compile(r"\d+").fullmatch("12")
print("fine")
"#;
    let looks = r#"
import sys
boot = {"__name__": "boot"}
with open("/opt/ade/boot.py") as file:
    exec(file.read(), boot)
boot["start"]()
def looked():
    return [path for path, finder in sys.path_importer_cache.items() if getattr(finder, "_path_mtime", -1) != -1]
assert not looked(), f"a start looks into folders: {looked()}"
try:
    import of_a_package
except ModuleNotFoundError:
    pass
assert set(looked()) <= {"/opt/ade", "/opt/ade/lib"}, f"a package's own import looks into folders: {looked()}"
import decimal, pkgutil, python_calamine, random, ade_runner.dry_run
assert {"random", "_decimal", "python_calamine"} <= {module.name for module in pkgutil.iter_modules()}
assert "\u0160".encode("cp1250") == b"\x8a" and b"\xa4".decode("iso8859_15") == "\u20ac"
print("fine")
"#;
    for program in [program, parked, looks] {
        let said = run(docker, image, &["python3", "-S", "-s", "-P", "-B", "-X", "utf8", "-c", program]).await;
        assert_eq!(said.trim(), "fine");
    }
}

/// The digests of an image's layers: of the archives of its root file system.
async fn layers(docker: &Docker, image: &str) -> Vec<String> {
    docker.inspect_image(image).await.expect("the image").root_fs.and_then(|fs| fs.layers).unwrap_or_default()
}

#[tokio::test]
async fn the_debian_route_keeps_every_promise_and_is_reproducible_under_concurrency() {
    let docker = docker();
    let (first, second) = (Throwaway::new("debian-1"), Throwaway::new("debian-2"));
    let asked = BuildOptions { route: Route::Debian, ..BuildOptions::default() };
    // A registry that does not answer: the automatic choice must fall back, and say why.
    let automatic = BuildOptions { base_image: Some("127.0.0.1:9/python:3.11".to_owned()), ..BuildOptions::default() };
    let mut said = Vec::new();
    let mut say = |line: &str| said.push(line.to_owned());
    let mut silent = |_: &str| {};
    let (one_spec, two_spec) = (first.spec(), second.spec());
    let (one, two) = tokio::join!(
        image::build(&docker, &one_spec, &asked, &mut silent),
        image::build(&docker, &two_spec, &automatic, &mut say)
    );
    let (one, two) = (one.expect("the first build"), two.expect("the second build"));
    assert_eq!((one.route.as_deref(), two.route.as_deref()), (Some("debian"), Some("debian")));
    assert!(said.iter().any(|line| line.contains("because no registry answers")), "{said:#?}");
    assert!(one.size > 30_000_000 && one.size < 130_000_000, "{} bytes", one.size);
    assert_eq!(layers(&docker, &first.0).await, layers(&docker, &second.0).await, "two builds differ");
    keeps_its_promises(&docker, &first.0, "debian").await;
}

#[tokio::test]
async fn a_build_that_fails_says_what_failed_and_the_way_out() {
    let docker = docker();
    let tag = Throwaway::new("unreachable");
    let options = BuildOptions {
        route: Route::Debian,
        debian_mirror: Some("http://127.0.0.1:9/debian".to_owned()),
        ..BuildOptions::default()
    };
    let error = image::build(&docker, &tag.spec(), &options, &mut |_| {}).await.expect_err("nothing listens there");
    assert_eq!(error.kind(), "image_build_failed");
    assert!(error.to_string().contains("127.0.0.1:9") && error.to_string().contains("ADE_DEBIAN_MIRROR"), "{error}");
    assert!(docker.inspect_image(&tag.0).await.is_err());

    let options = BuildOptions {
        route: Route::Registry,
        base_image: Some("127.0.0.1:9/python:3.11".to_owned()),
        ..BuildOptions::default()
    };
    let error = image::build(&docker, &tag.spec(), &options, &mut |_| {}).await.expect_err("nothing listens there");
    assert_eq!(error.kind(), "image_build_failed");
    assert!(error.to_string().contains("cannot pull 127.0.0.1:9/python:3.11"), "{error}");
}

#[tokio::test]
async fn a_named_image_is_used_only_when_it_is_there_and_one_of_ours() {
    let docker = docker();
    assert_eq!(image::find(&docker, Some("ade-runner-test-nowhere:1")).await.expect("no error"), None);
    let missing =
        image::ensure(&docker, Some("ade-runner-test-nowhere:1"), &BuildOptions::default(), &mut |_| {}).await;
    assert_eq!(missing.expect_err("it is not there").kind(), "image_missing");

    let foreign = Throwaway::new("foreign");
    import(&docker, &foreign.0, tar::Builder::new(Vec::new()).into_inner().expect("an archive")).await;
    let error = image::find(&docker, Some(&foreign.0)).await.expect_err("it has no label");
    assert_eq!(error.kind(), "image_invalid");
    assert!(error.to_string().contains(&foreign.0), "{error}");
}

#[test]
fn an_interrupted_build_leaves_neither_files_nor_processes() {
    let temporary = tempfile::tempdir().expect("a directory");
    // A mirror that accepts connections and never answers: without being told to, this build would not end.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mirror = format!("http://{}/debian", silent.local_addr().expect("an address"));
    let mut build = Command::new(env!("CARGO_BIN_EXE_ade"))
        .args(["image", "build", "--route", "debian"])
        .env("TMPDIR", temporary.path())
        .env("ADE_DEBIAN_MIRROR", mirror)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    // Deep in the work: mmdebstrap has made its root inside our temporary directory.
    wait_for(Duration::from_secs(60), || {
        left_in(temporary.path())
            .iter()
            .any(|path| path.to_string_lossy().contains("mmdebstrap.") && !path.to_string_lossy().contains("gpghome"))
    });
    Command::new("kill").args(["-INT", &build.id().to_string()]).status().expect("kill");
    let status = build.wait().expect("ends");
    assert!(!status.success());
    let name = temporary.path().to_string_lossy().into_owned();
    assert_eq!(processes_about(&name), Vec::<String>::new());
    let left: Vec<_> =
        left_in(temporary.path()).into_iter().filter(|path| path.extension().is_none_or(|e| e != "lock")).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

/// Paths at most three levels below a directory.
fn left_in(directory: &Path) -> Vec<PathBuf> {
    fn walk(directory: &Path, depth: u8, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            found.push(entry.path());
            if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, 3, &mut found);
    found
}

/// Command lines of running processes that mention `text`.
fn processes_about(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(text)).collect()
}

fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "waited {limit:?} in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

async fn import(docker: &Docker, name: &str, archive: Vec<u8>) {
    let (repository, tag) = name.rsplit_once(':').expect("a tag");
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        changes: vec!["ENV PATH=/usr/local/bin:/usr/bin:/bin".to_owned()],
        ..CreateImageOptions::default()
    };
    let done: Result<Vec<_>, _> =
        docker.create_image(Some(options), Some(bollard::body_full(archive.into())), None).try_collect().await;
    done.expect("an import");
}

/// A registry of our own, on a free port of the loopback interface, which Docker trusts without TLS.
struct Registry {
    port: u16,
    process: Child,
    _files: TempDir,
}

impl Registry {
    /// Starts one, or says what this host lacks.
    fn start() -> Result<Self, String> {
        let files = tempfile::tempdir().map_err(|error| error.to_string())?;
        // Unpacked rather than installed: an installed one would come with a service.
        let unpack = "apt-get download -q docker-registry && dpkg -x docker-registry_*.deb .";
        let unpacked = Command::new("sh")
            .args(["-c", unpack])
            .current_dir(files.path())
            .output()
            .map_err(|error| error.to_string())?;
        if !unpacked.status.success() {
            return Err(format!("no Debian package docker-registry: {}", String::from_utf8_lossy(&unpacked.stderr)));
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .map_err(|error| error.to_string())?
            .port();
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/store}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            files.path().display()
        );
        std::fs::write(files.path().join("config.yml"), configuration).map_err(|error| error.to_string())?;
        let process = Command::new(files.path().join("usr/bin/docker-registry"))
            .arg("serve")
            .arg(files.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let registry = Self { port, process, _files: files };
        wait_for(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A Debian with Python, pip and a shell: what the Dockerfile expects of its base.
fn stand_in_base() -> Result<Vec<u8>, String> {
    let output = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--aptopt=APT::Install-Recommends \"false\"", "--format=tar"])
        .args(["--include=python3,python3-pip,ca-certificates,tzdata", "bookworm", "-"])
        .output()
        .map_err(|error| format!("no mmdebstrap: {error}"))?;
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test]
async fn the_registry_route_keeps_the_same_promises() {
    let docker = docker();
    let (registry, base) = match (Registry::start(), stand_in_base()) {
        (Ok(registry), Ok(base)) => (registry, base),
        (registry, base) => {
            let lacking: Vec<String> = registry.err().into_iter().chain(base.err()).collect();
            eprintln!("not tested here, the host lacks: {lacking:?}");
            return;
        }
    };
    let name = Throwaway(format!("127.0.0.1:{}/python:3.11-slim-bookworm", registry.port));
    import(&docker, &name.0, base).await;
    let (repository, tag) = name.0.rsplit_once(':').expect("a tag");
    let pushed: Result<Vec<_>, _> = docker
        .push_image(repository, Some(PushImageOptionsBuilder::default().tag(tag).build()), None)
        .try_collect()
        .await;
    pushed.expect("a push");
    docker
        .remove_image(&name.0, Some(RemoveImageOptionsBuilder::default().force(true).build()), None)
        .await
        .expect("removed here");

    let image = Throwaway::new("registry");
    let options = BuildOptions { base_image: Some(name.0.clone()), ..BuildOptions::default() };
    let mut said = Vec::new();
    let info =
        image::build(&docker, &image.spec(), &options, &mut |line| said.push(line.to_owned())).await.expect("a build");
    assert_eq!(info.route.as_deref(), Some("registry"), "{said:#?}");
    keeps_its_promises(&docker, &image.0, "registry").await;

    let left = HashMap::from([
        ("dangling".to_owned(), vec!["true".to_owned()]),
        ("label".to_owned(), vec!["dev.ade.image.stage".to_owned()]),
    ]);
    let list = ListImagesOptionsBuilder::default().all(true).filters(&left).build();
    assert!(docker.list_images(Some(list)).await.expect("a list").is_empty(), "the build stage was left behind");
}
