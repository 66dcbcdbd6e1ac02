//! What the evaluation harnesses and OpenAI's SDK count on, a test a promise.

use crate::support::*;
use image::ImageFormat;
use serde_json::{Value, json};

#[test]
fn the_four_addresses_answer() {
    let server = serve();
    assert_eq!(server.ask(&question(QUESTION)).status, 200);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    let models = server.get("/v1/models").json();
    let limits = json!({ "body_bytes": 32 << 20, "picture_pixels": 32_000_000 });
    let lare =
        json!({ "max_steps": 8, "pictures": 1, "can_draw": true, "text_reasoning_tokens": 28.0, "limits": limits });
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("lare-nano")));
    assert_eq!(models["data"][0]["lare"], lare);
    assert_eq!(server.get("/v1/models/lare-nano").json(), models["data"][0]);
    assert_eq!(server.get("/v1/models/other").refused(404).1, "model_not_found");
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text.contains("lare_requests_total{outcome=\"ok\"} 1"), "{}", metrics.text);
}

#[test]
fn a_key_is_wanted_only_where_there_is_one_and_only_by_the_api() {
    let server = serve_with(|settings, _| settings.keys = vec!["first".into(), "second".into()]);
    let ask = |key: &str| {
        let headers = [("content-type", "application/json"), ("authorization", key)];
        server.post(&headers, question(QUESTION).to_string().as_bytes())
    };
    assert_eq!((ask("Bearer first").status, ask("bearer second").status), (200, 200));
    for wrong in ["Bearer third", "Bearer firs", "Bearer", "Basic first", ""] {
        assert_eq!(ask(wrong).refused(401).1, "invalid_api_key", "{wrong}");
    }
    let missing = server.ask(&question(QUESTION));
    assert_eq!(
        (missing.refused(401).1.as_str(), missing.header("www-authenticate")),
        ("invalid_api_key", Some("Bearer"))
    );
    for path in ["/v1/models", "/v1/models/lare-nano", "/v1/nothing"] {
        server.get(path).refused(401);
    }
    for path in ["/health", "/metrics", "/openapi.json", "/", "/page.css", "/page.js", "/samples/desk.png"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.metric("lare_requests_total{outcome=\"unauthorized\"}"), 6.0);
}

#[test]
fn content_is_a_string_or_a_list() {
    let server = serve();
    let desk = picture(&uri("image/png", &DESK));
    let ask = |content: Value, system: Value| {
        server.ask(&json!({ "messages": [
            { "role": "system", "content": system }, { "role": "user", "content": content }
        ]}))
    };
    let plain = ask(json!([desk, text(QUESTION)]), json!("Answer briefly.")).said();
    assert_eq!(ask(json!([desk, text(QUESTION)]), json!([text("Answer briefly.")])).said(), plain);
    // A string is read; that this model wants a picture is another matter, said by its field.
    let (field, _) = ask(json!(QUESTION), json!("s")).refused(400);
    assert_eq!(field.as_deref(), Some("messages"));
}

#[test]
fn pictures_come_as_png_jpeg_and_webp() {
    let server = serve();
    for (media, format) in [
        ("image/png", ImageFormat::Png),
        ("image/jpeg", ImageFormat::Jpeg),
        ("image/webp", ImageFormat::WebP),
        ("image/jpeg", ImageFormat::Png), // what it says it is does not matter
    ] {
        let content = [picture(&uri(media, &encoded(200, 130, format))), text("What is this?")];
        let reply = server.ask(&json!({ "messages": [{ "role": "user", "content": content }] }));
        assert_eq!(reply.status, 200, "{media}: {}", reply.text);
    }
    for format in [ImageFormat::Gif, ImageFormat::Bmp] {
        let content = [picture(&uri("image/png", &encoded(200, 130, format))), text("What is this?")];
        let reply = server.ask(&json!({ "messages": [{ "role": "user", "content": content }] }));
        assert_eq!(reply.refused(400).0.as_deref(), Some("messages[0].content[0].image_url.url"));
    }
}

#[test]
fn several_pictures_are_counted_against_what_the_model_takes() {
    let server = serve();
    let content = [picture(&uri("image/png", &DESK)), picture(&uri("image/png", &DESK)), text(QUESTION)];
    let reply = server.ask(&json!({ "messages": [{ "role": "user", "content": content }] }));
    assert_eq!(reply.refused(400).0.as_deref(), Some("messages"));
    assert!(reply.text.contains("at most 1 picture"), "{}", reply.text);
}

#[test]
fn http_pictures_are_off_by_default_and_never_fetched_from_inside() {
    let ask = |server: &Running, url: &str| {
        server.ask(&json!({ "messages": [{ "role": "user", "content": [picture(url), text("a")] }] })).refused(400)
    };
    let off = serve();
    let field = Some("messages[0].content[0].image_url.url".to_owned());
    assert_eq!(ask(&off, "https://example.com/a.png").0, field);
    let on = serve_with(|settings, _| settings.image_urls = true);
    let itself = format!("http://127.0.0.1:{}/samples/desk.png", on.port);
    let by_name = format!("http://localhost:{}/samples/desk.png", on.port);
    for url in [&itself, &by_name, "http://169.254.169.254/latest/meta-data", "http://[::1]/a.png", "http://10.0.0.1/"]
    {
        let reply = on.ask(&json!({ "messages": [{ "role": "user", "content": [picture(url), text("a")] }] }));
        assert_eq!(reply.refused(400).0, field, "{url}");
        assert!(reply.text.contains("public addresses"), "{url}: {}", reply.text);
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let server = serve();
    let more = json!({
        "logit_bias": {}, "user": "u", "response_format": { "type": "text" }, "reasoning_effort": "low",
        "top_k": 4, "repetition_penalty": 1.1, "extra": [1, { "a": null }],
        "stream_options": { "more": true },
    });
    assert_eq!(server.ask(&with(question(QUESTION), more)).said(), server.ask(&question(QUESTION)).said());
}

#[test]
fn most_tokens_under_both_names_are_kept_to() {
    let server = serve();
    for name in ["max_tokens", "max_completion_tokens"] {
        let reply = server.ask(&with(question(QUESTION), json!({ name: 1 }))).json();
        assert_eq!(reply["choices"][0]["finish_reason"], "length", "{reply}");
        let cost = &reply["usage"];
        let text = cost["completion_tokens"].as_u64().unwrap() - cost["lare"]["latent_steps"].as_u64().unwrap();
        assert!(text <= 2, "{reply}"); // the mark that ends thinking, and one token
    }
}

#[test]
fn more_tokens_than_the_context_has_are_no_error() {
    let server = serve();
    let all = server.ask(&question(QUESTION)).said();
    for most in [json!(32768), json!(u64::MAX)] {
        assert_eq!(server.ask(&with(question(QUESTION), json!({ "max_tokens": most }))).said(), all);
    }
}

#[test]
fn a_seed_gives_its_answer_again() {
    let server = serve();
    let ask = |seed: i64| {
        let hot = json!({ "temperature": 1.5, "top_p": 0.95, "seed": seed });
        server.ask(&with(question(QUESTION), hot)).said()
    };
    let answers: Vec<String> = (0..12).map(ask).collect();
    assert_eq!(answers, (0..12).map(ask).collect::<Vec<_>>());
    assert!(answers.iter().any(|answer| *answer != answers[0]), "{answers:?}");
}

#[test]
fn one_answer_is_given_and_more_are_refused_by_name() {
    let server = serve();
    assert_eq!(server.ask(&with(question(QUESTION), json!({ "n": 1 }))).status, 200);
    assert_eq!(server.ask(&with(question(QUESTION), json!({ "n": 2 }))).refused(400).0.as_deref(), Some("n"));
}

#[test]
fn a_stop_text_ends_the_answer_and_is_no_part_of_it() {
    let server = serve();
    let all = server.ask(&question(QUESTION)).said();
    let (stop, before) = (all.chars().nth(1).unwrap().to_string(), all.chars().next().unwrap().to_string());
    assert!(before != stop, "{all}");
    for stop in [json!(stop), json!(["never said", stop])] {
        let reply = server.ask(&with(question(QUESTION), json!({ "stop": stop })));
        assert_eq!((reply.said(), &reply.json()["choices"][0]["finish_reason"]), (before.clone(), &json!("stop")));
    }
    assert_eq!(
        server.ask(&with(question(QUESTION), json!({ "stop": ["a", "b", "c", "d", "e"] }))).refused(400).0.as_deref(),
        Some("stop")
    );
}

#[test]
fn content_is_never_null_and_has_no_marker() {
    let server = serve();
    for lare in [json!({ "steps": 0 }), json!({ "steps": 8 }), json!({ "intervention": "markers-only" })] {
        let reply = server.ask(&with(question(QUESTION), json!({ "lare": lare, "max_tokens": 60 })));
        let said = reply.said();
        assert!(!said.contains('<') && !said.contains("think") && !said.contains("latent"), "{lare}: {said}");
    }
}

#[test]
fn usage_tells_latent_steps_as_reasoning() {
    let server = serve();
    let reply = server.ask(&with(question(QUESTION), json!({ "lare": { "steps": 3 } }))).json();
    let (usage, lare) = (&reply["usage"], &reply["lare"]);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{reply}"));
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(lare["latent_steps"], 3);
    assert_eq!(lare["refocused_visual_tokens"], 3 * 9 * 16);
    assert_eq!(lare["appended_visual_tokens"], 0);
    assert!(number(&usage["completion_tokens"]) > 3.0);
    assert_eq!(number(&usage["total_tokens"]), number(&usage["prompt_tokens"]) + number(&usage["completion_tokens"]));
    // The last token is chosen and never fed.
    assert_eq!(number(&lare["processed_positions"]) + 1.0, number(&usage["total_tokens"]));
    assert!(number(&lare["first_token_ms"]) > 0.0 && number(&lare["first_token_ms"]) <= number(&lare["total_ms"]));
    assert_eq!(&usage["lare"], lare);
}

#[test]
fn a_stream_has_its_role_first_and_its_end_last() {
    let server = serve();
    let whole = server.ask(&question(QUESTION));
    let (chunks, lines) =
        server.stream(&with(question(QUESTION), json!({ "stream_options": { "include_usage": true } })));
    let first = &chunks[0]["choices"][0];
    assert_eq!(first["delta"], json!({ "role": "assistant", "content": "" }));
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, whole.said());
    let [.., last, usage] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!((&last["choices"][0]["finish_reason"], &last["choices"][0]["delta"]), (&json!("stop"), &json!({})));
    assert_eq!(last["usage"], Value::Null);
    assert_eq!(usage["choices"], json!([]));
    let counts = |usage: &Value| (usage["prompt_tokens"].clone(), usage["completion_tokens"].clone());
    assert_eq!(counts(&usage["usage"]), counts(&whole.json()["usage"]));
    assert_eq!(lines.iter().rfind(|line| !line.is_empty()).unwrap(), "data: [DONE]");
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk"));
    for chunk in &chunks[..chunks.len() - 2] {
        assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null, "{chunk}");
    }
}

#[test]
fn a_stream_that_asks_for_no_chunk_of_usage_has_it_in_the_last() {
    let server = serve();
    let (chunks, _) = server.stream(&question(QUESTION));
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    assert!(chunks.iter().all(|chunk| chunk["choices"][0].is_object()), "a client may read choices[0] of every chunk");
}

#[test]
fn comments_keep_a_stream_alive() {
    let server = serve_with(|settings, limits| {
        limits.rows = 1;
        settings.limits.keep_alive = std::time::Duration::from_millis(5);
    });
    let others: Vec<_> =
        (0..10).map(|_| server.asking(&with(question(QUESTION), json!({ "lare": { "steps": 8 } })))).collect();
    let (_, lines) = server.stream(&with(question(QUESTION), json!({ "lare": { "steps": 8 } })));
    assert!(lines.iter().any(|line| line.starts_with(':')), "{lines:?}");
    drop(others);
}

#[test]
fn what_is_wrong_is_answered_in_openais_shape() {
    let server = serve();
    let json_type = [("content-type", "application/json")];
    assert_eq!(server.post(&json_type, b"{").refused(400).1, "invalid_json");
    assert_eq!(server.post(&json_type, b"").refused(400).1, "invalid_json");
    assert_eq!(server.post(&json_type, b"[]").refused(400).1, "invalid_json");
    assert_eq!(server.post(&json_type, b"\xff\xfe{}").refused(400).1, "invalid_json");
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert_eq!(server.post(&[("content-type", wrong)], b"{}").refused(415).1, "unsupported_media_type", "{wrong}");
    }
    assert_eq!(server.post(&[], b"{}").refused(415).1, "unsupported_media_type");
    assert_eq!(
        server.post(&[("content-type", "Application/JSON; charset=utf-8")], b"{}").refused(400).0.as_deref(),
        Some("messages")
    );
    assert_eq!(server.get("/nothing").refused(404).1, "not_found");
    assert_eq!(server.get("/v1/completions").refused(404).1, "not_found");
    assert_eq!(server.get("/v1/chat/completions").refused(405).1, "method_not_allowed");
    assert_eq!(server.method("DELETE", "/v1/models", &[]).refused(405).1, "method_not_allowed");
    let model = server.ask(&with(question(QUESTION), json!({ "model": "gpt-4" }))).refused(404);
    assert_eq!(model, (Some("model".into()), "model_not_found".into()));
    for (fields, field) in [
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "top_p": 1.5 }), "top_p"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "audio" }] }] }), "messages[0].content[0].type"),
        (json!({ "lare": { "steps": 99 } }), "lare.steps"),
        (json!({ "lare": { "steps": "auto", "halt_threshold": 2 } }), "lare.halt_threshold"),
        (json!({ "lare": { "intervention": "other" } }), "lare.intervention"),
    ] {
        let (param, _) = server.ask(&with(question(QUESTION), fields.clone())).refused(400);
        assert_eq!(param.as_deref(), Some(field), "{fields}");
    }
    let long = server.ask(&question(&"cat ".repeat(500)));
    assert_eq!(long.refused(400).0.as_deref(), Some("messages"));
    let empty = server.ask(&question(" "));
    assert_eq!(empty.refused(400).0.as_deref(), Some("messages"));
}

#[test]
fn an_answer_does_not_depend_on_its_neighbours() {
    let server = serve();
    let words = [QUESTION, "What is right of the cat?", "Where is the cat?", "What is written on the cup?"];
    let body = |at: usize| {
        let lare = json!({ "steps": at % 5, "trace": true });
        with(question(words[at % words.len()]), json!({ "lare": lare }))
    };
    let told = |reply: Reply| {
        assert_eq!(reply.status, 200, "{}", reply.text);
        let mut reply = reply.json();
        for look in reply["lare"]["looks"].as_array_mut().unwrap() {
            look["time_ms"] = json!(0);
        }
        (
            reply["choices"][0]["message"]["content"].clone(),
            reply["lare"]["looks"].clone(),
            reply["usage"]["completion_tokens"].clone(),
        )
    };
    let alone: Vec<_> = (0..12).map(|at| told(server.ask(&body(at)))).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let server = &server;
        let asking: Vec<_> = (0..12).map(|at| scope.spawn(move || told(server.ask(&body(at))))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn steps_are_taken_as_asked() {
    let server = serve();
    let taken = |lare: Value| {
        let reply = server.ask(&with(question(QUESTION), json!({ "lare": lare })));
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["lare"]["latent_steps"].as_u64().unwrap()
    };
    assert_eq!((taken(json!({ "steps": 0 })), taken(json!({ "steps": 5 }))), (0, 5));
    assert_eq!(taken(json!({ "steps": "auto", "halt_threshold": 0 })), 0);
    assert!(taken(json!({ "halt_threshold": 1 })) >= taken(json!({})));
    assert!(taken(json!({ "steps": "auto" })) >= 1);
}

#[test]
fn a_trace_has_every_look_and_a_stream_tells_it_as_it_happens() {
    let server = serve();
    let body = with(question(QUESTION), json!({ "lare": { "steps": 3, "trace": true } }));
    let whole = server.ask(&body).json();
    let looks = whole["lare"]["looks"].as_array().unwrap();
    assert_eq!(looks.len(), 3);
    for (look, step) in looks.iter().zip(1..) {
        let size = |name: &str| look[name].as_u64().unwrap();
        assert_eq!(size("step"), step);
        let scores: Vec<f64> = look["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
        assert_eq!(scores.len() as u64, size("rows") * size("cols"));
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-3);
        assert_eq!(look["chosen"].as_array().unwrap().len(), 9);
        assert!(look["chosen"].as_array().unwrap().iter().all(|cell| cell.as_u64().unwrap() < scores.len() as u64));
        assert_eq!((look["nearest"].as_array().unwrap().len(), look["named"].as_array().unwrap().len()), (5, 3));
        assert!(look["nearest"][0]["text"].is_string() && look["nearest"][0]["score"].is_number());
        assert!(look["cell_px_x"].as_f64().unwrap() > 0.0 && look["cell_px_y"].as_f64().unwrap() > 0.0);
        assert!(look["gate_mean"].is_number() && look["halt_probability"].is_number() && look["time_ms"].is_number());
        assert_eq!(look.get("drawing"), None);
    }
    let (chunks, _) = server.stream(&body);
    let streamed: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["lare"]["look"]).filter(|look| !look.is_null()).collect();
    assert_eq!(streamed.len(), 3);
    for (streamed, look) in streamed.iter().zip(looks) {
        assert_eq!((&streamed["scores"], &streamed["chosen"]), (&look["scores"], &look["chosen"]));
    }
    let first_look = chunks.iter().position(|chunk| !chunk["lare"]["look"].is_null()).unwrap();
    let words = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|words| !words.is_empty());
    assert!(first_look < chunks.iter().position(words).unwrap(), "looks come before words");
    assert_eq!(chunks[first_look]["choices"][0]["delta"], json!({}));
    let without = server.ask(&question(QUESTION)).json();
    assert_eq!(without["lare"].get("looks"), None);
}

#[test]
fn drawings_come_with_the_looks_where_they_are_asked_for() {
    let server = serve();
    let lare = json!({ "steps": 2, "trace": true, "drawings": true });
    let reply = server.ask(&with(question(QUESTION), json!({ "lare": lare }))).json();
    for look in reply["lare"]["looks"].as_array().unwrap() {
        let drawing = look["drawing"].as_str().unwrap_or_else(|| panic!("{look}"));
        assert!(drawing.starts_with("data:image/png;base64,iVBOR"), "{drawing}");
    }
    let alone = json!({ "lare": { "drawings": true } });
    assert_eq!(server.ask(&with(question(QUESTION), alone)).refused(400).0.as_deref(), Some("lare.drawings"));
}

#[test]
fn an_intervention_changes_what_is_thought() {
    let server = serve();
    let looks = |intervention: Value| {
        let lare = json!({ "steps": 3, "trace": true, "intervention": intervention });
        let reply = server.ask(&with(question(QUESTION), json!({ "lare": lare })));
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["lare"]["looks"].clone()
    };
    let own = looks(Value::Null);
    let second = |looks: &Value| looks[1]["scores"].clone();
    for name in ["zero", "noise", "random-patches"] {
        let changed = looks(json!(name));
        assert_eq!(changed.as_array().unwrap().len(), 3, "{name}");
        assert_ne!(second(&changed), second(&own), "{name}");
    }
    assert_eq!(looks(json!("repeat-first")).as_array().unwrap().len(), 3);
    assert_eq!(looks(json!("markers-only")), json!([]));
}
