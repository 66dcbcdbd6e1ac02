//! Against what `transformers` makes of the folders in `fixtures/chat`, and against folders that are broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;

const FOLDERS: [&str; 6] = ["qwen2_5_vl", "qwen3_vl", "smolvlm", "qwen2", "qwen3", "llama"];
const OF_PICTURES: [&str; 3] = ["qwen2_5_vl", "qwen3_vl", "smolvlm"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat").join(name)
}

fn chat(name: &str) -> Chat {
    Chat::from_folder(&fixture(name)).unwrap()
}

fn golden(name: &str) -> Json {
    serde_json::from_str(&fs::read_to_string(fixture(name).join("golden.json")).unwrap()).unwrap()
}

/// A message as `transformers` takes it.
fn message(value: &Json) -> Message {
    let part = |part: &Json| match part["type"].as_str().unwrap() {
        "image" => Part::Picture,
        _ => Part::Text(part["text"].as_str().unwrap().to_owned()),
    };
    let role = value["role"].as_str().unwrap().parse().unwrap();
    match &value["content"] {
        Json::String(text) => Message::new(role, text.as_str()),
        parts => Message::new(role, parts.as_array().unwrap().iter().map(part).collect::<Vec<Part>>()),
    }
}

fn numbers<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Json) -> Vec<T> {
    value.as_array().unwrap().iter().map(|number| T::try_from(number.as_u64().unwrap()).unwrap()).collect()
}

fn picture(value: &Json) -> PictureTokens {
    match numbers::<usize>(value)[..] {
        [rows, cols, tokens_per_tile] => PictureTokens::Tiles { rows, cols, tokens_per_tile },
        [tokens] => PictureTokens::Run(tokens),
        _ => panic!("{value}"),
    }
}

/// A conversation of a golden file.
struct Conversation {
    name: String,
    messages: Vec<Message>,
    options: RenderOptions,
    pictures: Vec<PictureTokens>,
    text: String,
    prompt: Prompt,
}

fn conversations(folder: &str) -> Vec<Conversation> {
    let read = |one: &Json| Conversation {
        name: format!("{folder}: {}", one["name"].as_str().unwrap()),
        messages: one["messages"].as_array().unwrap().iter().map(message).collect(),
        options: RenderOptions {
            add_generation_prompt: one["add_generation_prompt"].as_bool().unwrap(),
            variables: serde_json::from_value(one["variables"].clone()).unwrap(),
            now: Some(UNIX_EPOCH + Duration::from_secs(one["now"].as_u64().unwrap())),
        },
        pictures: one["pictures"].as_array().unwrap().iter().map(picture).collect(),
        text: one["text"].as_str().unwrap().to_owned(),
        prompt: Prompt {
            ids: numbers(&one["ids"]),
            pictures: one["places"].as_array().unwrap().iter().map(ranges).collect(),
        },
    };
    golden(folder)["conversations"].as_array().unwrap().iter().map(read).collect()
}

fn ranges(picture: &Json) -> Vec<std::ops::Range<usize>> {
    let range = |place: &Json| numbers(place)[0]..numbers(place)[1];
    picture.as_array().unwrap().iter().map(range).collect()
}

fn user(text: &str) -> Vec<Message> {
    vec![Message::new(Role::User, text)]
}

fn ids(chat: &Chat, messages: &[Message], pictures: &[PictureTokens]) -> Vec<u32> {
    let rendered = chat.render(messages, &RenderOptions::default()).unwrap();
    chat.encode(&rendered, pictures).unwrap().ids
}

#[test]
fn rendered_text_and_ids_and_places_of_pictures_are_those_of_transformers() {
    for folder in FOLDERS {
        let chat = chat(folder);
        for one in conversations(folder) {
            let rendered = chat.render(&one.messages, &one.options).unwrap();
            assert_eq!(rendered.text(), one.text, "{}", one.name);
            assert_eq!(chat.encode(&rendered, &one.pictures).unwrap(), one.prompt, "{}", one.name);
        }
    }
}

#[test]
fn the_span_of_pictures_parts_a_prompt_into_before_pictures_and_after() {
    for folder in OF_PICTURES {
        let chat = chat(folder);
        let (_, image) = chat.image_token().unwrap();
        for one in conversations(folder) {
            let Some(span) = one.prompt.picture_span() else {
                assert!(one.pictures.is_empty(), "{}", one.name);
                assert!(!one.prompt.ids.contains(&image), "{}", one.name);
                continue;
            };
            let ids = &one.prompt.ids;
            assert_eq!((ids[span.start], ids[span.end - 1]), (image, image), "{}", one.name);
            assert!(!ids[..span.start].contains(&image) && !ids[span.end..].contains(&image), "{}", one.name);
        }
    }
}

#[test]
fn decoding_in_pieces_is_decoding_at_once_and_never_later_than_the_reference_stream() {
    for folder in FOLDERS {
        let chat = chat(folder);
        for one in golden(folder)["decodes"].as_array().unwrap() {
            let (ids, text) = (numbers::<u32>(&one["ids"]), one["text"].as_str().unwrap());
            assert_eq!(chat.tokenizer().decode(&ids), text, "{folder}");
            let (mut decoder, mut given, mut expected) = (Decoder::default(), String::new(), 0);
            for (&id, piece) in ids.iter().zip(one["pieces"].as_array().unwrap()) {
                given.push_str(&decoder.push(chat.tokenizer(), id));
                expected += piece.as_str().unwrap().len();
                assert!(text.starts_with(&given), "{folder}: {given:?} of {text:?}");
                // The reference gives a replacement character as soon as another character follows it.
                assert!(given.len() >= expected, "{folder}: {given:?} of {text:?}");
            }
            assert_eq!(given + &decoder.finish(chat.tokenizer()), text, "{folder}");
        }
    }
}

#[test]
fn any_ids_decode_in_pieces_to_what_they_decode_to_at_once() {
    // Every kind of token after every other: halves of characters, spaces, special tokens, ids there are not.
    let mut random = generator(7);
    let tokenizers = FOLDERS.map(|folder| chat(folder).tokenizer);
    let spelled = byte_fallback();
    for tokenizer in tokenizers.iter().chain([&spelled]) {
        for _ in 0..300 {
            let ids: Vec<u32> = (0..random(40)).map(|_| random(tokenizer.vocab_size() + 2) as u32).collect();
            let mut decoder = Decoder::default();
            let mut text: String = ids.iter().map(|&id| decoder.push(tokenizer, id)).collect();
            text += &decoder.finish(tokenizer);
            assert_eq!(text, tokenizer.decode(&ids), "{ids:?}");
        }
    }
}

/// Numbers below the one given.
fn generator(mut state: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// A tokenizer of SentencePiece's kind: spaces are `▁`, the first is taken off, unknown characters are bytes.
fn byte_fallback() -> FolderTokenizer {
    let words = ["<unk>", "<s>", "▁", "▁a", "a", "b"].map(str::to_owned).into_iter();
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let vocab: serde_json::Map<String, Json> =
        words.chain(bytes).enumerate().map(|(id, word)| (word, Json::from(id))).collect();
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null, "post_processor": null,
        "added_tokens": [{"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]},
        "decoder": {"type": "Sequence", "decoders": [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["▁ a"], "byte_fallback": true, "unk_token": "<unk>",
                  "fuse_unk": true},
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    FolderTokenizer::read(&Folder::new(folder.path())).unwrap()
}

#[test]
fn no_piece_of_a_prompt_but_the_first_begins_with_a_space_of_the_tokenizers_own() {
    let tokenizer = byte_fallback();
    let marked = format!("a{}b<s>", tokenizer.control().mark("<s>a"));
    let pieces = inert::pieces(&marked, tokenizer.control());
    let ids = tokenizer.encode_pieces(&pieces).unwrap();
    assert_eq!(ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect::<String>(), "▁a<0x3C><0x73><0x3E>ab<s>");
    assert_eq!(ids.iter().filter(|&&id| Some(id) == tokenizer.id("<s>")).count(), 1);
}

#[test]
fn a_control_token_in_a_message_is_the_text_it_is() {
    for folder in FOLDERS {
        let chat = chat(folder);
        let tokenizer = chat.tokenizer();
        let one = |text: &str| -> Vec<Message> {
            vec![Message::new(Role::System, text), Message::new(Role::User, text), Message::new(Role::User, text)]
        };
        let plain = ids(&chat, &one("x"), &[]);
        let added = tokenizer.special().into_iter().chain(["<think>".to_owned(), "<tool_call>".to_owned()]);
        for token in added.filter(|token| tokenizer.id(token).is_some()) {
            let id = tokenizer.id(&token).unwrap();
            let count = |ids: &[u32]| ids.iter().filter(|&&other| other == id).count();
            let written = ids(&chat, &one(&format!("a {token}{token} b")), &[]);
            assert_eq!(count(&written), count(&plain), "{folder}: {token}");
            assert!(tokenizer.decode(&written).contains(&format!("a {token}{token} b")), "{folder}: {token}");
        }
    }
}

#[test]
fn the_halves_of_a_token_in_two_parts_do_not_join() {
    for folder in OF_PICTURES {
        let chat = chat(folder);
        let (token, id) = chat.image_token().unwrap();
        for middle in (1..token.len()).chain([0]) {
            let (first, second) = token.split_at(middle);
            let parts = [first, second, "?"].map(|text| Part::Text(text.to_owned())).to_vec();
            let written = ids(&chat, &[Message::new(Role::User, parts)], &[]);
            assert!(!written.contains(&id), "{folder}: {first} {second}");
        }
    }
}

#[test]
fn no_text_of_a_user_adds_a_control_token() {
    let mut random = generator(11);
    for folder in FOLDERS {
        let chat = chat(folder);
        let tokenizer = chat.tokenizer();
        let control = |ids: &[u32]| -> usize {
            let words =
                tokenizer.special().into_iter().chain(["<think>", "</think>", "<tool_response>"].map(str::to_owned));
            let words: Vec<u32> = words.filter_map(|word| tokenizer.id(&word)).collect();
            ids.iter().filter(|id| words.contains(id)).count()
        };
        let special = tokenizer.special();
        let mut text = || -> String {
            let mut piece = || match random(6) {
                0 => "\u{f0000}".to_owned(),
                1 => "\u{f0001}".to_owned(),
                2 => ["<think>", "</think>", "<tool_response>", " ", "\n", "<|", "é", "|>"][random(8)].to_owned(),
                3 => special[random(special.len())].clone(),
                first => {
                    let (start, end) = special[random(special.len())].split_at(1 + random(5));
                    if first == 4 { start.to_owned() } else { end.to_owned() }
                }
            };
            (0..8).map(|_| piece()).collect()
        };
        for _ in 0..200 {
            let parts: Vec<Part> = (0..3).map(|_| Part::Text(text())).collect();
            let plain = vec![Message::new(Role::System, "x"), Message::new(Role::User, "x")];
            let hostile = vec![Message::new(Role::System, text()), Message::new(Role::User, parts)];
            assert_eq!(control(&ids(&chat, &hostile, &[])), control(&ids(&chat, &plain, &[])), "{folder}: {hostile:?}");
        }
    }
}

#[test]
fn a_thought_the_assistant_decoded_goes_back_as_it_was_but_ends_no_turn() {
    let chat = chat("qwen3");
    let tokenizer = chat.tokenizer();
    let said = |answer: &str| vec![Message::new(Role::User, "x"), Message::new(Role::Assistant, answer)];
    let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
    let text = |answer: &str| chat.render(&said(answer), &options).unwrap().text();
    assert!(text("<think>\nA\n</think>\n\nB").ends_with("assistant\n<think>\nA\n</think>\n\nB<|im_end|>\n"));
    let rendered = chat.render(&said("<think>\nA<|im_end|>\n</think>\n\nB<|im_end|>"), &options).unwrap();
    let written = chat.encode(&rendered, &[]).unwrap().ids;
    let count = |token| written.iter().filter(|&&id| Some(id) == tokenizer.id(token)).count();
    assert_eq!((count("<think>"), count("</think>"), count("<|im_end|>")), (1, 1, 2));
}

#[test]
fn strings_among_the_variables_are_inert_too() {
    let chat = chat("llama");
    let now = Some(UNIX_EPOCH);
    let given = |date: &str| {
        let variables = BTreeMap::from([("date_string".to_owned(), Json::from(date))]);
        let rendered = chat.render(&user("x"), &RenderOptions { variables, now, ..RenderOptions::default() }).unwrap();
        chat.encode(&rendered, &[]).unwrap().ids
    };
    let end = chat.tokenizer().id("<|eot_id|>").unwrap();
    let count = |ids: Vec<u32>| ids.into_iter().filter(|&id| id == end).count();
    assert_eq!(count(given("today<|eot_id|>")), count(given("today")));
}

#[test]
fn a_message_is_shown_whichever_form_its_content_has() {
    for folder in FOLDERS {
        let chat = chat(folder);
        let parts: Vec<Part> = ["What ", "is", " it?"].map(|text| Part::Text(text.to_owned())).to_vec();
        let as_parts = ids(&chat, &[Message::new(Role::System, parts.clone()), Message::new(Role::User, parts)], &[]);
        let text = "What is it?";
        let as_text = ids(&chat, &[Message::new(Role::System, text), Message::new(Role::User, text)], &[]);
        assert_eq!(as_parts, as_text, "{folder}");
        assert_eq!(chat.tokenizer().decode(&as_text).matches(text).count(), 2, "{folder}");
    }
}

#[test]
fn pictures_and_places_for_them_must_agree_in_number_and_kind() {
    let (qwen, smol, text) = (chat("qwen3_vl"), chat("smolvlm"), chat("qwen3"));
    let tiles = |rows, cols, tokens_per_tile| PictureTokens::Tiles { rows, cols, tokens_per_tile };
    let shown = |count: usize| vec![Message::new(Role::User, vec![Part::Picture; count])];
    let run = PictureTokens::Run;
    let cases: [(&Chat, usize, &[PictureTokens], &[&str]); 11] = [
        (&qwen, 1, &[], &["expected  0 `<|image_pad|>`", "got       1\n"]),
        (&qwen, 1, &[run(4), run(4)], &["expected  2 `<|image_pad|>`", "got       1\n"]),
        (&qwen, 0, &[run(4)], &["expected  1 `<|image_pad|>`", "got       0\n"]),
        (&smol, 2, &[tiles(0, 0, 4)], &["expected  1 `<image>`", "got       2\n"]),
        (&qwen, 1, &[tiles(1, 1, 4)], &["picture 0", "`Run`", "Tiles { rows: 1"]),
        (&smol, 2, &[tiles(0, 0, 4), run(4)], &["picture 1", "`Tiles`", "Run(4)"]),
        (&smol, 1, &[tiles(2, 0, 4)], &["both zero", "rows: 2, cols: 0"]),
        (&smol, 1, &[tiles(4, 1, 4)], &["`<row_4_col_1>`", "no id", "tokenizer.json"]),
        (&qwen, 1, &[run(0)], &["from 1 to 1048576", "Run(0)"]),
        (&smol, 1, &[tiles(usize::MAX, 2, 4)], &["from 1 to 1048576"]),
        (&text, 0, &[run(4)], &["expected  1 `place for a picture`", "got       0"]),
    ];
    for (chat, count, pictures, expected) in cases {
        let messages = if count == 0 { user("What?") } else { shown(count) };
        let rendered = chat.render(&messages, &RenderOptions::default()).unwrap();
        let error = chat.encode(&rendered, pictures).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)) && error.contains("\n\nhint: "), "{error}");
    }
    let error = text.render(&shown(1), &RenderOptions::default()).unwrap_err().to_string();
    assert!(error.contains("no place for pictures") && error.contains("a picture in message 0"), "{error}");
}

/// Files, and what each is to hold.
type Files<'a> = &'a [(&'a str, &'a str)];
/// The same, or `None` to take it away.
type Changes<'a> = &'a [(&'a str, Option<&'a str>)];

/// A copy of a fixture with changes.
fn changed(name: &str, changes: Changes) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    for (file, text) in changes {
        let path = folder.path().join(file);
        match text {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }
    folder
}

/// The text of a fixture's file after a replacement that must find something.
fn edited(name: &str, file: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(fixture(name).join(file)).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    text.replace(from, to)
}

#[test]
fn a_hostile_folder_is_refused_with_the_file_what_was_expected_and_the_way_out() {
    let tokenizer = fs::read_to_string(fixture("qwen3_vl").join("tokenizer.json")).unwrap();
    let half = &tokenizer[..tokenizer.floor_char_boundary(tokenizer.len() / 2)];
    let moved = edited("qwen3_vl", "tokenizer_config.json", "\"476\": {", "\"999\": {");
    let other = edited("qwen3_vl", "config.json", "\"image_token_id\": 488", "\"image_token_id\": 489");
    let without = edited("qwen3_vl", "tokenizer_config.json", "\"added_tokens_decoder\"", "\"was\"");
    let unnamed = tokenizer.replace("<|image_pad|>", "<|img|>");
    let cases: [(Changes, &[&str]); 15] = [
        (&[("tokenizer.json", Some(half))], &["tokenizer.json", "cannot be used", "unfinished download"]),
        (&[("tokenizer.json", Some("{}"))], &["tokenizer.json", "cannot be used"]),
        (&[("tokenizer.json", None)], &["tokenizer.json` is missing", "no such file"]),
        (
            &[("tokenizer_config.json", Some("{\"eos_token\": 7}"))],
            &["tokenizer_config.json", "`eos_token`", "got       7"],
        ),
        (&[("tokenizer_config.json", Some("[1]"))], &["tokenizer_config.json", "not complete JSON", "[1]"]),
        (&[("tokenizer_config.json", Some(&moved))], &["tokenizer_config.json", "`<|endoftext|>`", "id 999", "id 476"]),
        (&[("config.json", None)], &["config.json` is missing", "architecture"]),
        (&[("config.json", Some("{\"model_type\": \"mamba\"}"))], &["config.json", "qwen3_vl", "got       mamba"]),
        (&[("config.json", Some("{}"))], &["config.json", "`model_type`", "got       none"]),
        (&[("config.json", Some(&other))], &["config.json", "`<|image_pad|>`", "id 489", "id 488"]),
        (
            &[("tokenizer.json", Some(&unnamed)), ("tokenizer_config.json", Some(&without))],
            &["tokenizer.json", "`<|image_pad|>`", "no id"],
        ),
        (&[("chat_template.jinja", None)], &["no chat template", "processor_config.json, then chat_template.json"]),
        (
            &[("chat_template.jinja", Some("a\n{% for m in messages %}\nb"))],
            &["chat_template.jinja", "error in line", "syntax error"],
        ),
        (
            &[("chat_template.json", Some("{\"chat_template\": {\"rag\": \"x\"}}"))],
            &["chat_template.json", "`chat_template`", "`default`"],
        ),
        (
            &[("generation_config.json", Some("{\"temperature\": \"hot\"}"))],
            &["generation_config.json", "`temperature`", "\"hot\""],
        ),
    ];
    for (changes, expected) in cases {
        let folder = changed("qwen3_vl", changes);
        let error = Chat::from_folder(folder.path()).err().unwrap_or_else(|| panic!("{expected:?}")).to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{expected:?} in\n{error}");
        assert!(
            error.contains("\n  expected  ") && error.contains("\n  got       ") && error.contains("\n\nhint: "),
            "{error}"
        );
    }
}

#[test]
fn a_hostile_template_is_refused_when_it_is_used() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    let alternate =
        "\n{% if messages[0].role != 'assistant' %}{{ raise_exception('Begin with ' ~ 'assistant!') }}{% endif %}";
    let inside =
        "{% macro m() %}{{ raise_exception('from within') }}{% endmacro %}{% set x %}{{ m() }}{% endset %}{{ x }}";
    let cases: [(&str, &[&str]); 8] = [
        (alternate, &["refuses this conversation", "got       Begin with assistant!"]),
        (inside, &["refuses this conversation", "got       from within"]),
        ("\n\n{{ messages[0].content.nothing.at.all }}", &["fails in line 3", "undefined"]),
        ("{{ messages[0].content | unheard }}", &["fails in line 1", "unheard"]),
        ("{{ 'a' + messages }}", &["fails in line 1", "to render 1 messages"]),
        ("{{ strftime_now('%Q') }}", &["fails in line 1", "%Q"]),
        (endless, &["fails in line 1", "fuel"]),
        (doubling, &["fails in line 1", "fuel"]),
    ];
    for (template, expected) in cases {
        let folder = changed("qwen3_vl", &[("chat_template.jinja", Some(template))]);
        let chat = Chat::from_folder(folder.path()).unwrap();
        let error = chat.render(&user("x"), &RenderOptions::default()).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{expected:?} in\n{error}");
        assert!(error.contains("chat_template.jinja") && error.contains("\n\nhint: "), "{error}");
    }
    let error = chat("qwen3").render(&[], &RenderOptions::default()).unwrap_err().to_string();
    assert!(error.contains("at least one message"), "{error}");
}

#[test]
fn a_conversation_of_a_million_characters_is_rendered() {
    for folder in FOLDERS {
        let chat = chat(folder);
        let turns = [Role::User, Role::Assistant].map(|role| Message::new(role, "word ".repeat(100)));
        for messages in [turns.into_iter().cycle().take(2_001).collect(), user(&"word ".repeat(200_000))] {
            let rendered = chat.render(&messages, &RenderOptions::default()).unwrap();
            assert!(rendered.text().len() >= 999_990, "{folder}");
        }
    }
}

#[test]
fn a_role_nobody_knows_is_refused_before_a_template_writes_it() {
    assert_eq!("assistant".parse::<Role>().unwrap(), Role::Assistant);
    for name in ["wizard", "", "User", "user\n", "user<|im_end|>"] {
        let error = name.parse::<Role>().unwrap_err().to_string();
        assert!(error.contains(&format!("got       `{name}`")) && error.contains("`assistant`"), "{error}");
    }
}

#[test]
fn of_several_templates_the_one_transformers_takes_is_taken() {
    let [in_processor, in_json, in_config] =
        ["processor", "json", "config"].map(|name| json!({"chat_template": name}).to_string());
    let listed =
        json!({"chat_template": [{"name": "rag", "template": "rag"}, {"name": "default", "template": "list"}]});
    let mapped = json!({"chat_template": {"rag": "rag", "default": "map"}});
    let cases: [(&str, Files, &str); 8] = [
        (
            "qwen3_vl",
            &[
                ("processor_config.json", &in_processor),
                ("chat_template.json", &in_json),
                ("chat_template.jinja", "jinja"),
            ],
            "processor",
        ),
        ("qwen3_vl", &[("chat_template.json", &in_json), ("chat_template.jinja", "jinja")], "json"),
        ("qwen3_vl", &[("chat_template.jinja", "jinja"), ("tokenizer_config.json", &in_config)], "jinja"),
        (
            "qwen3_vl",
            &[("processor_config.json", "{\"chat_template\": null}"), ("chat_template.jinja", "jinja")],
            "jinja",
        ),
        ("qwen3", &[("chat_template.jinja", "jinja"), ("chat_template.json", &in_json)], "jinja"),
        ("qwen3", &[("chat_template.json", &in_json), ("tokenizer_config.json", &in_config)], "config"),
        ("qwen3", &[("tokenizer_config.json", &listed.to_string())], "list"),
        ("qwen3", &[("tokenizer_config.json", &mapped.to_string())], "map"),
    ];
    for (name, files, expected) in cases {
        let changes: Vec<(&str, Option<&str>)> = files.iter().map(|(file, text)| (*file, Some(*text))).collect();
        let chat = Chat::from_folder(changed(name, &changes).path()).unwrap();
        assert_eq!(chat.render(&user("x"), &RenderOptions::default()).unwrap().text(), expected);
    }
    let text = edited("qwen3", "tokenizer_config.json", "\"chat_template\"", "\"was\"");
    let last =
        changed("qwen3", &[("tokenizer_config.json", Some(&text)), ("processor_config.json", Some(&in_processor))]);
    let chat = Chat::from_folder(last.path()).unwrap();
    assert_eq!(chat.render(&user("x"), &RenderOptions::default()).unwrap().text(), "processor");
}

#[test]
fn what_templates_use_of_jinja_and_python_is_rendered_as_transformers_renders_it() {
    let file: Json = serde_json::from_str(&fs::read_to_string(fixture("templates.json")).unwrap()).unwrap();
    let options = RenderOptions {
        add_generation_prompt: false,
        variables: serde_json::from_value(file["variables"].clone()).unwrap(),
        now: Some(UNIX_EPOCH + Duration::from_secs(file["now"].as_u64().unwrap())),
    };
    let messages: Vec<Message> = file["messages"].as_array().unwrap().iter().map(message).collect();
    let mut different = Vec::new();
    for one in file["templates"].as_array().unwrap() {
        let [template, expected] = ["template", "text"].map(|key| one[key].as_str().unwrap());
        let folder = changed("qwen3", &[("chat_template.jinja", Some(template))]);
        let rendered = Chat::from_folder(folder.path()).and_then(|chat| chat.render(&messages, &options));
        let text = rendered.map_or_else(|error| error.to_string(), |rendered| rendered.text());
        if text != expected {
            different.push(format!("{template:?}\n  expected {expected:?}\n  got {text:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn tokens_of_the_older_files_are_read() {
    let without = edited("smolvlm", "tokenizer_config.json", "\"added_tokens_decoder\"", "\"was\"");
    let map = json!({"eos_token": {"content": "<|im_end|>", "lstrip": false}, "image_token": "<image>"}).to_string();
    let added = json!({"<image>": 492, "<new>": 495}).to_string();
    let id = chat("smolvlm").tokenizer().id("<image>").unwrap();
    let added = added.replace("492", &id.to_string());
    let size = chat("smolvlm").tokenizer().vocab_size();
    let added = added.replace("495", &size.to_string());
    let files = [
        ("tokenizer_config.json", Some(without.as_str())),
        ("special_tokens_map.json", Some(map.as_str())),
        ("added_tokens.json", Some(added.as_str())),
    ];
    let chat = Chat::from_folder(changed("smolvlm", &files).path()).unwrap();
    let tokenizer = chat.tokenizer();
    assert_eq!(tokenizer.named("eos_token"), Some("<|im_end|>"));
    assert_eq!(tokenizer.named("bos_token"), Some("<|im_start|>"));
    assert_eq!((tokenizer.id("<new>"), tokenizer.encode("<new>").unwrap()), (Some(size as u32), vec![size as u32]));
    // With `added_tokens_decoder` the older files are not asked.
    let kept = Chat::from_folder(changed("smolvlm", &files[1..]).path()).unwrap();
    assert_eq!((kept.tokenizer().named("eos_token"), kept.tokenizer().id("<new>")), (Some("<end_of_utterance>"), None));
}

#[test]
fn a_tokenizer_that_makes_control_tokens_of_plain_text_is_found_out() {
    // `<|im_end|>` is a word of the model, and nothing cuts it or keeps the model from taking words whole.
    let file = fs::read_to_string(fixture("smolvlm").join("tokenizer.json")).unwrap();
    let mut file: Json = serde_json::from_str(&file).unwrap();
    file["model"]["ignore_merges"] = Json::from(true);
    let lines = json!({"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [lines, bytes]});
    let folder = changed("smolvlm", &[("tokenizer.json", Some(&file.to_string()))]);
    let chat = Chat::from_folder(folder.path()).unwrap();
    let rendered = chat.render(&user("<|im_end|>"), &RenderOptions::default()).unwrap();
    let error = chat.encode(&rendered, &[]).unwrap_err().to_string();
    assert!(error.contains("control tokens of plain text"), "{error}");
}

#[test]
fn sampling_settings_are_those_transformers_reads() {
    for folder in FOLDERS {
        let found = Generation::from_folder(&fixture(folder)).unwrap();
        assert_eq!(&found, chat(folder).generation());
        let expected = &golden(folder)["generation"];
        if expected.is_null() {
            // No generation_config.json: from config.json.
            let tokenizer = chat(folder).tokenizer;
            assert_eq!(
                (found.eos, found.bos),
                (vec![tokenizer.id("<|im_end|>").unwrap()], tokenizer.id("<|endoftext|>"))
            );
            continue;
        }
        let eos = &expected["eos_token_id"];
        assert_eq!(
            found.eos,
            if eos.is_array() { numbers(eos) } else { vec![eos.as_u64().unwrap() as u32] },
            "{folder}"
        );
        assert_eq!(found.pad.map(u64::from), expected["pad_token_id"].as_u64(), "{folder}");
        assert_eq!(found.do_sample, expected["do_sample"].as_bool().unwrap_or(false), "{folder}");
        let numbers = [found.temperature, found.top_p, found.top_k.map(f64::from), found.repetition_penalty];
        let names = ["temperature", "top_p", "top_k", "repetition_penalty"];
        assert_eq!(numbers, names.map(|name| expected[name].as_f64()), "{folder}");
    }
}

#[test]
fn generation_configs_are_read_strictly_where_they_are_read() {
    let config = r#"{"model_type": "qwen3_vl", "eos_token_id": null, "pad_token_id": 4, "text_config": {"eos_token_id": [5, 6]}}"#;
    let read = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        fs::write(folder.path().join("generation_config.json"), text).unwrap();
        Generation::from_folder(folder.path()).map_err(|error| error.to_string())
    };
    let silent = Generation { eos: vec![5, 6], pad: Some(4), ..Generation::default() };
    assert_eq!(read(r#"{"num_beams": "many", "cache": {}, "eos_token_id": null}"#).unwrap(), silent);
    let full =
        r#"{"eos_token_id": 7, "top_k": 0, "temperature": 1, "top_p": 1.0, "max_new_tokens": 9, "max_length": 99}"#;
    let found = read(full).unwrap();
    assert_eq!((found.eos, found.top_k, found.temperature, found.top_p), (vec![7], Some(0), Some(1.0), Some(1.0)));
    assert_eq!((found.max_new_tokens, found.max_length), (Some(9), Some(99)));
    let wrong = [
        (r#"{"eos_token_id": -1}"#, "eos_token_id", "-1"),
        (r#"{"eos_token_id": [1, null]}"#, "eos_token_id", "[1,null]"),
        (r#"{"eos_token_id": true}"#, "eos_token_id", "true"),
        (r#"{"pad_token_id": 4294967296}"#, "pad_token_id", "4294967296"),
        (r#"{"do_sample": 1}"#, "do_sample", "1"),
        (r#"{"temperature": -0.5}"#, "temperature", "-0.5"),
        (r#"{"top_p": 0}"#, "top_p", "0"),
        (r#"{"top_p": 1.5}"#, "top_p", "1.5"),
        (r#"{"top_k": 2.5}"#, "top_k", "2.5"),
        (r#"{"repetition_penalty": 0.0}"#, "repetition_penalty", "0.0"),
        (r#"{"max_new_tokens": "9"}"#, "max_new_tokens", "\"9\""),
    ];
    for (text, field, got) in wrong {
        let error = read(text).unwrap_err();
        let expected =
            [format!("unusable `{field}`"), format!("got       {got}\n"), "generation_config.json".to_owned()];
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
    assert!(read("{\"eos_token_id\": 7").unwrap_err().contains("unfinished download"));
}
