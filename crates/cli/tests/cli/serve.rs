//! `lare serve` and `lare bench-serve`: a server that is started, asked and ended, and what is refused.

use crate::folders::{user_folder, write_adapter};
use crate::support::{Place, send};
use lare_server::bench::{self, Asked};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

/// A running server of this name, its address, and the rest of what it prints.
fn start(place: &Place, name: &str, more: &[&str]) -> (Child, String, BufReader<std::process::ChildStdout>) {
    let mut command = place.lare(&[&["--json", "serve", "--port", "0"], more].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(said["model"], name);
    (child, said["url"].as_str().unwrap().to_owned(), out)
}

/// What comes back for a request, head and all.
fn talk(url: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The status of an address, called by a name.
fn status_by(url: &str, path: &str, host: &str) -> String {
    let answer = talk(url, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
    answer.split(' ').nth(1).unwrap().to_owned()
}

fn status(url: &str, path: &str) -> String {
    status_by(url, path, "localhost")
}

fn until_ready(url: &str) {
    while status(url, "/health") == "503" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The answer to a request's body, all chunks of a stream after one another.
fn answer(url: &str, body: &Value) -> Vec<Value> {
    let body = body.to_string();
    let head = "POST /v1/chat/completions HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-type: application/json";
    let answer = talk(url, &format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    let (_, content) = answer.split_once("\r\n\r\n").unwrap();
    let lines = content.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let objects = lines.filter(|line| line.starts_with('{'));
    objects.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn log(mut child: Child) -> (i32, String) {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code().unwrap_or(-1), text)
}

#[test]
fn a_server_is_asked_under_load_and_ends_when_it_is_told_to() {
    let place = Place::new();
    let keys = place.file("keys", b"secret-key\n\n");
    let (child, url, _out) = start(&place, "lare-nano", &["--api-key-file", &keys]);
    until_ready(&url);
    assert_eq!((status(&url, "/health").as_str(), status(&url, "/v1/models").as_str()), ("200", "401"));
    let load =
        ["--json", "bench-serve", &url, "--count", "6", "--concurrency", "3", "--steps", "0,2,auto", "--tasks", "read"];
    let ran = place.run(&[&load[..], &["--api-key-file", &keys]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let report = ran.json();
    assert_eq!((&report["answered"], &report["errors"]), (&6.into(), &serde_json::json!({})));
    assert!(report["latent_steps"].as_u64() >= Some(4) && report["text_tokens"].as_u64() >= Some(6), "{report}");
    let refused = place.run(&load);
    assert_eq!((refused.code, &refused.json()["errors"]), (1, &serde_json::json!({ "status 401": 6 })));
    send("-TERM", &child);
    let (code, text) = log(child);
    assert_eq!(code, 0, "{text}");
    assert!(text.lines().all(|line| line.starts_with('{')), "{text}");
    assert!(text.contains("\"message\":\"answer\"") && text.contains("latent_steps"), "{text}");
    assert!(!text.contains("secret-key"));
}

#[test]
fn a_folder_is_served_as_it_is_asked() {
    for (family, adapter) in [("qwen2_5_vl", true), ("qwen3_vl", false), ("smolvlm", true)] {
        let place = Place::new();
        user_folder(family, &place.path().join("user"));
        let mut more = vec!["--model", "user"];
        if adapter {
            write_adapter(&place.path().join("user"), &place.path().join("adapter"));
            more.extend(["--adapter", "adapter"]);
        }
        let steps = adapter.then_some(2);
        let fixed = ["ask", "user/photo.png", "What is this?", "--max-tokens", "24", "--json"];
        let counted = steps.map(|steps| steps.to_string());
        let counted: Vec<&str> = counted.iter().flat_map(|steps| ["--steps", steps]).collect();
        let asked = place.run(&[&fixed[..], &more, &counted].concat());
        assert_eq!(asked.code, 0, "{family}: {}", asked.err);
        let asked = asked.json();

        let few = ["--max-tokens", "32"];
        let (child, url, _out) = start(&place, "user", &[&more[..], &few].concat());
        until_ready(&url);
        let picture = lare_data::image::open(&place.path().join("user/photo.png")).unwrap();
        let (model, max_tokens) = (Some("user"), Some(24));
        let question = Asked { model, picture: Some(&picture), question: "What is this?", steps, max_tokens };
        let mut body: Value = serde_json::from_str(&bench::body(&question).unwrap()).unwrap();
        let streamed = answer(&url, &body);
        let pieces = streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(asked["answer"], pieces.collect::<String>(), "{family}");
        body["stream"] = false.into();
        let whole = answer(&url, &body).remove(0);
        assert_eq!(whole["choices"][0]["message"]["content"], asked["answer"], "{family}");
        let (told, usage) = (&asked["usage"], &whole["usage"]);
        assert_eq!(usage["prompt_tokens"], told["prompt_tokens"], "{family}");
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], told["latent_steps"], "{family}");
        body["lare"] = serde_json::json!({ "trace": true });
        let traced = answer(&url, &body).remove(0);
        match adapter {
            true => assert!(traced["lare"]["looks"].is_array(), "{family}: {traced}"),
            false => assert_eq!(traced["error"]["param"], "lare.trace", "{family}"),
        }
        assert_eq!(
            (status_by(&url, "/", "evil.example").as_str(), status_by(&url, "/", "[::1]:80").as_str()),
            ("403", "200")
        );
        let load = ["--json", "bench-serve", &url, "--count", "4", "--concurrency", "4", "--tasks", "read"];
        let ran = place.run(&load);
        assert_eq!((ran.code, &ran.json()["answered"]), (0, &4.into()), "{family}: {}{}", ran.out, ran.err);
        send("-TERM", &child);
        let (code, text) = log(child);
        assert_eq!(code, 0, "{family}: {text}");
    }
}

#[test]
fn a_language_model_is_served_and_put_under_load_without_pictures() {
    let place = Place::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf/qwen3.gguf").display().to_string();
    let (child, url, _out) = start(&place, "qwen3", &["--model", &model]);
    until_ready(&url);
    let load =
        ["--json", "bench-serve", &url, "--count", "4", "--concurrency", "4", "--tasks", "read", "--max-tokens", "9"];
    let ran = place.run(&[&load[..], &["--text"]].concat());
    assert_eq!((ran.code, &ran.json()["answered"]), (0, &4.into()), "{}{}", ran.out, ran.err);
    assert!(ran.json()["text_tokens"].as_u64() <= Some(36), "{}", ran.out);
    let refused = place.run(&load);
    assert_eq!((refused.code, &refused.json()["errors"]), (1, &serde_json::json!({ "status 400": 4 })));
    send("-TERM", &child);
    assert_eq!(log(child).0, 0);
}

#[test]
fn what_cannot_be_served_is_named_with_the_way_out() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let empty = place.file("empty", b"\n\n");
    std::fs::create_dir(place.path().join("other")).unwrap();
    std::fs::write(place.path().join("other/config.json"), b"{}").unwrap();
    std::fs::create_dir(place.path().join("nano")).unwrap();
    let cases: [&[&str]; 9] = [
        &["serve", "--port", &port],
        &["serve", "--port", "0", "--api-key-file", &empty],
        &["serve", "--port", "0", "--name", "lare-two-step"],
        &["serve", "--port", "0", "--cors", "localhost"],
        &["serve", "--port", "0", "--allow-host", "http://box"],
        &["serve", "--port", "0", "--model", "other"],
        &["serve", "--port", "0", "--model", "nano", "--adapter", "other"],
        &["bench-serve", "http://192.0.2.1:80", "--count", "1"],
        &["bench-serve", "https://127.0.0.1", "--count", "1"],
    ];
    let mut told = String::new();
    for case in cases {
        let ran = place.run(case);
        assert_eq!(ran.code, 2, "{case:?}: {}{}", ran.out, ran.err);
        told += &format!("$ lare {}\n{}\n", case.join(" "), ran.err).replace(&port, "PORT");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_server_that_is_not_there_is_counted_as_errors() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(); // free again
    let url = format!("http://127.0.0.1:{port}");
    let ran = Place::new().run(&["--json", "bench-serve", &url, "--count", "3", "--tasks", "read"]);
    assert_eq!((ran.code, &ran.json()["answered"]), (1, &0.into()), "{}", ran.err);
    assert_eq!(ran.json()["errors"], serde_json::json!({ "connect: connection refused": 3 }));
}
