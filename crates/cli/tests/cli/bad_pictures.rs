//! Pictures that cannot be used, and those that look as if they could not.

use crate::support::{Place, animated_gif, jpeg, png, png_16_bit, png_that_claims, rotated_jpeg};

/// Asks about a picture, expects a refusal that leaves nothing behind, and gives its text.
fn refusal(name: &str, bytes: Option<&[u8]>) -> String {
    let place = Place::new();
    let before: Vec<String> = bytes.map(|bytes| place.file(name, bytes)).into_iter().collect();
    let ran = place.run(&["ask", name, "Where is the cat?", "--trace", "trace"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name}: {}", ran.err);
    assert_eq!(place.names(), before, "{name}");
    ran.err
}

#[test]
fn a_picture_that_cannot_be_used_is_named_with_the_way_out() {
    let (whole_png, whole_jpeg) = (png(64, 48), jpeg(64, 48));
    let refusals = [
        refusal("missing.png", None),
        refusal("text.png", Some(b"this is not a picture")),
        refusal("empty.png", Some(b"")),
        refusal("cut.png", Some(&whole_png[..whole_png.len() / 2])),
        refusal("cut.jpg", Some(&whole_jpeg[..whole_jpeg.len() * 2 / 3])),
        refusal("huge.png", Some(&png_that_claims(20_000, 20_000))),
        refusal("bomb.png", Some(&png_that_claims(16_000, 16_000))),
        refusal("nothing.png", Some(&png_that_claims(0, 10))),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

/// Asks about a picture and gives its size as the model's user sees it, and what was done to it.
fn accepted(name: &str, bytes: &[u8]) -> (u64, u64, Vec<String>) {
    let place = Place::new();
    place.file(name, bytes);
    let ran =
        place.run(&["ask", name, "Where is the cat?", "--steps", "1", "--max-tokens", "2", "--json", "--no-looks"]);
    assert_eq!(ran.code, 0, "{name}: {}", ran.err);
    let picture = ran.json()["picture"].clone();
    let notes: Vec<String> = serde_json::from_value(picture["notes"].clone()).unwrap();
    let warnings: Vec<serde_json::Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warned = |note: &str| warnings.iter().any(|w| w["warning"].as_str().is_some_and(|text| text.ends_with(note)));
    for note in &notes {
        assert!(warned(note), "{name}: {} lacks {note}", ran.err);
    }
    (picture["width"].as_u64().unwrap(), picture["height"].as_u64().unwrap(), notes)
}

#[test]
fn unusual_pictures_are_read_and_what_was_done_is_said() {
    let tiny = "1 x 1 pixels: too small to show anything; the answer is a guess";
    assert_eq!(accepted("pixel.png", &png(1, 1)), (1, 1, vec![tiny.to_owned()]));
    assert_eq!(accepted("deep.png", &png_16_bit(64, 48)), (64, 48, vec![]));
    // Made by PIL: Image.new("CMYK", (16, 16), (0, 200, 200, 0)).save("cmyk.jpg", quality=60)
    assert_eq!(accepted("cmyk.jpg", include_bytes!("cmyk.jpg")), (16, 16, vec![]));
    let (width, height, notes) = accepted("turned.jpg", &rotated_jpeg(64, 48));
    assert_eq!((width, height), (48, 64));
    assert!(notes[0].contains("EXIF"), "{notes:?}");
    let (_, _, notes) = accepted("moving.gif", &animated_gif());
    assert!(notes.iter().any(|note| note.contains("only the first frame")), "{notes:?}");
}
