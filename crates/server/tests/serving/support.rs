//! A server on a free port with the shipped weights, and clients for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lare_infer::chat::{Message, Part, Role};
use lare_infer::engine::{self, Engine, Ticket};
use lare_infer::{Assistant, Options, Steps};
use lare_server::{Ended, Server, Settings};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Long enough for anything that comes at all.
pub const PATIENCE: Duration = Duration::from_secs(180);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

static ASSISTANT: LazyLock<Arc<Assistant>> =
    LazyLock::new(|| Arc::new(Assistant::from_folder(&root().join("weights/nano")).unwrap()));

pub static DESK: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read(root().join("examples/desk.png")).unwrap());

/// A server that runs until it is dropped.
pub struct Running {
    pub port: u16,
    pub engine: Arc<Engine>,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Ended>>,
}

/// A server with everything by default, ready.
pub fn serve() -> Running {
    serve_with(|_, _| ())
}

/// A server with other settings, ready.
pub fn serve_with(change: impl FnOnce(&mut Settings, &mut engine::Limits)) -> Running {
    let running = start(change);
    let until = Instant::now() + PATIENCE;
    while running.get("/health").status != 200 {
        assert!(Instant::now() < until, "the server is not ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    running
}

/// The same, perhaps not ready yet.
pub fn start(change: impl FnOnce(&mut Settings, &mut engine::Limits)) -> Running {
    let (mut settings, mut limits) = (Settings::new("lare-nano"), engine::Limits::default());
    settings.text_reasoning_tokens = Some(28.0);
    change(&mut settings, &mut limits);
    let engine = Arc::new(Engine::start(ASSISTANT.clone(), limits).unwrap());
    let server = Server::new(engine.clone(), settings).unwrap();
    let (close, closing) = oneshot::channel::<()>();
    let (told, port) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap().port()).unwrap();
            server.run(listener, async { drop(closing.await) }).await
        });
        runtime.shutdown_background();
        ended
    });
    Running { port: port.recv().unwrap(), engine, close: Some(close), thread: Some(thread) }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The answer's words.
    pub fn said(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }

    /// Refused, in OpenAI's shape; gives the field and the code.
    pub fn refused(&self, status: u16) -> (Option<String>, String) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/json"));
        let error = &self.json()["error"];
        let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert!(!error["message"].as_str().unwrap().is_empty() && !error["message"].as_str().unwrap().contains('\n'));
        (error["param"].as_str().map(str::to_owned), error["code"].as_str().unwrap().to_owned())
    }
}

impl Running {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Reply {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .allow_non_standard_methods(true)
            .build()
            .into();
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answered = match body {
            Some(body) => agent.run(request.body(body).unwrap()),
            None => agent.run(request.body(()).unwrap()),
        };
        let mut answered = answered.unwrap();
        let text = |value: &ureq::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = answered.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let bytes = answered.body_mut().read_to_vec().unwrap();
        Reply { status: answered.status().as_u16(), headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None)
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers, None)
    }

    pub fn method(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(method, path, headers, None)
    }

    pub fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send("POST", "/v1/chat/completions", headers, Some(body))
    }

    pub fn ask(&self, body: &Value) -> Reply {
        self.post(&[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// The data of a stream's events, and all of its lines.
    pub fn stream(&self, body: &Value) -> (Vec<Value>, Vec<String>) {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let reply = self.ask(&body);
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.header("content-type").unwrap().starts_with("text/event-stream"));
        let lines: Vec<String> = reply.text.lines().map(str::to_owned).collect();
        let data = lines.iter().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        (data.map(|data| serde_json::from_str(data).unwrap()).collect(), lines)
    }

    /// A connection on which nothing was sent.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection on which a request was sent.
    pub fn asking(&self, body: &Value) -> TcpStream {
        let (mut stream, body) = (self.connect(), body.to_string());
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream
    }

    /// Gives the engine so many slow requests that did not come by the server.
    pub fn busy(&self, requests: usize) -> Vec<Ticket> {
        let picture = Arc::new(lare_infer::image::decode(&DESK, "desk").unwrap());
        let ask = |_| {
            let parts = vec![Part::Picture, Part::Text(QUESTION.into())];
            let request = engine::Request {
                most_steps: usize::MAX,
                messages: vec![Message::new(Role::User, parts)],
                pictures: vec![picture.clone()],
                options: Options { steps: Steps::Fixed(8), ..Options::default() },
                stop: Vec::new(),
                replace: None,
                draw: false,
                deadline: None,
            };
            self.engine.submit(request, Box::new(|_| true)).unwrap()
        };
        (0..requests).map(ask).collect()
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().unwrap())
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what} did not come");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells it to close, and goes on.
    pub fn close(&mut self) {
        drop(self.close.take());
    }

    /// Waits until it has closed.
    pub fn ended(mut self) -> Ended {
        self.close();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The status of what comes on a connection, and the rest until it is closed.
pub fn answer_on(stream: TcpStream) -> (u16, String) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut rest = Vec::new();
    drop(reader.read_to_end(&mut rest)); // a reset ends it, too
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), String::from_utf8_lossy(&rest).into_owned())
}

pub fn uri(media: &str, bytes: &[u8]) -> String {
    format!("data:{media};base64,{}", STANDARD.encode(bytes))
}

pub fn picture(url: &str) -> Value {
    json!({ "type": "image_url", "image_url": { "url": url } })
}

pub fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

pub const QUESTION: &str = "What is written on the object left of the cat?";

/// A question on the desk.
pub fn question(words: &str) -> Value {
    let content = [picture(&uri("image/png", &DESK)), text(words)];
    json!({ "model": "lare-nano", "messages": [{ "role": "user", "content": content }], "temperature": 0 })
}

/// The same with more fields.
pub fn with(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A small picture of one colour.
pub fn encoded(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
    image::DynamicImage::from(pixels).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}
