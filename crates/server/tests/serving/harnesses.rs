//! The requests that evaluation harnesses send, recorded, and what they read of the answer.

use crate::support::*;
use image::ImageFormat;
use serde_json::{Value, json};

fn jpeg() -> String {
    uri("image/jpeg", &encoded(400, 300, ImageFormat::Jpeg))
}

/// VLMEvalKit: everything at the top level, `max_tokens` far beyond the context, more keys beside the URL, the system's
/// words as a plain string.
fn vlmevalkit(stream: bool) -> Value {
    let mut body = json!({
        "model": "lare-nano",
        "messages": [
            { "role": "system", "content": "You are a helpful assistant." },
            { "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": jpeg(), "detail": "low", "max_pixels": 1280 } },
                { "type": "text", "text": "What is in the picture?" },
            ]},
        ],
        "n": 1, "max_tokens": 32768, "temperature": 0, "top_k": 1, "repetition_penalty": 1.0,
        "enable_thinking": false, "timeout": 300,
    });
    if stream {
        body["stream"] = json!(true);
    }
    body
}

#[test]
fn vlmevalkits_request_is_answered() {
    let server = serve_with(|settings, _| settings.keys = vec!["x".into()]);
    let headers = [("content-type", "application/json"), ("authorization", "Bearer x")];
    let reply = server.post(&headers, vlmevalkit(false).to_string().as_bytes());
    assert!(!reply.said().trim().is_empty());
}

#[test]
fn vlmevalkits_stream_is_read_to_its_end() {
    let server = serve();
    let reply = server.ask(&vlmevalkit(true));
    // As it reads: every line that begins with `data:`, the first choice's delta, until `[DONE]`.
    let (mut said, mut ended) = (String::new(), false);
    for line in reply.text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
        if line == "[DONE]" {
            ended = true;
            break;
        }
        let chunk: Value = serde_json::from_str(line).unwrap();
        let choice = &chunk["choices"].as_array().unwrap()[0];
        said += choice["delta"].get("content").and_then(Value::as_str).unwrap_or("");
    }
    assert!(ended);
    assert_eq!(said, server.ask(&vlmevalkit(false)).said());
}

/// lmms-eval, `openai` and `async_openai`: the SDK's defaults, a PNG, no stream.
#[test]
fn lmms_evals_request_is_answered_and_counted() {
    let server = serve();
    let reply = server.ask(&json!({
        "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": uri("image/png", &DESK) } },
            { "type": "text", "text": QUESTION },
        ]}],
        "model": "lare-nano",
        "max_tokens": 1024,
        "temperature": 0,
    }));
    assert!(!reply.said().is_empty());
    let usage = &reply.json()["usage"];
    for count in
        [&usage["prompt_tokens"], &usage["completion_tokens"], &usage["completion_tokens_details"]["reasoning_tokens"]]
    {
        assert!(count.as_u64().unwrap() > 0, "{usage}");
    }
}
