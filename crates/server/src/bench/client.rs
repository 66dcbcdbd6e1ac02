//! The other end of the wire: asks, and times what comes.

use super::report::{Answer, Failed};
use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;
use tokio::net::TcpStream;

/// A server to put under load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    authority: String,
    address: SocketAddr,
}

/// What cannot be put under load.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no URL of a server.
    #[error(
        "`{url}` is not a server\n  expected  http://HOST:PORT\n  got       {url}\n\nhint: give the address that `lare serve` printed"
    )]
    Url {
        /// What was given.
        url: String,
    },
    /// It is another machine.
    #[error(
        "`{url}` is not this machine\n  expected  a loopback address\n  got       {address}\n\nhint: load on another machine is asked for with --anywhere"
    )]
    Elsewhere {
        /// What was given.
        url: String,
        /// Where it leads.
        address: SocketAddr,
    },
}

impl Target {
    /// Reads a URL; an address that is not loopback only where `anywhere` allows it.
    ///
    /// # Errors
    /// No URL, no such host, another machine.
    pub fn new(url: &str, anywhere: bool) -> Result<Self, TargetError> {
        let no_url = || TargetError::Url { url: url.to_owned() };
        let authority = url.strip_prefix("http://").ok_or_else(no_url)?.trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
            return Err(no_url());
        }
        let port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if port { authority.to_owned() } else { format!("{authority}:80") };
        let addresses: Vec<SocketAddr> = with_port.to_socket_addrs().map_err(|_| no_url())?.collect();
        let elsewhere = addresses.iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = elsewhere.filter(|_| !anywhere) {
            return Err(TargetError::Elsewhere { url: url.to_owned(), address: *address });
        }
        // IPv4 first: `localhost` is often both, and servers listen on 127.0.0.1.
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied();
        Ok(Self { authority: with_port, address: address.ok_or_else(no_url)? })
    }
}

/// An open connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// What came, and when.
pub struct Said {
    first_token: Option<Instant>,
    text_tokens: u64,
    latent_steps: u64,
}

impl Said {
    pub fn since(self, begun: Instant) -> Answer {
        let Self { first_token, text_tokens, latent_steps } = self;
        Answer { first_token: first_token.map(|at| at - begun), text_tokens, latent_steps }
    }
}

impl Connection {
    pub async fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move { drop(connection.await) }); // what went wrong shows in the request
        Ok(Self { sender })
    }

    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks, and reads the stream to its end.
    pub async fn ask(&mut self, target: &Target, key: Option<&str>, body: String) -> Result<Said, Failed> {
        let broken = |error: hyper::Error| Failed(format!("connection: {error}"));
        let mut request = Request::post("/v1/chat/completions")
            .header(header::HOST, &target.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| Failed(format!("request: {error}")))?;
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            drop(response.into_body().collect().await); // read, so that the connection can go on
            return Err(Failed(format!("status {}", status.as_u16())));
        }
        read(response.into_body()).await
    }
}

/// Reads events; an answer without its end is none.
async fn read(mut body: Incoming) -> Result<Said, Failed> {
    let mut said = Said { first_token: None, text_tokens: 0, latent_steps: 0 };
    let (mut lines, mut ended) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failed(format!("connection: {error}")))?;
        lines.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            ended |= event(&line, &mut said)?;
        }
    }
    if ended { Ok(said) } else { Err(Failed("cut off".into())) }
}

/// Takes one line in; true at the end.
fn event(line: &[u8], said: &mut Said) -> Result<bool, Failed> {
    let Some(data) = line.trim_ascii().strip_prefix(b"data: ") else {
        return Ok(false);
    };
    if data == b"[DONE]" {
        return Ok(true);
    }
    let chunk: Value = serde_json::from_slice(data).map_err(|_| Failed("no JSON in an event".into()))?;
    if let Some(code) = chunk["error"]["code"].as_str() {
        return Err(Failed(format!("error {code}")));
    }
    if chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|content| !content.is_empty()) {
        said.first_token.get_or_insert_with(Instant::now);
    }
    let usage = &chunk["usage"];
    if let Some(completion) = usage["completion_tokens"].as_u64() {
        said.latent_steps = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap_or(0);
        said.text_tokens = completion.saturating_sub(said.latent_steps);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_put_under_load_unless_asked() {
        for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://localhost:1", "http://[::1]:9"] {
            assert!(Target::new(url, false).is_ok(), "{url}");
        }
        assert!(matches!(Target::new("http://192.0.2.1:80", false), Err(TargetError::Elsewhere { .. })));
        assert!(Target::new("http://192.0.2.1", true).is_ok());
        for url in ["https://127.0.0.1:1", "127.0.0.1:1", "http://", "http://a@127.0.0.1", "http://127.0.0.1/v1"] {
            assert!(matches!(Target::new(url, true), Err(TargetError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn events_are_read_line_by_line() {
        let mut said = Said { first_token: None, text_tokens: 0, latent_steps: 0 };
        assert_eq!(event(b": still here\n", &mut said), Ok(false));
        assert_eq!(event(b"data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n", &mut said), Ok(false));
        assert!(said.first_token.is_none());
        assert_eq!(event(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n", &mut said), Ok(false));
        assert!(said.first_token.is_some());
        let usage = br#"data: {"choices":[],"usage":{"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":3}}}"#;
        assert_eq!(event(usage, &mut said), Ok(false));
        assert_eq!((said.text_tokens, said.latent_steps), (4, 3));
        assert_eq!(event(b"data: [DONE]\n", &mut said), Ok(true));
        assert_eq!(event(br#"data: {"error":{"code":"timeout"}}"#, &mut said), Err(Failed("error timeout".into())));
    }
}
