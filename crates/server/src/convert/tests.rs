use super::*;
use serde_json::{Value, json};

fn about() -> About {
    About { name: "nano".into(), max_steps: 8, pictures: 2, can_draw: true, answer_tokens: None }
}

fn asked(body: Value) -> Result<Asked, Problem> {
    asked_of(&about(), body)
}

fn asked_of(about: &About, body: Value) -> Result<Asked, Problem> {
    let limits = Limits { tokens: 100, steps: 6, ..Limits::default() };
    let (request, _) = read(body.to_string().as_bytes())?;
    understand(request, "lare-nano", about, &limits)
}

fn with(fields: Value) -> Value {
    let mut body = json!({ "model": "lare-nano", "messages": [{ "role": "user", "content": "a" }] });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn a_conversation_keeps_its_order() {
    let picture = |url: &str| json!({ "type": "image_url", "image_url": { "url": url, "detail": "low" } });
    let asked = asked(json!({ "messages": [
        { "role": "system", "content": "s" },
        { "role": "user", "content": [picture("one"), { "type": "text", "text": "t" }, picture("two")] },
        { "role": "assistant", "content": null },
        { "role": "developer", "content": [] },
    ]}));
    let asked = asked.unwrap();
    let roles: Vec<Role> = asked.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::System]);
    let parts = vec![Part::Picture, Part::Text("t".into()), Part::Picture];
    assert_eq!(asked.messages[1].content, Content::Parts(parts));
    let place = |at: usize, url: &str| (format!("messages[1].content[{at}].image_url.url"), url.to_owned());
    assert_eq!(asked.pictures, [place(0, "one"), place(2, "two")]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let asked = asked(with(json!({}))).unwrap();
    assert_eq!(asked.options, Options { max_tokens: 100, nearest_words: 0, ..Options::default() });
    assert_eq!((asked.wanted, asked.replace, asked.stop), (Wanted::default(), None, Vec::new()));
}

#[test]
fn more_tokens_than_there_may_be_are_cut_and_the_new_name_wins() {
    let tokens = |fields| asked(with(fields)).unwrap().options.max_tokens;
    assert_eq!(tokens(json!({ "max_tokens": 32768 })), 100);
    assert_eq!(tokens(json!({ "max_tokens": 7 })), 7);
    assert_eq!(tokens(json!({ "max_tokens": 7, "max_completion_tokens": 9 })), 9);
    assert_eq!(tokens(json!({ "max_completion_tokens": u64::MAX })), 100);
}

#[test]
fn a_model_says_how_long_its_answers_are_where_nobody_asks() {
    let tokens =
        |answer_tokens, fields| asked_of(&About { answer_tokens, ..about() }, with(fields)).unwrap().options.max_tokens;
    assert_eq!([tokens(Some(30), json!({})), tokens(Some(3000), json!({})), tokens(Some(0), json!({}))], [30, 100, 1]);
    assert_eq!(tokens(Some(30), json!({ "max_tokens": 40 })), 40);
}

#[test]
fn of_a_model_without_latent_steps_none_are_traced_or_replaced() {
    let plain = About { max_steps: 0, can_draw: false, ..about() };
    let refused = |lare: Value| asked_of(&plain, with(json!({ "lare": lare }))).unwrap_err();
    for (lare, field) in [
        (json!({ "trace": true }), "lare.trace"),
        (json!({ "trace": true, "drawings": true }), "lare.drawings"),
        (json!({ "intervention": "noise" }), "lare.intervention"),
    ] {
        let problem = refused(lare);
        assert_eq!((problem.status.as_u16(), problem.param.as_deref()), (400, Some(field)));
    }
    assert!(asked_of(&plain, with(json!({ "lare": { "steps": "auto", "trace": false } }))).is_ok());
}

#[test]
fn sampling_is_taken_as_given() {
    let sampling = |fields| asked(with(fields)).unwrap().options.sampling;
    let given = sampling(json!({ "temperature": 0.5, "top_p": 0.9, "seed": 7 }));
    assert_eq!(given, Sampling { temperature: 0.5, top_p: 0.9, seed: 7 });
    assert_eq!(sampling(json!({ "seed": -1 })).seed, u64::MAX);
    assert!(sampling(json!({ "top_p": 0 })).top_p > 0.0);
}

#[test]
fn our_own_fields_are_read() {
    let lare = |lare: Value| asked(with(json!({ "lare": lare })));
    assert_eq!(lare(json!({ "steps": 3 })).unwrap().options.steps, Steps::Fixed(3));
    let auto = lare(json!({ "steps": "auto", "halt_threshold": 0.25 })).unwrap();
    assert_eq!(auto.options.steps, Steps::Auto { threshold: 0.25 });
    let names = ["zero", "noise", "repeat-first", "markers-only", "random-patches"];
    let replaced = names.map(|name| lare(json!({ "intervention": name })).unwrap().replace.unwrap());
    let expected = [
        Replacement::Zero,
        Replacement::Noise { seed: 0 },
        Replacement::RepeatFirst,
        Replacement::MarkersOnly,
        Replacement::RandomPatches { seed: 0 },
    ];
    assert_eq!(replaced, expected);
    let wanted = lare(json!({ "trace": true, "drawings": true })).unwrap().wanted;
    assert!(wanted.looks && wanted.drawings);
}

#[test]
fn stop_is_a_text_or_up_to_four() {
    let stop = |stop: Value| asked(with(json!({ "stop": stop })));
    assert_eq!(stop(json!("a")).unwrap().stop, ["a"]);
    assert_eq!(stop(json!(["a", "b", "c", "d"])).unwrap().stop.len(), 4);
    assert_eq!(stop(json!(null)).unwrap().stop.len(), 0);
}

#[test]
fn fields_of_lare_that_are_not_known_are_refused_with_those_that_are() {
    let refused = asked(with(json!({ "lare": { "replace": "noise" } }))).unwrap_err().message;
    assert!(["lare.replace", "intervention", "halt_threshold"].iter().all(|word| refused.contains(word)), "{refused}");
}

#[test]
fn unknown_fields_are_ignored_and_named() {
    let body = json!({
        "messages": [{ "role": "user", "content": "a", "name": "x" }],
        "logit_bias": {}
    });
    let (_, unknown) = read(body.to_string().as_bytes()).unwrap();
    let mut unknown = unknown;
    unknown.sort();
    assert_eq!(unknown, ["logit_bias", "messages.?.0.name"].map(str::to_owned));
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let part = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
    let many: Vec<Value> = (0..3).map(|_| json!({ "type": "image_url", "image_url": "u" })).collect();
    let cases = [
        json!({}),
        json!({ "messages": [] }),
        json!({ "messages": [{ "role": "tool", "content": "a" }] }),
        json!({ "messages": [{ "role": "user", "content": null }] }),
        json!({ "messages": [{ "role": "user", "content": many }] }),
        part(json!({ "type": "text" })),
        part(json!({ "type": "image_url" })),
        part(json!({ "type": "video_url" })),
        part(json!({ "text": "a" })),
        with(json!({ "model": "gpt" })),
        with(json!({ "n": 2 })),
        with(json!({ "max_tokens": 0 })),
        with(json!({ "max_completion_tokens": 0 })),
        with(json!({ "max_tokens": 1.5 })),
        with(json!({ "temperature": "0" })),
        with(json!({ "stop": ["a", "b", "c", "d", "e"] })),
        with(json!({ "stop": "" })),
        with(json!({ "stream": "yes" })),
        with(json!({ "lare": { "steps": 7 } })),
        with(json!({ "lare": { "steps": 2, "halt_threshold": 0.5 } })),
        with(json!({ "lare": { "drawings": true } })),
        with(json!({ "lare": { "intervention": "none" } })),
        json!([]),
    ];
    let told = cases.into_iter().map(|case| {
        let problem = asked(case).unwrap_err();
        format!("{} {}: {}", problem.status.as_u16(), problem.param.unwrap_or("-".into()), problem.message)
    });
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_is_no_json_is_said_to_be_none() {
    for body in ["", "{", "{}x", "nonsense", "\u{feff}{}", "{\"messages\": [}"] {
        let problem = read(body.as_bytes()).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_json"), "{body}");
    }
    assert_eq!(read(&[0xff, 0xfe]).unwrap_err().code, "invalid_json");
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(deep.as_bytes()).unwrap().1, ["x"], "what is not known is not read, however deep");
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(deep.as_bytes()).unwrap_err().status, 400);
}

#[test]
fn the_engines_refusals_have_the_wires_names() {
    let bad = |field| refused(Refusal::Bad { field, reason: "a\n  got 1".into() });
    assert_eq!(bad("steps").param.as_deref(), Some("lare.steps"));
    assert_eq!(bad("top-p").param.as_deref(), Some("top_p"));
    assert_eq!(bad("messages").message, "a; got 1");
    assert_eq!(refused(Refusal::Full { waiting: 3 }).status, 429);
    assert_eq!(refused(Refusal::Closing).status, 503);
}
