//! Network for jobs: clients that work where they are allowed and say why where not, limits, and connections that misbehave.

use crate::support::web::Web;
use crate::support::within::{BOUNDS, egress, run_within};
use crate::support::{Package, Run, Running, Upload, World, ade, lateness, run};
use ade::egress::Bounds;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn networked(body: &str, args: &[&str]) -> Run {
    let run = run(&Package::attacking(body).asking_for_network(), &[Upload::names()], args);
    run.assert_succeeded();
    run
}

/// requests and httpx with what they need, pure Python, out of the package index; `None` where there is none.
fn with_clients(mut package: Package) -> Option<Package> {
    let folder = tempfile::tempdir().unwrap();
    let wheels = folder.path().join("wheels");
    let downloaded = Command::new("python3")
        .args([
            "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--platform=any", "--implementation=py",
            "--abi=none",
        ])
        .args(["--python-version=3.11", "--dest"])
        .arg(&wheels)
        .args(["requests", "httpx"])
        .status();
    if !downloaded.is_ok_and(|status| status.success()) {
        eprintln!("skipped: pip cannot download requests and httpx here");
        return None;
    }
    for wheel in std::fs::read_dir(&wheels).unwrap() {
        let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel.unwrap().path()).unwrap()).unwrap();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).unwrap();
            let name = file.name().unwrap().into_owned();
            if name.ends_with(".py") || name.ends_with(".pem") {
                let mut content = Vec::new();
                file.read_to_end(&mut content).unwrap();
                package = package.file(&format!("vendor/{name}"), content);
            }
        }
    }
    Some(package)
}

#[test]
fn clients_work_where_they_are_allowed_and_say_why_where_not() {
    let (plain, tls) = (Web::http("127.0.0.90"), Web::https("127.0.0.90", &[]));
    let body = format!(
        r#"
        import urllib.request, requests, httpx
        def tried(name, action):
            began = time.monotonic()
            try: say(name, action())
            except Exception as error: say(name, f'{{type(error).__name__}} {{error}}')
            took = time.monotonic() - began
            if took > 2: say('slow ' + name, took)
        for scheme, url in {{'http': {:?}, 'https': {:?}}}.items():
            tried('urllib ' + scheme, lambda: urllib.request.urlopen(url, timeout=10).read().decode())
            tried('requests ' + scheme, lambda: (lambda answer: f'{{answer.status_code}} {{answer.reason}} {{answer.text}}')(requests.get(url, timeout=10)))
            tried('httpx ' + scheme, lambda: (lambda answer: f'{{answer.status_code}} {{answer.reason_phrase}} {{answer.text}}')(httpx.get(url, timeout=10)))
            tried('post ' + scheme, lambda: requests.post(url.replace('/hello', '/echo'), data=b'x' * 300_000, timeout=10).content == b'x' * 300_000)
        "#,
        plain.url("/hello"),
        tls.url("/hello"),
    );
    let Some(package) = with_clients(Package::attacking(&body)) else { return };
    let start = |package: Package, args: &[&str]| {
        let world = World::new(&package, &[Upload::names()]);
        let bundle = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(bundle.path(), &tls.certificate).unwrap();
        let run = Running::start(world, args, |command| {
            command.env("ADE_CA_BUNDLE", bundle.path());
        })
        .wait();
        run.assert_succeeded();
        assert!(!run.findings().keys().any(|name| name.starts_with("slow")), "{:?}", run.findings());
        run
    };

    let allowed = start(package.clone().asking_for_network(), &["--egress-allow-cidrs", "127.0.0.90/32"]);
    for scheme in ["http", "https"] {
        assert_eq!(allowed.finding(&format!("urllib {scheme}")), "hello");
        assert_eq!(allowed.finding(&format!("requests {scheme}")), "200 OK hello");
        assert_eq!(allowed.finding(&format!("httpx {scheme}")), "200 OK hello");
        assert_eq!(allowed.finding(&format!("post {scheme}")), "True");
    }
    let connected = allowed.events_named("egress.connect");
    assert_eq!(connected.len(), 8);
    for detail in &connected {
        assert_eq!((&detail["host"], &detail["address"]), (&"127.0.0.90".into(), &"127.0.0.90".into()));
        assert_eq!(detail["purpose"], "run");
        // What a TLS client says last may meet a server that has closed already.
        assert!(
            detail["ended"] == "done" || detail["port"] == tls.address.port() && detail["ended"] == "broken",
            "{detail}"
        );
        assert_eq!(detail["rule"], "ADE_EGRESS_ALLOW_CIDRS 127.0.0.90/32");
        assert!(detail["bytes_sent"].as_u64().unwrap() > 50 && detail["bytes_received"].as_u64().unwrap() > 50);
    }
    let posted = connected.iter().filter(|detail| detail["bytes_sent"].as_u64().unwrap() > 300_000).count();
    assert_eq!(posted, 2);

    let denied = start(package.clone(), &[]);
    let listed = start(
        package.asking_for_network(),
        &["--egress-allow-cidrs", "127.0.0.90/32", "--allow-host", "api.example.com"],
    );
    for scheme in ["http", "https"] {
        for client in ["urllib", "requests", "httpx", "post"] {
            let name = format!("{client} {scheme}");
            if name == "post http" {
                continue; // the answer is all that this client looks at
            }
            let said = denied.finding(&name);
            assert!(
                said.contains("403 ADE: the manifest does not ask for network")
                    || said.contains("HTTP Error 403: ADE: the manifest does not ask"),
                "{name}: {said}"
            );
            assert!(said.contains("engine.defaults.runtime_network_access"), "{name}: {said}");
            let said = listed.finding(&name);
            assert!(
                said.contains("127.0.0.90") && said.contains("not on the allow-list of this job"),
                "{name}: {said}"
            );
            assert!(said.contains("--allow-host"), "{name}: {said}");
        }
    }
    assert_eq!(denied.events_named("egress.denied").len(), 8);
    assert!(denied.events_named("egress.denied").iter().all(|detail| detail["code"] == "network_denied"));
    assert!(listed.events_named("egress.denied").iter().all(|detail| detail["code"] == "host_not_allowed"));
}

#[test]
fn malformed_huge_and_slow_heads_are_answered_and_cost_nothing_else() {
    let web = Web::http("127.0.0.91");
    let run = networked(
        &format!(
            r#"
            import threading
            def slow():
                with socket.create_connection(('127.0.0.1', 3128), 20) as end:
                    end.sendall(b'GET http://a.b/ HTTP/1.1\r\n')
                    try:
                        for _ in range(40): end.sendall(b'A: b\r\n'); time.sleep(0.5)
                    except OSError: pass
                    try: say('slow', verdict(end.recv(65536).decode()))
                    except OSError: say('slow', 'reset')
            def silent():
                with socket.create_connection(('127.0.0.1', 3128), 20) as end:
                    say('silent', verdict(end.recv(65536).decode()))
            threads = [threading.Thread(target=slow), threading.Thread(target=silent)]
            for thread in threads: thread.start()
            say('binary', verdict(ask(bytes(range(256)) * 40)))
            say('tls', verdict(ask(b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(500))))
            say('huge field', verdict(ask('GET http://a.b/ HTTP/1.1\r\nA: ' + 'x' * 1_000_000)))
            say('many fields', verdict(ask('GET http://a.b/ HTTP/1.1\r\n' + 'A: b\r\n' * 5000 + '\r\n')))
            say('endless line', verdict(ask('G' * 200_000)))
            say('origin', verdict(ask('GET / HTTP/1.1\r\n\r\n')))
            say('http2', verdict(ask('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')))
            for _ in range(50): socket.create_connection(('127.0.0.1', 3128)).close()
            import struct
            for _ in range(50):
                end = socket.create_connection(('127.0.0.1', 3128))
                end.send(b'CONNECT a.b:1 HTTP/1.1\r\n')
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                end.close()
            for thread in threads: thread.join()
            say('after', verdict(ask('GET {} HTTP/1.1\r\n\r\n')))
            "#,
            web.url("/hello")
        ),
        &["--egress-allow-cidrs", "127.0.0.91/32"],
    );
    for name in ["binary", "tls", "origin", "http2"] {
        assert_eq!(run.finding(name), "request_invalid", "{name}");
    }
    for name in ["huge field", "many fields"] {
        assert!(matches!(run.finding(name), "head_too_large" | ""), "{name}: {}", run.finding(name));
    }
    assert!(
        matches!(run.finding("endless line"), "head_too_large" | "request_invalid" | ""),
        "{}",
        run.finding("endless line")
    );
    assert_eq!((run.finding("slow"), run.finding("silent")), ("head_timeout", "head_timeout"));
    assert_eq!(run.finding("after"), "HTTP/1.1 200 OK");
    let denied = run.events_named("egress.denied");
    assert_eq!((denied.len(), run.events_named("egress.connect").len()), (109, 1));
    assert_eq!(denied.iter().filter(|detail| detail["code"] == "abandoned").count(), 100);
    assert!(run.engine_peak_kib < 60 * 1024, "{} KiB", run.engine_peak_kib);
}

#[test]
fn a_thousand_connections_at_once_are_each_answered_and_recorded() {
    let web = Web::http("127.0.0.92");
    let run = networked(
        &format!(
            r#"
            ends = []
            for number in range(950):
                end = socket.create_connection(('127.0.0.1', 3128), 20)
                end.sendall(b'GET {} HTTP/1.1\r\n\r\n')
                ends.append(end)
            answers = dict()
            waiting = []
            for end in ends:
                end.settimeout(3 if len(waiting) < 3 else 0.01)
                try: answer = verdict(end.recv(65536).decode())
                except TimeoutError: answer = 'waits'; waiting.append(end)
                answers[answer] = answers.get(answer, 0) + 1
            for name, count in answers.items(): say(name, count)
            for end in ends: end.close()
            time.sleep(0.5)
            say('after', verdict(ask('GET {} HTTP/1.1\r\n\r\n')))
            "#,
            web.url("/hang"),
            web.url("/hello")
        ),
        &["--egress-allow-cidrs", "127.0.0.92/32", "--memory-mb", "256"],
    );
    assert_eq!((run.finding("waits"), run.finding("connections_at_once")), ("64", "886"));
    assert_eq!(run.finding("after"), "HTTP/1.1 200 OK");
    assert_eq!((run.events_named("egress.connect").len(), run.events_named("egress.denied").len()), (65, 886));
    assert!(run.engine_peak_kib < 80 * 1024, "{} KiB", run.engine_peak_kib);
}

#[test]
fn half_closed_connections_still_carry_the_other_half() {
    let (plain, tunnel) = (Web::http("127.0.0.93"), Web::http("127.0.0.93"));
    let run = networked(
        &format!(
            r#"
            def whole(request, then=b''):
                with socket.create_connection(('127.0.0.1', 3128), 10) as end:
                    end.sendall(request)
                    answer = b''
                    if then:
                        answer = end.recv(1000)
                        assert b'200 Connection established' in answer, answer
                        end.sendall(then)
                        answer = b''
                    end.shutdown(socket.SHUT_WR)
                    while chunk := end.recv(65536): answer += chunk
                    return answer.split(b'\r\n\r\n', 1)
            say('chunked', whole(b'POST http://{plain}/hello HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n')[1].decode())
            say('tunnel', len(whole(b'CONNECT {tunnel} HTTP/1.1\r\n\r\n', b'GET /bytes?3000000 HTTP/1.1\r\n\r\n')[1]))
            body = os.urandom(2_000_000)
            def echo():
                import threading
                with socket.create_connection(('127.0.0.1', 3128), 10) as end:
                    end.sendall(b'CONNECT {tunnel} HTTP/1.1\r\n\r\n'); end.recv(1000)
                    head = b'POST /echo HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n'
                    threading.Thread(target=lambda: (end.sendall(head + body), end.shutdown(socket.SHUT_WR))).start()
                    answer = b''
                    while chunk := end.recv(65536): answer += chunk
                    return answer.split(b'\r\n\r\n', 1)[1] == body
            say('echo', echo())
            "#,
            plain = plain.address,
            tunnel = tunnel.address,
        ),
        &["--egress-allow-cidrs", "127.0.0.93/32"],
    );
    assert_eq!((run.finding("chunked"), run.finding("tunnel"), run.finding("echo")), ("hello", "3000000", "True"));
}

#[test]
fn a_connection_that_is_never_read_delays_no_event_and_no_other_connection() {
    let web = Web::http("127.0.0.94");
    let run = networked(
        &format!(
            r#"
            ends = []
            for _ in range(10):
                end = socket.create_connection(('127.0.0.1', 3128), 10)
                end.sendall(b'GET {} HTTP/1.1\r\n\r\n')
                ends.append(end)
            time.sleep(1)
            for number in range(100):
                say('at', repr(time.time()))
                time.sleep(0.01)
            began = time.monotonic()
            for _ in range(20): assert 'hello' in ask('GET {} HTTP/1.1\r\n\r\n')
            say('others', int((time.monotonic() - began) * 1000))
            with open('/proc/1/statm') as file: say('supervisor', int(file.read().split()[1]) * 4)
            "#,
            web.url("/bytes?1000000000"),
            web.url("/hello"),
        ),
        &["--egress-allow-cidrs", "127.0.0.94/32"],
    );
    let late = lateness(&run.events);
    assert_eq!(late.len(), 100);
    assert!(late[98] < 250.0, "the slowest events came after {:?} ms", &late[90..]);
    assert!(run.finding("others").parse::<u64>().unwrap() < 4000, "{}", run.finding("others"));
    assert!(run.engine_peak_kib < 60 * 1024, "{} KiB", run.engine_peak_kib);
    // Those that were open when the scripts ended are recorded as well.
    let open =
        run.events_named("egress.connect").into_iter().filter(|detail| detail["bytes_received"].as_u64() > Some(1_000));
    assert_eq!(open.count(), 10);
}

#[test]
fn a_job_may_make_so_many_connections_and_transfer_so_many_bytes() {
    let web = Web::http("127.0.0.95");
    let get = |path: &str| format!("ask('GET {} HTTP/1.1\\r\\n\\r\\n')", web.url(path));
    let few = networked(
        &format!("for number in range(6): say(str(number), verdict({}))", get("/hello")),
        &["--egress-allow-cidrs", "127.0.0.95/32", "--egress-connections-in-all", "3"],
    );
    let found: Vec<&str> = few.findings().into_values().collect();
    assert_eq!(found[..3], ["HTTP/1.1 200 OK"; 3]);
    assert_eq!(found[3..], ["connections_in_all"; 3]);
    assert_eq!((few.events_named("egress.connect").len(), few.events_named("egress.denied").len()), (3, 1));

    let much = networked(
        &format!("say('much', len({}))\nsay('more', verdict({}))", get("/bytes?5000000"), get("/hello")),
        &["--egress-allow-cidrs", "127.0.0.95/32", "--egress-mb", "1"],
    );
    assert!(much.finding("much").parse::<u64>().unwrap() <= 1024 * 1024);
    assert_eq!(much.finding("more"), "bytes");
    assert_eq!(much.events_named("egress.connect")[0]["ended"], "bytes");

    let bounds = Bounds { idle: Duration::from_millis(400), ..BOUNDS };
    let idle = format!(
        "began = time.monotonic()\nsay('answer', repr({}))\nsay('took', time.monotonic() - began)",
        get("/hang")
    );
    let idle = run_within(&Package::attacking(&idle), &[], egress(bounds, &["127.0.0.95/32"]));
    assert_eq!(idle.finding("answer"), "''");
    assert!(idle.finding("took").parse::<f64>().unwrap() < 5.0);
    assert_eq!(idle.events_named("egress.connect")[0]["ended"], "idle");
}

#[test]
fn the_last_hook_has_network_too_when_a_process_of_its_own_runs_it() {
    let web = Web::http("127.0.0.96");
    let ask = format!("say('answer', verdict(ask('GET {} HTTP/1.1\\r\\n\\r\\n')))", web.url("/hello"));
    let package = Package::attacking(&format!(
        "{ask}\nend = socket.create_connection(('127.0.0.1', 3128))\ntime.sleep(0.3)\nos._exit(3)"
    ))
    .hook("on_job_end", &crate::support::function(&ask))
    .asking_for_network();
    let run = run(&package, &[Upload::names()], &["--egress-allow-cidrs", "127.0.0.96/32"]);
    run.assert_failed("script_error", &["exit code 3"]);
    let answers = run.log().into_iter().filter(|line| *line == "answer: HTTP/1.1 200 OK").count();
    assert_eq!((answers, run.events_named("egress.connect").len()), (2, 2), "{:?}", run.log());
    // What was open when the first process ended was closed with it.
    assert_eq!(run.events_named("egress.denied")[0]["code"], "abandoned");
}

/// A proxy that wants a password; gives where it listens, and the heads that it has seen.
fn upstream() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.97:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).ok()?;
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                seen.lock().unwrap().push(head.clone());
                if !head.contains("Proxy-Authorization: Basic dXNlcjpzM2NyM3Q=") {
                    return client.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n").ok();
                }
                let words: Vec<&str> = head.split(' ').collect();
                let authority = words[1].trim_start_matches("http://").split('/').next().unwrap();
                let mut server = TcpStream::connect(authority).ok()?;
                if words[0] == "CONNECT" {
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
                } else {
                    let path = words[1].trim_start_matches("http://").trim_start_matches(authority);
                    server.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).ok()?;
                }
                let (mut up, mut down) = (client.try_clone().ok()?, server.try_clone().ok()?);
                std::thread::spawn(move || std::io::copy(&mut up, &mut server));
                std::io::copy(&mut down, &mut client).ok()?;
                client.shutdown(std::net::Shutdown::Both).ok()
            });
        }
    });
    (address, heads)
}

#[test]
fn an_upstream_proxy_is_gone_through_and_its_password_told_nobody() {
    let (proxy, heads) = upstream();
    let web = Web::http("127.0.0.98");
    let target = web.address;
    let body = format!(
        r#"
        say('url', verdict(ask('GET http://{target}/hello HTTP/1.1\r\n\r\n')))
        end = socket.create_connection(('127.0.0.1', 3128), 5)
        end.sendall(b'CONNECT {target} HTTP/1.1\r\n\r\n'); end.recv(1000)
        end.sendall(b'GET /hello HTTP/1.1\r\n\r\n')
        say('tunnel', end.recv(1000).split(b'\r\n')[0].decode())
        say('private', verdict(ask('CONNECT 10.0.0.1:80 HTTP/1.1\r\n\r\n')))
        say('unknown', verdict(ask('CONNECT only-the-proxy-knows.invalid:80 HTTP/1.1\r\n\r\n')))
        "#
    );
    let allowed = ["--egress-allow-cidrs", "127.0.0.98/32", "--upstream-proxy"];
    let url = format!("http://user:s3cr3t@{proxy}");
    let run = networked(&body, &[&allowed[..], &[&url]].concat());
    assert_eq!((run.finding("url"), run.finding("tunnel")), ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"));
    assert_eq!((run.finding("private"), run.finding("unknown")), ("address_not_public", "upstream_proxy"));
    assert!(run.events_named("egress.connect").iter().all(|detail| detail["address"].is_null()));
    assert_eq!(heads.lock().unwrap().len(), 3, "the private address was not asked for");
    assert_untold(&run.out, "s3cr3t");
    let wrong = format!("http://user:other@{proxy}");
    let run = networked(&body, &[&allowed[..], &[&wrong]].concat());
    assert_eq!(run.finding("url"), "HTTP/1.1 407 Who are you", "a proxy in between answers for itself");
    assert!(
        run.events_named("egress.denied")
            .iter()
            .any(|detail| detail["reason"].as_str().unwrap().contains("407 Who are you"))
    );

    for args in [&["settings"][..], &["settings", "--json"], &["run", "--help"]] {
        let shown = ade().args(args).env("ADE_UPSTREAM_PROXY", &url).output().unwrap();
        assert!(shown.status.success());
        assert!(!String::from_utf8_lossy(&shown.stdout).contains("s3cr3t"), "{args:?}");
    }
    let refused =
        ade().args(["doctor", "--json"]).env("ADE_UPSTREAM_PROXY", "https://user:s3cr3t@proxy").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success() && said.contains("plain HTTP"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}

fn assert_untold(folder: &Path, secret: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        assert!(!text.windows(secret.len()).any(|window| window == secret.as_bytes()), "{} tells it", path.display());
    }
}
