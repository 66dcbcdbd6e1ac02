//! Pictures fetched from URLs, where that is switched on: from public addresses alone, whatever the name says, wherever a
//! redirect leads. Every connection goes to an address that was checked: the name is resolved once, here.

use crate::address::is_public;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// Redirects that are followed.
const REDIRECTS: u32 = 3;

/// Turns a host's name into addresses.
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a host.
    ///
    /// # Errors
    /// When it has none, or they cannot be asked for.
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Lookup for System {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// Fetches pictures.
#[derive(Clone)]
pub struct Fetcher {
    agent: Agent,
    most_bytes: u64,
}

/// A picture that was not fetched.
#[derive(Debug, PartialEq, Eq)]
pub enum NotFetched {
    /// Its host, or that of a redirect, is not public.
    NotPublic(String),
    /// It is larger than a picture may be.
    TooLarge,
    /// Anything else.
    Failed(String),
}

impl Fetcher {
    /// A fetcher that takes so many bytes in so much time.
    #[must_use]
    pub fn new(lookup: Arc<dyn Lookup>, most_bytes: usize, time: Duration) -> Self {
        Self::with(Checked { lookup, allowed: is_public }, most_bytes, time)
    }

    fn with(resolver: Checked, most_bytes: usize, time: Duration) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::WebPki).build();
        let config = Agent::config_builder()
            .proxy(None) // a proxy would resolve names by itself
            .tls_config(tls)
            .max_redirects(REDIRECTS)
            .timeout_global(Some(time))
            .max_idle_connections(0)
            .user_agent(concat!("lare/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        Self { agent, most_bytes: most_bytes as u64 }
    }

    /// Fetches a picture; blocks.
    ///
    /// # Errors
    /// [`NotFetched`].
    pub fn get(&self, url: &str) -> Result<Vec<u8>, NotFetched> {
        let fetch = || self.agent.get(url).call()?.body_mut().with_config().limit(self.most_bytes).read_to_vec();
        fetch().map_err(|error| match error {
            Error::BodyExceedsLimit(_) => NotFetched::TooLarge,
            Error::Other(inner) => match inner.downcast::<Inside>() {
                Ok(inside) => NotFetched::NotPublic(inside.0),
                Err(other) => NotFetched::Failed(other.to_string()),
            },
            other => NotFetched::Failed(other.to_string()),
        })
    }
}

/// A host that has an address which is not public.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` has no public address")]
struct Inside(String);

/// Resolves names to addresses that are allowed, or not at all.
struct Checked {
    lookup: Arc<dyn Lookup>,
    allowed: fn(IpAddr) -> bool,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checked")
    }
}

impl Resolver for Checked {
    /// One address that is not allowed refuses the host: which of several is connected to is not ours to choose.
    fn resolve(&self, uri: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match bare.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.lookup.addresses(bare, port).map_err(|_| Error::HostNotFound)?,
        };
        if addresses.is_empty() {
            return Err(Error::HostNotFound);
        }
        if !addresses.iter().all(|address| (self.allowed)(address.ip())) {
            return Err(Error::Other(Box::new(Inside(host.to_owned()))));
        }
        let mut resolved = self.empty();
        let room = 16; // of ureq's list
        addresses.into_iter().take(room).for_each(|address| resolved.push(address));
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Names that lead where the test says.
    struct Names(Vec<(&'static str, Vec<IpAddr>)>);

    impl Lookup for Names {
        fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            let found = self.0.iter().find(|(name, _)| *name == host);
            let (_, addresses) = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Answers every request at 127.0.0.2 with this.
    fn serving(answer: impl Fn(u16) -> String + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), [0; 2048]);
                let _ = stream.read(&mut head);
                let _ = stream.write_all(answer(port).as_bytes());
            }
        });
        port
    }

    /// 127.0.0.2 stands for the public internet: no test reaches the real one.
    fn fetcher(names: Vec<(&'static str, Vec<IpAddr>)>) -> Fetcher {
        let allowed = |address: IpAddr| address == IpAddr::from([127, 0, 0, 2]);
        Fetcher::with(Checked { lookup: Arc::new(Names(names)), allowed }, 1000, Duration::from_secs(5))
    }

    #[test]
    fn names_that_lead_inside_are_refused_before_a_connection_is_made() {
        let names = vec![
            ("public.test", vec![ip("8.8.8.8"), ip("10.0.0.1")]),
            ("meta.test", vec![ip("169.254.169.254")]),
            ("home.test", vec![ip("::1")]),
        ];
        let fetcher = Fetcher::new(Arc::new(Names(names)), 1000, Duration::from_secs(5));
        for host in ["public.test", "meta.test", "home.test", "127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "10.0.0.1:9"] {
            let refused = fetcher.get(&format!("http://{host}/a.png")).unwrap_err();
            assert!(matches!(refused, NotFetched::NotPublic(_)), "{host}: {refused:?}");
        }
        let unknown = fetcher.get("http://unknown.test/a.png").unwrap_err();
        assert!(matches!(unknown, NotFetched::Failed(_)), "{unknown:?}");
    }

    #[test]
    fn a_redirect_may_not_lead_inside() {
        let secret = TcpListener::bind("127.0.0.1:0").unwrap();
        secret.set_nonblocking(true).unwrap();
        let inside = secret.local_addr().unwrap().port();
        let port = serving(move |_| {
            format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{inside}/secret\r\ncontent-length: 0\r\n\r\n")
        });
        let refused = fetcher(vec![("public.test", vec![ip("127.0.0.2")])])
            .get(&format!("http://public.test:{port}/a.png"))
            .unwrap_err();
        assert!(matches!(refused, NotFetched::NotPublic(_)), "{refused:?}");
        assert!(secret.accept().is_err(), "something connected to the address inside");
    }

    #[test]
    fn redirects_end() {
        let port = serving(|port| {
            format!("HTTP/1.1 302 Found\r\nlocation: http://public.test:{port}/\r\ncontent-length: 0\r\n\r\n")
        });
        let names = vec![("public.test", vec![ip("127.0.0.2")])];
        let failed = fetcher(names).get(&format!("http://public.test:{port}/")).unwrap_err();
        assert!(matches!(failed, NotFetched::Failed(_)), "{failed:?}");
    }

    #[test]
    fn what_is_public_is_fetched_and_no_more_than_may_be() {
        let names = || vec![("public.test", vec![ip("127.0.0.2")])];
        let answer =
            |bytes: usize| move |_| format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
        let get = |port| fetcher(names()).get(&format!("http://public.test:{port}/"));
        assert_eq!(get(serving(answer(10))), Ok(b"x".repeat(10)));
        assert_eq!(get(serving(answer(1001))), Err(NotFetched::TooLarge));
        let missing = get(serving(|_| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into()));
        assert!(matches!(missing, Err(NotFetched::Failed(_))));
    }
}
