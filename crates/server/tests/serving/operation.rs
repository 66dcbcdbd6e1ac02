//! What whoever runs the server counts on: limits, clients that misbehave, the end.

use crate::support::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn slow() -> Value {
    with(question(QUESTION), json!({ "lare": { "steps": 8, "trace": true } }))
}

fn under_way(server: &Running) -> usize {
    let load = server.engine.load();
    load.waiting + load.running
}

#[test]
fn one_more_than_the_queue_holds_is_told_to_come_again() {
    let server = serve_with(|_, limits| (limits.queue, limits.rows) = (2, 1));
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| server.ask(&slow()))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let refused: Vec<&Reply> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(!refused.is_empty() && refused.len() < 16, "{} of 16 were refused", refused.len());
    for reply in refused {
        assert_eq!((reply.refused(429).1.as_str(), reply.header("retry-after")), ("queue_full", Some("1")));
    }
    assert_eq!(server.ask(&question(QUESTION)).status, 200);
}

#[test]
fn what_takes_too_long_is_given_up() {
    let server = serve_with(|settings, limits| {
        settings.limits.answer_time = Duration::from_millis(1000);
        (limits.queue, limits.rows) = (1000, 1);
    });
    let busy = server.busy(900);
    assert_eq!(server.ask(&slow()).refused(504).1, "timeout");
    // In a stream the error comes behind the first chunk, and what follows the end of an answer does not come.
    let (chunks, lines) = server.stream(&slow());
    assert_eq!(chunks.last().unwrap()["error"]["code"], "timeout", "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("[DONE]")));
    assert_eq!(server.metric("lare_requests_total{outcome=\"timeout\"}"), 2.0);
    drop(busy);
    server.until("rest", |server| under_way(server) == 0);
    assert_eq!(server.ask(&question(QUESTION)).status, 200);
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    let server = serve_with(|_, limits| limits.rows = 1);
    let bodies = [slow(), with(slow(), json!({ "stream": true }))];
    let gone: Vec<_> = (0..20).map(|at| server.asking(&bodies[at % 2])).collect();
    server.until("load", |server| under_way(server) >= 15);
    drop(gone);
    server.until("the end of all requests", |server| under_way(server) == 0);
    let disconnected = server.metric("lare_requests_total{outcome=\"disconnected\"}");
    assert!(disconnected >= 10.0, "{disconnected} of 20");
    assert_eq!(server.ask(&question(QUESTION)).status, 200);
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let server = serve_with(|settings, _| settings.limits.head_time = Duration::from_millis(150));
    for sent in ["", "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = server.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        let (begun, mut rest) = (Instant::now(), Vec::new());
        drop(stream.read_to_end(&mut rest));
        assert!(begun.elapsed() < PATIENCE / 2, "{sent:?}");
    }
    // One that waits behind an answer, too.
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (status, _) = answer_on(stream);
    assert_eq!(status, 200);
}

#[test]
fn on_loopback_a_request_by_a_name_that_is_not_this_machines_is_refused() {
    let server = serve_with(|settings, _| settings.hosts.push("lare.internal".into()));
    let get = |head: &str| {
        let mut stream = server.connect();
        stream.write_all(format!("GET {head}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        answer_on(stream)
    };
    for known in ["localhost", "127.0.0.1:1", "[::1]:8080", "lare.internal"] {
        assert_eq!(get(&format!("/health HTTP/1.1\r\nhost: {known}")).0, 200, "{known}");
    }
    for path in ["/", "/health", "/v1/models", "/metrics", "/nowhere"] {
        let (status, body) = get(&format!("{path} HTTP/1.1\r\nhost: evil.example:8080"));
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("unknown_host"), "{body}");
    }
    assert_eq!(get("http://evil.example/health HTTP/1.1\r\nhost: localhost").0, 403);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let server = serve_with(|settings, _| settings.limits.body_time = Duration::from_millis(200));
    let mut stream = server.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let (status, rest) = answer_on(stream);
    assert_eq!(status, 408, "{rest}");
    assert!(rest.contains("slow_body"), "{rest}");
}

#[test]
fn a_client_that_does_not_take_what_it_asked_for_is_cut_off() {
    let server = serve_with(|settings, _| settings.limits.write_time = Duration::from_millis(300));
    let mut stream = server.connect();
    let request = b"GET /samples/desk.png HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let requests = 64_000_000 / DESK.len();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    for _ in 0..requests {
        if stream.write_all(request).is_err() {
            break;
        }
    }
    server.until("the end of the connection", |server| server.metric("lare_connections") <= 1.0);
    let mut taken = Vec::new();
    drop(stream.read_to_end(&mut taken));
    assert!(taken.len() < requests * DESK.len());
}

#[test]
fn a_body_that_is_too_large_is_refused_by_its_length_and_by_its_bytes() {
    let server = serve_with(|settings, _| settings.limits.body_bytes = 1 << 20);
    let large = vec![b' '; 3 << 20];
    let by_length = server.post(&[("content-type", "application/json")], &large);
    assert_eq!(by_length.refused(413).1, "too_large");
    let mut stream = server.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..20 {
        let chunk = [format!("{:x}\r\n", 100_000).into_bytes(), vec![b' '; 100_000], b"\r\n".to_vec()].concat();
        stream.write_all(&chunk).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let (status, rest) = answer_on(stream);
    assert_eq!(status, 413, "{rest}");
    assert_eq!(server.ask(&question(QUESTION)).status, 200);
}

#[test]
fn a_picture_that_is_too_large_is_refused_before_it_is_decoded() {
    let server = serve_with(|settings, _| settings.limits.picture_pixels = 150_000);
    let ask = |bytes: &[u8]| {
        let content = [picture(&uri("image/png", bytes)), text("a")];
        server.ask(&json!({ "messages": [{ "role": "user", "content": content }] }))
    };
    assert_eq!(ask(&encoded(300, 400, image::ImageFormat::Png)).status, 200);
    let large = ask(&encoded(500, 400, image::ImageFormat::Png));
    let field = Some("messages[0].content[0].image_url.url".to_owned());
    assert_eq!(large.refused(413), (field, "too_large".into()));
    // Sixteen rows, but the header says 30,000 x 30,000: decoded, it would take 2.7 GB.
    let mut bomb = encoded(16, 16, image::ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[30_000_u32.to_be_bytes(), 30_000_u32.to_be_bytes()].concat());
    let crc = crc(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    assert_eq!(ask(&bomb).refused(413).1, "too_large");
    let cut = ask(&encoded(100, 100, image::ImageFormat::Png)[..200]);
    assert_eq!(cut.refused(400).1, "invalid_value");
}

/// PNG's checksum.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn memory_is_bounded_over_all_requests() {
    let server = serve_with(|settings, limits| {
        settings.limits.memory_bytes = 8 << 20;
        (limits.queue, limits.rows) = (64, 1);
    });
    let body = |side: u32| {
        let content =
            [picture(&uri("image/png", &encoded(side, side, image::ImageFormat::Png))), text("What is this?")];
        json!({ "messages": [{ "role": "user", "content": content }], "lare": { "steps": 8 } })
    };
    assert_eq!(server.ask(&body(2000)).refused(413).1, "too_large"); // 12 MB, more than there ever is
    let small = body(900);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..24).map(|_| scope.spawn(|| server.ask(&small).status)).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(server.ask(&small).status, 200);
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    let server = serve_with(|settings, _| {
        settings.limits.connections = 2;
        settings.limits.head_time = Duration::from_millis(400);
    });
    let idle = [server.connect(), server.connect()];
    assert_eq!(server.get("/health").status, 200); // when the idle ones have been closed
    drop(idle);
}

#[test]
fn what_is_no_http_harms_nobody() {
    let server = serve();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let mut stream = server.connect();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        drop(answer_on(stream));
    }
    let mut stream = server.connect();
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    drop(stream.write_all(head.as_bytes())); // it may be cut off before the end
    assert_ne!(answer_on(stream).0, 200);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn closing_finishes_what_was_accepted_and_refuses_the_rest() {
    let mut server = serve_with(|settings, limits| {
        limits.rows = 2;
        settings.limits.drain_time = PATIENCE;
    });
    let busy = server.busy(6); // so that there is time to ask in vain
    let whole: Vec<_> = (0..6).map(|_| server.asking(&slow())).collect();
    let mut streamed: Vec<_> = (0..6).map(|_| server.asking(&with(slow(), json!({ "stream": true })))).collect();
    for stream in &mut streamed {
        // The first byte comes when the request is accepted.
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }
    server.close();
    server.until("the news", |server| server.get("/health").status == 503);
    assert_eq!(server.get("/health").refused(503).1, "closing");
    assert_eq!(server.ask(&question(QUESTION)).refused(503).1, "closing");
    for stream in whole {
        let (status, rest) = answer_on(stream);
        assert!(status == 200 && rest.contains("finish_reason") || status == 503 && rest.contains("closing"), "{rest}");
    }
    for stream in streamed {
        let (status, rest) = answer_on(stream);
        assert!(status == 200 && rest.contains("data: [DONE]"), "{rest}");
    }
    assert_eq!(server.ended().lost, 0);
    drop(busy);
}

#[test]
fn closing_does_not_wait_for_ever() {
    let server = serve_with(|settings, limits| {
        settings.limits.drain_time = Duration::from_millis(50);
        (limits.queue, limits.rows) = (1000, 1);
    });
    let busy = server.busy(900);
    let other = server.asking(&slow());
    server.until("acceptance", |server| under_way(server) > 880 && server.engine.load().waiting > 0);
    std::thread::sleep(Duration::from_millis(500)); // for the one that came by the server
    let begun = Instant::now();
    assert_eq!(server.ended().lost, 1);
    assert!(begun.elapsed() < PATIENCE / 2);
    drop((busy, other));
}

#[test]
fn a_server_without_load_closes_at_once() {
    let server = serve();
    let idle = server.connect();
    let begun = Instant::now();
    assert_eq!(server.ended().lost, 0);
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop(idle);
}

#[test]
fn every_answer_has_a_request_id() {
    let server = serve();
    let given = server.get_with("/health", &[("x-request-id", "mine-1")]);
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
    let own = |reply: Reply| reply.header("x-request-id").unwrap().to_owned();
    let forged = server.get_with("/health", &[("x-request-id", "a b")]);
    assert_ne!(own(forged), "a b");
    assert_ne!(own(server.get("/health")), own(server.get("/nothing")));
}

#[test]
fn other_origins_may_ask_only_where_they_are_named() {
    let preflight = [("origin", "http://a.example"), ("access-control-request-method", "POST")];
    let closed = serve();
    assert_eq!(closed.method("OPTIONS", "/v1/chat/completions", &preflight).status, 405);
    assert_eq!(closed.get_with("/health", &preflight).header("access-control-allow-origin"), None);
    let open = serve_with(|settings, _| {
        settings.cors = vec!["http://a.example".into()];
        settings.keys = vec!["k".into()];
    });
    let allowed = open.method("OPTIONS", "/v1/chat/completions", &preflight);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some("http://a.example")));
    let other = open.method("OPTIONS", "/v1/chat/completions", &[("origin", "http://b.example"), preflight[1]]);
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[test]
fn the_page_comes_from_here_and_reaches_nowhere_else() {
    let server = serve();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/wire.js", "text/javascript; charset=utf-8"),
        ("/look.js", "text/javascript; charset=utf-8"),
        ("/view.js", "text/javascript; charset=utf-8"),
        ("/picture.js", "text/javascript; charset=utf-8"),
        ("/samples/desk.png", "image/png"),
    ] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http") && !policy.contains("unsafe"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        // Names of XML's vocabularies look like addresses; nothing is fetched from them.
        let text = reply.text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
    }
}

#[test]
fn what_happened_is_counted() {
    let server = serve();
    server.ask(&with(question(QUESTION), json!({ "lare": { "steps": 4 } }))).said();
    server.ask(&json!({})).refused(400);
    // The server's own first question is no request.
    assert_eq!(server.metric("lare_requests_total{outcome=\"ok\"}"), 1.0);
    assert_eq!(server.metric("lare_requests_total{outcome=\"bad_request\"}"), 1.0);
    assert_eq!(server.metric("lare_latent_steps_total"), 4.0);
    assert!(server.metric("lare_text_tokens_total") > 1.0);
    for histogram in ["lare_first_token_seconds", "lare_answer_seconds", "lare_queue_seconds"] {
        assert_eq!(server.metric(&format!("{histogram}_count")), 1.0, "{histogram}");
    }
    assert!(server.metric("lare_batch_size_count") > 5.0 && server.metric("lare_pass_seconds_total") > 0.0);
    assert_eq!(server.metric("lare_picture_cache_misses_total"), 2.0); // the server's own first, and the desk
    server.ask(&question(QUESTION)).said();
    assert_eq!(server.metric("lare_picture_cache_hits_total"), 1.0);
    server.until("rest", |server| server.metric("lare_running") == 0.0 && server.metric("lare_queue") == 0.0);
}
