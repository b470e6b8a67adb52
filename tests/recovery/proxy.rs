//! A wire to Docker or PostgreSQL that can be cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How the wire is.
#[derive(Default)]
struct State {
    /// Connections are refused or closed.
    cut: AtomicBool,
    /// Nothing comes through, and nobody is told.
    silent: AtomicBool,
    ends: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

/// Hands connections on to the real thing.
pub struct Proxy {
    state: Arc<State>,
    /// Where it listens: `unix:///…` or `127.0.0.1:…`.
    pub address: String,
}

impl Proxy {
    /// In front of the Docker Engine, listening at a socket in `folder`.
    pub fn to_docker(folder: &Path) -> Self {
        let real = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let real = real.unwrap_or_else(|| "unix:///var/run/docker.sock".into());
        let real: PathBuf = real.strip_prefix("unix://").expect("this test needs Docker on a Unix socket").into();
        let path = folder.join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.cut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&real) else { continue };
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                shared.ends.lock().unwrap().push(Box::new(move || {
                    ends.0.shutdown(Shutdown::Both).ok();
                    ends.1.shutdown(Shutdown::Both).ok();
                }));
                join(&shared, (client.try_clone().unwrap(), client), (server.try_clone().unwrap(), server));
            }
        });
        Self { state, address: format!("unix://{}", path.display()) }
    }

    /// In front of a TCP server.
    pub fn to(real: &str) -> Self {
        let real = real.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.cut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&real) else { continue };
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                shared.ends.lock().unwrap().push(Box::new(move || {
                    ends.0.shutdown(Shutdown::Both).ok();
                    ends.1.shutdown(Shutdown::Both).ok();
                }));
                join(&shared, (client.try_clone().unwrap(), client), (server.try_clone().unwrap(), server));
            }
        });
        Self { state, address }
    }

    /// Closes all connections; new ones are closed at once.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
        for end in self.state.ends.lock().unwrap().drain(..) {
            end();
        }
    }

    /// Lets nothing through any more, and tells nobody: a machine that is gone, or a firewall.
    pub fn silence(&self) {
        self.state.silent.store(true, Ordering::Relaxed);
    }

    /// Mends the wire. What was silenced stays lost, with its connections.
    pub fn mend(&self) {
        if self.state.silent.swap(false, Ordering::Relaxed) {
            for end in self.state.ends.lock().unwrap().drain(..) {
                end();
            }
        }
        self.state.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

trait End: Read + Write + Send + 'static {
    fn close_writing(&self);
}

impl End for UnixStream {
    fn close_writing(&self) {
        self.shutdown(Shutdown::Write).ok();
    }
}

impl End for TcpStream {
    fn close_writing(&self) {
        self.shutdown(Shutdown::Write).ok();
    }
}

fn join<T: End>(state: &Arc<State>, client: (T, T), server: (T, T)) {
    for (mut from, mut to) in [(client.0, server.1), (server.0, client.1)] {
        let state = Arc::clone(state);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match from.read(&mut buffer) {
                    Ok(read @ 1..) => {
                        if !state.silent.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).is_err() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
            to.close_writing();
        });
    }
}
