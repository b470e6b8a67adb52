//! What is installed, from where, and how it is told.

use crate::index::Index;
use crate::site::{Site, TOOLS, asking, block, packages, shown};
use crate::support::{Docker, image_id};
use crate::wheel::{Wheel, sha256};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

const IMPORTS: &str = "import alpha, beta; say('versions', alpha.VERSION + ' ' + beta.VERSION)";

fn index() -> Index {
    Index::start().with(&[
        Wheel::new("alpha", "1.0"),
        Wheel::new("alpha", "1.2").requires("beta>=2"),
        Wheel::new("beta", "2.1"),
    ])
}

/// A folder of wheels that everyone may read, as containers have users of their own.
pub fn wheelhouse(wheels: &[Wheel]) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("ade-test-wheels-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    wheels.iter().for_each(|wheel| wheel.write_to(folder.path()));
    folder
}

#[test]
fn both_installers_install_from_an_index_and_the_next_job_finds_the_set() {
    for tool in TOOLS {
        let index = index();
        if tool == "pip" {
            index.speak_html();
        }
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let package = asking("# what the hook imports\nAlpha>=1.1\n", IMPORTS);
        let first = site.install(&package);
        first.assert_succeeded();
        assert_eq!(first.finding("versions"), "1.2 2.1", "{tool}");

        let said = block(&first);
        assert_eq!((&said["status"], &said["source"]), (&"installed".into(), &"index".into()), "{tool}: {said:#}");
        assert_eq!(packages(said), [("alpha".into(), "1.2".into()), ("beta".into(), "2.1".into())], "{tool}");
        assert_eq!(said["packages"][0]["requested"], true);
        assert_eq!(said["packages"][1]["requested"], false);
        let digest = sha256(&Wheel::new("alpha", "1.2").requires("beta>=2").build());
        assert_eq!(said["packages"][0]["sha256"], digest.as_str());
        let file = b"# what the hook imports\nAlpha>=1.1\n";
        assert_eq!(said["requirements_sha256"], sha256(file).as_str());
        assert!(said["installer"].as_str().unwrap().starts_with(&format!("{tool} ")), "{said}");
        assert_eq!(said["diagnostics"], serde_json::json!([]));
        for name in ["set_id", "lock_sha256", "python"] {
            assert!(!said[name].as_str().unwrap().is_empty(), "{name}");
        }
        assert_eq!(said, &first.json_file("run-request.json")["dependencies"], "{tool}");

        let list = first.text("packages.txt");
        assert!(list.contains(&format!("alpha==1.2 \\\n    --hash=sha256:{digest}\n")), "{list}");
        let lock = list.split_once('\n').unwrap().1;
        assert_eq!(said["lock_sha256"], sha256(lock.as_bytes()).as_str());
        assert!(first.text("install.log").contains("resolving from the index"), "{}", first.text("install.log"));

        for (event, count) in [("deps.resolve", 1), ("deps.install", 1), ("deps.ready", 1), ("deps.failed", 0)] {
            assert_eq!(first.events_named(event).len(), count, "{tool}: {event}");
        }
        assert_eq!(first.events_named("deps.resolve")[0]["packages"], 2);
        assert!(first.events_named("deps.install")[0]["bytes"].as_u64().unwrap() > 0);
        let connections = first.events_named("egress.connect");
        assert!(!connections.is_empty(), "{tool}");
        for connection in connections {
            assert_eq!((&connection["purpose"], &connection["host"]), (&"install".into(), &"127.0.0.1".into()));
        }

        let asked = index.asked().len();
        let second = site.run(&package, &["--network", "deny"]);
        second.assert_succeeded();
        assert_eq!(second.finding("versions"), "1.2 2.1");
        assert_eq!(block(&second)["status"], "cached", "{tool}");
        assert_eq!(block(&second)["set_id"], said["set_id"]);
        assert_eq!(second.text("packages.txt"), list);
        assert_eq!(second.text("install.log"), first.text("install.log"));
        assert!(second.events_named("deps.install").is_empty() && second.events_named("egress.connect").is_empty());
        assert_eq!(index.asked().len(), asked, "nothing is asked of the index for a set that is there");
        let waited = block(&second)["duration_ms"].as_u64().unwrap();
        assert!(waited < 1000, "{tool}: finding a set took {waited} ms");
    }
}

#[test]
fn a_wheelhouse_alone_will_do_without_network_in_a_folder_or_a_volume() {
    let wheels = [Wheel::new("alpha", "1.2").requires("beta>=2"), Wheel::new("beta", "2.1")];
    for tool in TOOLS {
        let folder = wheelhouse(&wheels);
        let site = Site::default().with("ADE_INSTALLER", tool);
        let run = site.run(&asking("alpha", IMPORTS), &["--network", "deny", "--wheelhouse", shown(folder.path())]);
        run.assert_succeeded();
        assert_eq!(run.finding("versions"), "1.2 2.1");
        assert_eq!((&block(&run)["status"], &block(&run)["source"]), (&"installed".into(), &"wheelhouse".into()));
        assert!(run.events_named("egress.connect").is_empty() && run.events_named("egress.denied").is_empty());
    }
    let volume = Volume::of(&wheels);
    let run = Site::default().run(&asking("alpha", IMPORTS), &["--network", "deny", "--wheelhouse", &volume.0]);
    run.assert_succeeded();
    assert_eq!(block(&run)["source"], "wheelhouse");
}

/// A volume of wheels, by its name; it goes with the test.
pub struct Volume(pub String);

impl Volume {
    pub fn of(wheels: &[Wheel]) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut archive = tar::Builder::new(Vec::new());
        for wheel in wheels {
            let content = wheel.build();
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, wheel.filename(), content.as_slice()).unwrap();
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let volume = Self(format!("ade-test-wheels-{}-{number}", std::process::id()));
        Docker::connect().create_volume(&volume.0, &image_id(), archive.into_inner().unwrap());
        volume
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        Docker::connect().remove_volume(&self.0);
    }
}

#[test]
fn a_wheelhouse_is_asked_before_the_index_and_the_index_has_the_rest() {
    for tool in TOOLS {
        let index = index();
        let house = wheelhouse(&[Wheel::new("alpha", "1.0")]);
        let site = Site::of(&index).with("ADE_INSTALLER", tool).with("ADE_WHEELHOUSE", shown(house.path()));
        let run = site.install(&asking("alpha", "import alpha; say('version', alpha.VERSION)"));
        run.assert_succeeded();
        assert_eq!((run.finding("version"), &block(&run)["source"]), ("1.0", &"wheelhouse".into()), "{tool}");
        assert_eq!(index.asked(), Vec::<String>::new(), "{tool}");
        // What the wheelhouse cannot satisfy alone is resolved with both.
        let run = site.install(&asking("alpha\nbeta", IMPORTS));
        run.assert_succeeded();
        assert_eq!(block(&run)["source"], "index", "{tool}");
        assert_eq!(run.finding("versions").split(' ').next_back(), Some("2.1"), "{tool}");
    }
}

#[test]
fn what_a_package_brings_is_compiled_but_its_tests_and_what_no_compiler_takes() {
    let alpha = Wheel::empty("alpha", "1.0")
        .file("alpha/__init__.py", "from . import good\n")
        .file("alpha/good.py", "VALUE = 1\n")
        .file("alpha/python2.py", "print 'Python 2'\n")
        .file("alpha/nul.py", "a\0b")
        .file("alpha/deep.py", "-".repeat(200_000) + "1")
        .file("alpha/huge.py", format!("a = [{}]", "b,\n".repeat(8_000_000)))
        .file("alpha/tests/__init__.py", "VALUE = 2\n");
    let look = "import alpha, alpha.tests, pathlib
say('values', [alpha.good.VALUE, alpha.tests.VALUE])
say('compiled', sorted(str(path.relative_to('/deps/site')) for path in pathlib.Path('/deps/site').rglob('*.pyc')))
import importlib._bootstrap_external as loader
read = pathlib.Path(alpha.good.__cached__).read_bytes()
status = os.stat(alpha.good.__file__)
loader._validate_timestamp_pyc(read, int(status.st_mtime), status.st_size, 'alpha.good', {})
try:
    import alpha.python2
except SyntaxError as error:
    say('refused', error.filename)";
    for tool in TOOLS {
        let index = Index::start().with(std::slice::from_ref(&alpha));
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let run = site.install(&asking("alpha", look));
        run.assert_succeeded();
        assert_eq!(run.finding("values"), "[1, 2]", "{tool}");
        let compiled = ["__init__", "good"].map(|name| format!("'alpha/__pycache__/{name}.cpython-311.pyc'"));
        assert_eq!(run.finding("compiled"), format!("[{}]", compiled.join(", ")), "{tool}");
        assert_eq!(run.finding("refused"), "/deps/site/alpha/python2.py", "{tool}");
        assert!(run.text("install.log").contains("compiled 2 modules"), "{tool}: {}", run.text("install.log"));
    }
}

#[test]
fn the_real_index_gives_small_packages_to_both_installers() {
    for tool in TOOLS {
        let site = Site::real().with("ADE_INSTALLER", tool);
        let run = site.install(&asking("six==1.16.0\nidna", "import six, idna; say('six', six.__version__)"));
        run.assert_succeeded();
        assert_eq!((run.finding("six"), block(&run)["packages"].as_array().unwrap().len()), ("1.16.0", 2), "{tool}");
        for connection in run.events_named("egress.connect") {
            let host = connection["host"].as_str().unwrap();
            assert!(["pypi.org", "files.pythonhosted.org"].contains(&host), "{host}");
        }
    }
}

#[test]
fn a46_pandas_of_the_real_index_works_in_a_transform() {
    let transform = "import pandas\ndef transform(values, **_):\n    assert pandas.__file__.startswith('/deps/')\n    return {'values': list(pandas.Series(values).str.upper())}\n";
    let package = crate::support::Package::new().column("name", transform).file("requirements.txt", "pandas>=2,<3\n");
    let run = Site::real().install(&package);
    run.assert_succeeded();
    assert!(packages(block(&run)).iter().any(|(name, _)| name == "numpy"));
}
