//! Attack 51: a job without network has none.

use crate::support::{Package, Upload, run};

#[test]
fn a51_without_network_only_loopback_exists_and_every_way_out_fails() {
    let run = run(
        &Package::attacking(
            r#"
            say('interfaces', sorted(line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line))
            say('routes', len(open('/proc/net/route').readlines()) - 1)
            say('routes6', [line.split()[-1] for line in open('/proc/net/ipv6_route') if line.split()[-1] != 'lo'] if os.path.exists('/proc/net/ipv6_route') else [])
            def dial(family, kind, address, protocol=0):
                def action():
                    with socket.socket(family, kind, protocol) as end:
                        end.settimeout(2)
                        end.connect(address)
                        end.send(b'x')
                        if kind == socket.SOCK_DGRAM: end.recv(1)
                return action
            four, six = socket.AF_INET, socket.AF_INET6
            for name, action in {
                'tcp': dial(four, socket.SOCK_STREAM, ('1.1.1.1', 443)),
                'udp': dial(four, socket.SOCK_DGRAM, ('8.8.8.8', 53)),
                'tcp6': dial(six, socket.SOCK_STREAM, ('2606:4700:4700::1111', 443)),
                'udp6': dial(six, socket.SOCK_DGRAM, ('2001:4860:4860::8888', 53)),
                'metadata': dial(four, socket.SOCK_STREAM, ('169.254.169.254', 80)),
                'gateway': dial(four, socket.SOCK_STREAM, ('172.17.0.1', 22)),
                'link local': dial(six, socket.SOCK_STREAM, ('fe80::1', 80)),
                'broadcast': dial(four, socket.SOCK_DGRAM, ('255.255.255.255', 9)),
                'multicast': dial(four, socket.SOCK_DGRAM, ('224.0.0.251', 5353)),
                'mapped': dial(six, socket.SOCK_STREAM, ('::ffff:1.1.1.1', 443)),
                'icmp': lambda: socket.socket(four, socket.SOCK_RAW, socket.IPPROTO_ICMP),
                'ping': dial(four, socket.SOCK_DGRAM, ('8.8.8.8', 0), socket.IPPROTO_ICMP),
                'raw': lambda: socket.socket(four, socket.SOCK_RAW, 255),
                'dns': lambda: socket.getaddrinfo('example.com', 443),
                'reverse dns': lambda: socket.gethostbyaddr('1.1.1.1'),
                'host': lambda: socket.getaddrinfo('host.docker.internal', 80),
            }.items():
                attempt(name, action)
            import urllib.request
            attempt('http', lambda: urllib.request.urlopen('http://93.184.215.14/', timeout=2))
            """loopback is the job's own"""
            server = socket.create_server(('127.0.0.1', 0))
            attempt('own loopback', lambda: socket.create_connection(server.getsockname(), 1).close())
            "#,
        ),
        &[Upload::names()],
        &["--timeout-ms", "60000"],
    );
    run.assert_succeeded();
    assert_eq!((run.finding("interfaces"), run.finding("routes"), run.finding("routes6")), ("['lo']", "0", "[]"));
    assert_eq!(run.finding("own loopback"), "allowed");
    let mut tried = 0;
    for (name, value) in run.findings() {
        if !matches!(name, "interfaces" | "routes" | "routes6" | "own loopback") {
            assert!(
                matches!(
                    value,
                    "ENETUNREACH"
                        | "EPERM"
                        | "EACCES"
                        | "EADDRNOTAVAIL"
                        | "EAFNOSUPPORT"
                        | "EINVAL"
                        | "ENOENT"
                        | "gaierror"
                        | "herror"
                        | "HTTPError"
                        | "EPROTONOSUPPORT"
                ),
                "{name}: {value}"
            );
            tried += 1;
        }
    }
    assert_eq!(tried, 17);
    assert_eq!(run.events_named("network.decision")[0]["run"], false);
}
