//! Run configs of pretrained models: what is refused, and that every file in `configs/` is none of that.

use super::Place;
use lare_train::Config;
use std::fs;
use std::path::Path;

#[test]
fn every_config_in_the_repository_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let config = Config::from_toml(&text, &path.display().to_string()).unwrap();
        assert!(config.total_steps() > 0 && text.starts_with("# "), "{}", path.display());
        assert_eq!(Config::from_toml(&config.to_toml().unwrap(), "again").unwrap(), config);
        read += 1;
    }
    assert!(read >= 7, "{read}");
}

#[test]
fn what_makes_no_sense_is_refused_by_field() {
    let refused = |old: &str, new: &str| {
        let text = include_str!("tiny.toml");
        assert!(text.contains(old), "{old}");
        Config::from_toml(&text.replacen(old, new, 1), "x.toml").unwrap_err().to_string()
    };
    let cases = [
        ("model = \"PLACE/base\"", "model = \"\"", "base.model"),
        ("patches = 4", "patches = 0", "refocus.patches"),
        ("rank = 4", "rank = 0", "lora.rank"),
        ("alpha = 8.0", "alpha = 0.0", "lora.alpha"),
        ("targets = [\"language.blocks.*\"]", "targets = []", "lora.targets"),
        ("tokens = 2", "tokens = 0", "semantic.tokens"),
        ("denoiser_width = 16", "denoiser_width = 15", "semantic.denoiser_width"),
        ("questions_per_picture = 1", "questions_per_picture = 2", "data.questions_per_picture"),
        ("passes_per_block = 1", "passes_per_block = 1\nmax_tokens = 0", "data.max_tokens"),
        ("objective = \"reason\"", "objective = \"read\"", "stages[0].objective"),
        ("name = 0.0 }", "name = 1.0 }", "stages[0].loss.name"),
        ("latent_steps = 2", "latent_steps = 5", "stages[0].latent_steps"),
        ("loss = {", "mix = [{ share = 1.0, looks = [1, 2], tasks = { read = 1.0 } }]\nloss = {", "stages[0].mix"),
    ];
    for (old, new, field) in cases {
        let message = refused(old, new);
        assert!(message.starts_with(&format!("`{field}` in x.toml is not usable")), "{new}: {message}");
        assert!(message.contains("expected  ") && message.contains("got  "), "{new}: {message}");
    }
    assert!(refused("rank = 4", "rnk = 4").contains("rnk"));
    assert!(refused("model = \"PLACE/base\"", "modle = \"x\"").contains("modle"));
    let whole = include_str!("tiny.toml");
    let without = |table: &str| {
        let mut config: toml::Table = toml::from_str(whole).unwrap();
        config.remove(table).unwrap();
        Config::from_toml(&toml::to_string(&config).unwrap(), "x.toml").map_err(|e| e.to_string())
    };
    assert!(without("base").unwrap_err().contains("`model` in x.toml"));
    assert!(without("refocus").unwrap_err().contains("`refocus` in x.toml"));
    assert!(without("semantic").unwrap_err().contains("stages[0].loss.align"));
    assert!(without("lora").is_ok());
    let both = format!("{}\n{}", include_str!("../tiny.toml"), "[base]\nmodel = \"x\"\n");
    let message = Config::from_toml(&both, "x.toml").unwrap_err().to_string();
    assert!(message.contains("`base` in x.toml"), "{message}");
}

#[test]
fn a_pattern_or_prefix_that_fits_nothing_is_refused_by_name() {
    let place = Place::new("smolvlm");
    let mut config = place.config();
    config.lora.as_mut().unwrap().targets.push("q_proj".into());
    let message = place.run(&config, "run", &mut super::Heard::default()).unwrap_err().to_string();
    assert!(message.contains("q_proj"), "{message}");
    let mut config = place.config();
    config.stages[0].train.push("visual.".into());
    let message = place.run(&config, "run", &mut super::Heard::default()).unwrap_err().to_string();
    assert!(message.contains("visual.") && message.contains("train of stage `warm-up`"), "{message}");
}
