//! The API's description, for programs. Kept by hand; the tests hold it to the routes and to what goes over the wire.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Abilities, CompletionDetails, Cost, Grid, Look, Model, Usage, Word};
    use crate::{convert, error::Problem};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn keys(object: &Value) -> BTreeSet<String> {
        object.as_object().unwrap().keys().cloned().collect()
    }

    /// Holds an object to a schema by the names of its fields, all the way down.
    fn hold(document: &Value, value: &Value, schema: &Value, place: &str) {
        let schema = match schema["$ref"].as_str() {
            Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
            None => schema,
        };
        if let Some(items) = value.as_array().filter(|_| schema["type"] == "array") {
            items.iter().for_each(|item| hold(document, item, &schema["items"], place));
        }
        if !value.is_object() || schema["type"] != "object" {
            return;
        }
        let (known, got) = (keys(&schema["properties"]), keys(value));
        assert!(got.is_subset(&known), "{place}: {got:?} are not all in {known:?}");
        for required in schema["required"].as_array().unwrap() {
            assert!(got.contains(required.as_str().unwrap()), "{place} lacks {required}");
        }
        for name in got {
            hold(document, &value[&name], &schema["properties"][&name], &format!("{place}.{name}"));
        }
    }

    #[test]
    fn every_path_is_described_and_every_described_path_is_there() {
        let described: BTreeSet<String> = keys(&document()["paths"]);
        let source = include_str!("routes.rs");
        let routes = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once('"'));
        let routes = routes.map(|(path, _)| path.replace("{*name}", "{name}"));
        let served = routes.chain(crate::page::FILES.iter().map(|file| file.path.to_owned())).collect();
        assert_eq!(described, served);
    }

    #[test]
    fn what_is_sent_has_the_described_fields() {
        let cost = Cost {
            latent_steps: 1,
            refocused_visual_tokens: 2,
            appended_visual_tokens: 3,
            processed_positions: 4,
            queued_ms: 5.0,
            first_token_ms: 6.0,
            total_ms: 7.0,
        };
        let details = CompletionDetails { reasoning_tokens: 1 };
        let usage = Usage {
            prompt_tokens: 1,
            completion_tokens: 2,
            total_tokens: 3,
            completion_tokens_details: details,
            lare: cost,
        };
        let grid = Grid { rows: 1, cols: 1, cell_px_x: 1.0, cell_px_y: 1.0 };
        let word = || Word { text: "a".into(), score: 1.0 };
        let look = Look {
            step: 1,
            grid,
            grids: vec![grid, grid],
            scores: vec![1.0],
            chosen: vec![0],
            nearest: vec![word()],
            named: vec![word()],
            gate_mean: 0.5,
            halt_probability: 0.5,
            time_ms: 1.0,
            drawing: Some("data:".into()),
        };
        let limits = crate::wire::Limits { body_bytes: 1, picture_pixels: 1 };
        let lare = Abilities { max_steps: 1, pictures: 1, can_draw: true, text_reasoning_tokens: Some(1.0), limits };
        let model = Model { id: "a", object: "model", created: 1, owned_by: "lare", lare };
        let document = document();
        let sent = [
            ("Usage", json!(usage)),
            ("Look", json!(look)),
            ("Model", json!(model)),
            ("Error", Problem::closing().json()),
        ];
        for (name, value) in sent {
            hold(&document, &value, &document["components"]["schemas"][name], name);
        }
    }

    #[test]
    fn the_described_fields_of_a_request_are_known_and_the_example_is_understood() {
        let document = document();
        let request = &document["components"]["schemas"]["ChatRequest"]["properties"];
        let extensions = &document["components"]["schemas"]["Extensions"]["properties"];
        let nulls = |properties: &Value| -> Value {
            keys(properties).into_iter().map(|name| (name, Value::Null)).collect::<serde_json::Map<_, _>>().into()
        };
        let mut all = nulls(request);
        all["lare"] = nulls(extensions);
        let (_, unknown) = convert::read(all.to_string().as_bytes()).unwrap();
        assert_eq!(unknown, Vec::<String>::new());
        let content = &document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"];
        let example = &content["application/json"]["example"];
        assert!(convert::read(example.to_string().as_bytes()).unwrap().1.is_empty());
    }
}
