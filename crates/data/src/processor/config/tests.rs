use super::*;

fn with(class: &str, fields: &str) -> Result<Processor> {
    let comma = if fields.is_empty() { "" } else { ", " };
    parse(&format!(r#"{{"image_processor_type": "{class}"{comma}{fields}}}"#), "m/preprocessor_config.json")
}

const QWEN_CLASS: &str = "Qwen2VLImageProcessor";
const SMOLVLM_CLASS: &str = "SmolVLMImageProcessor";

fn qwen(fields: &str) -> Qwen {
    match with(QWEN_CLASS, fields).unwrap().family {
        Family::Qwen(qwen) => qwen,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_left_out_has_the_default_of_its_class() {
    let expected =
        Qwen { patch_size: 14, merge_size: 2, temporal_patch_size: 2, min_pixels: 3136, max_pixels: 1_003_520 };
    for class in ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast"] {
        let processor = with(class, "").unwrap();
        assert_eq!(processor.family, Family::Qwen(expected.clone()));
        assert_eq!(processor.filter, Filter::Bicubic);
    }
    for name in ["SmolVLM", "Idefics3"] {
        for fast in ["", "Fast"] {
            let processor = with(&format!("{name}ImageProcessor{fast}"), "").unwrap();
            assert_eq!(processor.family, Family::SmolVlm(SmolVlm { longest_px: 1456, tile_px: 364, split: true }));
            assert_eq!(processor.filter, Filter::Lanczos);
        }
    }
    assert_eq!(qwen(r#""size": null, "patch_size": null, "do_resize": null, "do_center_crop": null"#), expected);
}

#[test]
fn levels_are_normalised_as_the_reference_does_it() {
    // What transformers makes of levels 0 and 255 of each channel.
    let clip = with(QWEN_CLASS, "").unwrap().levels.0;
    let expected = [(-1.7922626, 1.9303362), (-1.752097, 2.0748835), (-1.4802198, 2.1458972)];
    for (channel, (black, white)) in clip.iter().zip(expected) {
        assert_eq!((channel[0], channel[255]), (black, white));
    }
    let half = with(SMOLVLM_CLASS, "").unwrap().levels.0;
    assert_eq!((half[0][0], half[1][255], half[2][51]), (-1.0, 1.0, -0.6));
    let given = r#""image_mean": [0, 0.5, 1], "image_std": [1, 2, 4], "rescale_factor": 0.5"#;
    let given = with(QWEN_CLASS, given).unwrap().levels.0;
    assert_eq!((given[0][10], given[1][3], given[2][4]), (5.0, 0.5, 0.25));
}

#[test]
fn limits_on_pixels_may_stand_in_two_places() {
    let limits = |fields: &str| {
        let qwen = qwen(fields);
        (qwen.min_pixels, qwen.max_pixels)
    };
    let both = r#""size": {"shortest_edge": 10, "longest_edge": 20}"#;
    assert_eq!(limits(both), (10, 20));
    assert_eq!(limits(r#""min_pixels": 7, "max_pixels": 9"#), (7, 9));
    assert_eq!(limits(r#""max_pixels": 4000"#), (3136, 4000));
    assert_eq!(limits(&format!(r#"{both}, "max_pixels": 15"#)), (10, 15));
    // As Qwen2-VL was saved by some releases.
    let old = r#""size": {"min_pixels": 1, "max_pixels": 2}, "min_pixels": 7, "max_pixels": 9"#;
    assert_eq!(limits(old), (7, 9));
}

#[test]
fn files_with_what_the_reference_does_not_read_are_read() {
    let saved = r#""processor_class": "X", "crop_size": null, "data_format": "channels_first", "default_to_square": true,
        "device": null, "disable_grouping": null, "do_center_crop": null, "do_pad": null, "return_tensors": null,
        "input_data_format": null, "max_pixels": null, "min_pixels": null, "pad_size": null, "do_convert_rgb": true,
        "resample": 3, "size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16"#;
    assert_eq!(qwen(saved).patch_size, 16);
    let smolvlm = r#""video_sampling": {"fps": 1}, "do_pad": true, "resample": 3, "do_image_splitting": false"#;
    let processor = with(SMOLVLM_CLASS, smolvlm).unwrap();
    assert_eq!(processor.filter, Filter::Bicubic);
    assert_eq!(processor.family, Family::SmolVlm(SmolVlm { longest_px: 1456, tile_px: 364, split: false }));
}

#[test]
fn what_would_be_computed_otherwise_is_refused_with_field_and_value() {
    // Class, fields, the field that is named, and what is said to be there.
    let cases = [
        (QWEN_CLASS, r#""do_rescale": false"#, "do_rescale", "false"),
        (QWEN_CLASS, r#""do_normalize": false"#, "do_normalize", "false"),
        (QWEN_CLASS, r#""do_resize": false"#, "do_resize", "false"),
        (QWEN_CLASS, r#""do_resize": 1"#, "do_resize", "1"),
        (QWEN_CLASS, r#""do_convert_rgb": false"#, "do_convert_rgb", "false"),
        (QWEN_CLASS, r#""do_center_crop": true"#, "do_center_crop", "true"),
        (QWEN_CLASS, r#""do_image_splitting": true"#, "do_image_splitting", "true"),
        (QWEN_CLASS, r#""do_pad": true"#, "do_pad", "true"),
        (SMOLVLM_CLASS, r#""do_pad": false"#, "do_pad", "false"),
        (SMOLVLM_CLASS, r#""do_image_splitting": "yes""#, "do_image_splitting", "\"yes\""),
        (QWEN_CLASS, r#""resample": 2"#, "resample", "2"),
        (QWEN_CLASS, r#""resample": "bicubic""#, "resample", "\"bicubic\""),
        (QWEN_CLASS, r#""resample": 3.5"#, "resample", "3.5"),
        (QWEN_CLASS, r#""resample": true"#, "resample", "true"),
        (QWEN_CLASS, r#""patch_size": 0"#, "patch_size", "0"),
        (QWEN_CLASS, r#""patch_size": -14"#, "patch_size", "-14"),
        (QWEN_CLASS, r#""patch_size": 14.0"#, "patch_size", "14.0"),
        (QWEN_CLASS, r#""patch_size": {"height": 14, "width": 14}"#, "patch_size", "{\"height\":14,\"width\":14}"),
        (QWEN_CLASS, r#""merge_size": 18446744073709551616"#, "merge_size", "1.8446744073709552e+19"),
        (QWEN_CLASS, r#""temporal_patch_size": 5000"#, "temporal_patch_size", "5000"),
        (QWEN_CLASS, r#""size": 224"#, "size", "224"),
        (QWEN_CLASS, r#""size": {}"#, "size", "{}"),
        (QWEN_CLASS, r#""size": {"height": 9, "width": 9}"#, "size", "{\"height\":9,\"width\":9}"),
        (QWEN_CLASS, r#""size": {"longest_edge": 9}"#, "size", "{\"longest_edge\":9}"),
        (QWEN_CLASS, r#""size": {"max_pixels": 9, "min_pixels": 1}"#, "size", "{\"max_pixels\":9,\"min_pixels\":1}"),
        (QWEN_CLASS, r#""size": {"shortest_edge": 0, "longest_edge": 9}"#, "size.shortest_edge", "0"),
        (QWEN_CLASS, r#""min_pixels": 9, "max_pixels": 8"#, "size", "at least 9 and at most 8 pixels"),
        (QWEN_CLASS, r#""max_pixels": "9""#, "size.longest_edge", "\"9\""),
        (SMOLVLM_CLASS, r#""size": {"height": 9, "width": 9}"#, "size", "{\"height\":9,\"width\":9}"),
        (SMOLVLM_CLASS, r#""size": {"shortest_edge": 9}"#, "size", "{\"shortest_edge\":9}"),
        (SMOLVLM_CLASS, r#""size": {"longest_edge": null}"#, "size", "{\"longest_edge\":null}"),
        (SMOLVLM_CLASS, r#""max_image_size": 364"#, "max_image_size", "364"),
        (SMOLVLM_CLASS, r#""max_image_size": {"longest_edge": 5000}"#, "max_image_size.longest_edge", "5000"),
        (QWEN_CLASS, r#""image_mean": 0.5"#, "image_mean", "0.5"),
        (QWEN_CLASS, r#""image_mean": [0.5, 0.5]"#, "image_mean", "[0.5,0.5]"),
        (QWEN_CLASS, r#""image_std": [0.5, 0.5, "0.5"]"#, "image_std", "[0.5,0.5,\"0.5\"]"),
        (QWEN_CLASS, r#""rescale_factor": 0"#, "rescale_factor", "0"),
        (QWEN_CLASS, r#""rescale_factor": "1/255""#, "rescale_factor", "\"1/255\""),
    ];
    for (class, fields, name, value) in cases {
        match with(class, fields) {
            Err(ProcessorError::Field { file, field, got, .. }) => {
                assert_eq!((&field[..], &got[..]), (name, value), "{fields}");
                assert_eq!(file, "m/preprocessor_config.json");
            }
            other => panic!("{fields}: {other:?}"),
        }
    }
    for std in ["[0, 1, 1]", "[1, -1, 1]", "[1, 1, 1e-300]", "[1, 1, 1e300]"] {
        let error = with(QWEN_CLASS, &format!(r#""image_std": {std}"#)).unwrap_err();
        assert!(matches!(&error, ProcessorError::Field { field, .. } if field == "image_std"), "{std}: {error}");
    }
    assert!(with(QWEN_CLASS, r#""rescale_factor": 1e-60"#).is_err());
}

#[test]
fn what_is_no_image_processor_is_refused() {
    let long = format!(r#""{}""#, "é".repeat(100));
    for text in ["", "{", "[]", "null", &long, r#"{"image_mean": [NaN, 0, 0]}"#, "\u{feff}{}"] {
        assert!(matches!(parse(text, "a.json"), Err(ProcessorError::Json { .. })), "{text}");
    }
    let early = r#"{"image_processor_type": "Qwen2_5_VLImageProcessor"}"#;
    for text in ["{}", r#"{"image_processor_type": 3}"#, r#"{"image_processor_type": "CLIPImageProcessor"}"#, early] {
        let error = parse(text, "a.json").unwrap_err();
        assert!(matches!(&error, ProcessorError::Field { field, .. } if field == CLASS), "{text}: {error}");
    }
    let deep = "[".repeat(100_000);
    assert!(parse(&deep, "a.json").is_err());
}

#[test]
fn messages_give_file_expected_got_and_the_way_out() {
    assert_eq!(
        with(SMOLVLM_CLASS, r#""do_pad": false"#).unwrap_err().to_string(),
        "`do_pad` of the image processor is not supported\n  file      m/preprocessor_config.json\n  expected  true\n  got       false\n\nhint: pictures are prepared in no other way here; use a model that was trained in this one"
    );
    assert_eq!(
        parse("[1]", "m/a.json").unwrap_err().to_string(),
        "`m/a.json` is not the config of an image processor\n  expected  a JSON object\n  got       [1]\n\nhint: fetch the file again"
    );
}

#[test]
fn the_nested_object_of_processor_config_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, ProcessorError::Missing { got: "neither", .. }), "{error}");

    write("processor_config.json", r#"{"processor_class": "Qwen2_5_VLProcessor"}"#);
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, ProcessorError::Missing { got: "processor_config.json without it", .. }), "{error}");

    write("preprocessor_config.json", r#"{"image_processor_type": "Qwen2VLImageProcessor"}"#);
    assert!(matches!(open(folder.path()).unwrap().family, Family::Qwen(_)));

    let nested =
        r#"{"image_processor": {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 64}}}"#;
    write("processor_config.json", nested);
    let Family::SmolVlm(smolvlm) = open(folder.path()).unwrap().family else { panic!() };
    assert_eq!(smolvlm.longest_px, 64);

    let wrong = r#"{"image_processor": {"image_processor_type": "SmolVLMImageProcessor", "do_pad": false}}"#;
    assert!(
        matches!(parse(wrong, "a.json"), Err(ProcessorError::Field { field, .. }) if field == "image_processor.do_pad")
    );
    let both = r#"{"image_processor": {}, "image_processor_type": "Qwen2VLImageProcessor"}"#;
    assert!(matches!(parse(both, "a.json"), Err(ProcessorError::Field { field, .. }) if field == NESTED));
}
