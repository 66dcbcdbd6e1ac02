//! Any body as a request: refused in OpenAI's shape, or taken as far as the engine's door, its pictures decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Err(refused) = lare_server::examine(body) {
        let error: serde_json::Value = serde_json::from_str(&refused).expect("JSON"); // invariant: what is looked for
        assert!(error["error"]["message"].is_string(), "{refused}");
    }
});
