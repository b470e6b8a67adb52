//! Attack 46, the opposite of one: honest code keeps working under the profile.

use crate::support::{Docker, Package, Run, Running, Upload, World, run};
use std::io::Read;
use std::process::Command;

fn honest(body: &str) -> Run {
    let run = run(&Package::attacking(body), &[Upload::names()], &["--memory-mb", "512", "--timeout-ms", "120000"]);
    run.assert_succeeded();
    run
}

#[test]
fn a46_threads_subprocesses_and_multiprocessing_work() {
    let package = Package::attacking(
        r#"
        import concurrent.futures, multiprocessing, subprocess, threading
        from multiprocessing import shared_memory
        from hooks import work
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            say('threads', sum(pool.map(lambda n: n * n, range(100))))
        say('subprocess', subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True, check=True).stdout.strip())
        say('pipe', subprocess.run([sys.executable, '-c', 'import sys; print(sys.stdin.read().upper())'], input='abc', capture_output=True, text=True, check=True).stdout.strip())
        for method in ('fork', 'spawn', 'forkserver'):
            context = multiprocessing.get_context(method)
            with context.Pool(2) as pool:
                say(method, sum(pool.map(work.square, range(10))))
            queue = context.Queue()
            process = context.Process(target=work.put, args=(queue,))
            process.start(); say(method + ' queue', queue.get(timeout=20)); process.join()
        block = shared_memory.SharedMemory(create=True, size=100_000)
        block.buf[:3] = b'abc'
        other = shared_memory.SharedMemory(block.name); say('shared', bytes(other.buf[:3]).decode())
        other.close(); block.close(); block.unlink()
        lock = multiprocessing.Lock()
        with lock: say('lock', 'held')
        "#,
    )
    .file("hooks/work.py", "def square(n):\n    return n * n\n\n\ndef put(queue):\n    queue.put('through')\n");
    let run = run(&package, &[Upload::names()], &["--memory-mb", "512", "--timeout-ms", "120000"]);
    run.assert_succeeded();
    assert_eq!((run.finding("threads"), run.finding("subprocess"), run.finding("pipe")), ("328350", "42", "ABC"));
    for method in ["fork", "spawn", "forkserver"] {
        assert_eq!((run.finding(method), run.finding(&format!("{method} queue"))), ("285", "through"));
    }
    assert_eq!((run.finding("shared"), run.finding("lock")), ("abc", "held"));
}

#[test]
fn a46_the_standard_library_works() {
    let run = honest(
        r#"
        import asyncio, bz2, datetime, decimal, hashlib, lzma, mmap, sqlite3, ssl, tempfile, zoneinfo, zlib, uuid, secrets, locale, unicodedata, xml.etree.ElementTree
        say('zone', datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')).utcoffset())
        say('decimal', decimal.Decimal('0.1') + decimal.Decimal('0.2'))
        base = sqlite3.connect('/job/tmp/x.db'); base.execute('pragma journal_mode=wal'); base.execute('create table t (a)'); base.executemany('insert into t values (?)', [(n,) for n in range(1000)]); base.commit()
        say('sqlite', base.execute('select sum(a) from t').fetchone()[0])
        with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as folder:
            file.write(b'x' * 100_000); file.flush(); say('temporary', (os.path.dirname(file.name), os.path.dirname(folder)))
        say('ssl', bool(ssl.create_default_context()))
        say('compressed', zlib.decompress(zlib.compress(b'z')) + bz2.decompress(bz2.compress(b'b')) + lzma.decompress(lzma.compress(b'l')))
        say('hash', hashlib.sha256(b'').hexdigest()[:8])
        async def wait(): await asyncio.sleep(0.01); return 'awaited'
        say('asyncio', asyncio.run(wait()))
        say('user', os.path.expanduser('~'))
        say('random', len(secrets.token_bytes(8)) + len(uuid.uuid4().bytes))
        """and the runner's own reader"""
        import python_calamine
        say('calamine', python_calamine.__name__)
        "#,
    );
    for (name, value) in [
        ("zone", "2:00:00"),
        ("decimal", "0.3"),
        ("sqlite", "499500"),
        ("temporary", "('/job/tmp', '/job/tmp')"),
        ("ssl", "True"),
        ("compressed", "b'zbl'"),
        ("hash", "e3b0c442"),
        ("asyncio", "awaited"),
        ("user", "/job/tmp"),
        ("random", "24"),
        ("calamine", "python_calamine"),
    ] {
        assert_eq!(run.finding(name), value, "{name}");
    }
}

#[test]
fn a46_vendored_python_is_imported_and_a_vendored_native_library_says_why_not() {
    let package = Package::attacking(
        r#"
        import helper
        say('pure', helper.answer())
        try:
            import native
        except ImportError as fault:
            say('native', str(fault).replace(': ', ' '))
        "#,
    )
    .file("vendor/helper.py", "def answer():\n    return 42\n")
    .file("vendor/native.so", native_library());
    let run = run(&package, &[Upload::names()], &[]);
    run.assert_succeeded();
    assert_eq!(run.finding("pure"), "42");
    let said = run.finding("native");
    assert!(said.contains("native.so") && said.contains("failed to map segment"), "{said}");
}

/// A real shared library of this machine: it is refused for where it lies, not for what it is.
fn native_library() -> Vec<u8> {
    [
        "/lib/x86_64-linux-gnu/libz.so.1", "/usr/lib/x86_64-linux-gnu/libz.so.1", "/lib/aarch64-linux-gnu/libz.so.1",
        "/lib64/libz.so.1", "/usr/lib/libz.so.1",
    ]
    .iter()
    .find_map(|path| std::fs::read(path).ok())
    .expect("a shared library to try, such as libz.so.1")
}

#[test]
fn a46_numpy_and_pandas_work_under_the_profile() {
    let docker = Docker::connect();
    let first = run(&Package::new(), &[Upload::names()], &[]);
    let artifact = first.assert_succeeded().artifact.as_ref().unwrap();
    let base = artifact["runtime"]["image_digest"].as_str().unwrap();
    let python = artifact["runtime"]["python"].as_str().unwrap();
    // Kept between runs of the suite: `docker rmi` it when the space is wanted.
    let tag = &base.trim_start_matches("sha256:")[..12];
    let image = format!("ade-test-pandas:{tag}");
    if docker.image_id(&image).is_none() {
        docker.extend_image(base, wheels(python), "/opt/ade/lib", "ade-test-pandas", tag);
    }
    let package = Package::attacking(
        r#"
        import numpy, pandas
        matrix = numpy.random.default_rng(0).random((200, 200))
        say('solved', bool(numpy.allclose(matrix @ numpy.linalg.inv(matrix), numpy.eye(200))))
        frame = pandas.DataFrame({'team': ['a', 'b'] * 5000, 'value': range(10_000)})
        say('grouped', frame.groupby('team').value.sum().to_dict())
        frame.to_csv('/job/tmp/x.csv', index=False)
        say('csv', len(pandas.read_csv('/job/tmp/x.csv')))
        say('dates', str(pandas.to_datetime(['2024-02-29']).tz_localize('Europe/Berlin')[0]))
        "#,
    );
    let world = World::new(&package, &[Upload::names()]);
    let run = Running::start(world, &["--memory-mb", "1024", "--timeout-ms", "180000"], |command| {
        command.env("ADE_IMAGE", &image);
    })
    .wait();
    run.assert_succeeded();
    assert_eq!((run.finding("solved"), run.finding("csv")), ("True", "10000"));
    assert_eq!(run.finding("grouped"), "{'a': 24995000, 'b': 25000000}");
}

/// numpy and pandas with what they need, unpacked, as a tar archive: wheels from the package index by the host's `pip`.
fn wheels(python: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let version = python.split('.').take(2).collect::<Vec<_>>().join(".");
    let machine = std::env::consts::ARCH;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", &version, "--dest"])
        .arg(folder.path());
    for platform in ["manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28"] {
        pip.args(["--platform", &format!("{platform}_{machine}")]);
    }
    let output = pip.args(["numpy", "pandas"]).output().expect("python3 with pip is needed to fetch numpy and pandas");
    assert!(
        output.status.success(),
        "numpy and pandas could not be fetched from the package index; this test needs it reachable by `pip download`: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut tar = tar::Builder::new(Vec::new());
    for wheel in std::fs::read_dir(folder.path()).unwrap() {
        let mut zip = zip::ZipArchive::new(std::fs::File::open(wheel.unwrap().path()).unwrap()).unwrap();
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).unwrap();
            let name = entry.name().unwrap().into_owned();
            if entry.is_file() && !name.contains("/tests/") {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, name, content.as_slice()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}
