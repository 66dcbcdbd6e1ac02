//! `lare serve` and `lare bench-serve`: a server that is started, asked and ended, and what is refused.

use crate::support::{Place, send};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

/// A running server, its address, and the rest of what it prints.
fn start(place: &Place, more: &[&str]) -> (Child, String, BufReader<std::process::ChildStdout>) {
    let mut command = place.lare(&[&["--json", "serve", "--port", "0"], more].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(said["model"], "lare-nano");
    (child, said["url"].as_str().unwrap().to_owned(), out)
}

/// The status of an address.
fn status(url: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
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
    let (child, url, _out) = start(&place, &["--api-key-file", &keys]);
    while status(&url, "/health") == "503" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
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
fn what_cannot_be_served_is_named_with_the_way_out() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let empty = place.file("empty", b"\n\n");
    std::fs::create_dir(place.path().join("other")).unwrap();
    std::fs::write(place.path().join("other/config.json"), b"{}").unwrap();
    let cases: [&[&str]; 7] = [
        &["serve", "--port", &port],
        &["serve", "--port", "0", "--api-key-file", &empty],
        &["serve", "--port", "0", "--name", "lare-two-step"],
        &["serve", "--port", "0", "--cors", "localhost"],
        &["serve", "--port", "0", "--model", "other"],
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
