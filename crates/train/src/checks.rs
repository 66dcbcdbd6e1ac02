//! What a run config must hold beyond its form.

use crate::config::{Config, LossWeights, Mix, Objective, Stage};
use crate::{Error, Result};
use lare_model::config::Scorer;

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

impl LossWeights {
    /// Terms by name.
    fn all(&self) -> [(&'static str, f64); 7] {
        let Self { answer, align, rec, focus, halt, read, name } = *self;
        [
            ("answer", answer),
            ("align", align),
            ("rec", rec),
            ("focus", focus),
            ("halt", halt),
            ("read", read),
            ("name", name),
        ]
    }

    /// Refuses weights that are none, and a stage without a term to train on: the term, what is expected, and the weight.
    fn validate(&self, objective: Objective) -> std::result::Result<(), (&'static str, &'static str, f64)> {
        let all = self.all();
        if let Some((term, weight)) = all.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
            return Err((term, "0 or more", weight));
        }
        let (term, weight) = match objective {
            Objective::Read => ("read", self.read),
            Objective::Halt => ("halt", self.halt),
            Objective::Reason => ("answer", all.iter().map(|(_, weight)| weight).sum()),
        };
        match weight > 0.0 {
            true => Ok(()),
            false => Err((term, "above 0: the stage would train nothing", weight)),
        }
    }
}

impl Config {
    /// Refuses what cannot be run. `file` names the config.
    ///
    /// # Errors
    /// [`Error::Config`] with the field, what would be accepted and what stands there.
    pub(crate) fn check(&self, file: &str) -> Result<()> {
        self.check_model(file)?;
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        let counts = [
            ("checkpoint_every_steps", self.checkpoint_every_steps),
            ("log_every_steps", self.log_every_steps),
            ("validate_every_steps", self.validate_every_steps),
            ("data.questions_per_picture", self.data.questions_per_picture),
            ("data.batches_per_block", self.data.batches_per_block),
            ("data.passes_per_block", self.data.passes_per_block),
            ("stages", self.stages.len()),
        ];
        for (field, count) in counts {
            if count == 0 {
                return fail(field.into(), "at least 1", count.to_string());
            }
        }
        self.validate_numbers(file)?;
        self.check_files(file)?;
        self.stages.iter().enumerate().try_for_each(|(i, stage)| self.validate_stage(i, stage, file))
    }

    fn validate_numbers(&self, file: &str) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        let plain = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
        };
        if !plain(&self.name) {
            return fail("name".into(), "letters, digits, `.`, `_`, `-`: it names a folder", self.name.clone());
        }
        let o = &self.optimizer;
        let decay = |x: f64| (0.0..1.0).contains(&x);
        let numbers = [
            ("beta1", o.beta1, decay(o.beta1), "0 to below 1"),
            ("beta2", o.beta2, decay(o.beta2), "0 to below 1"),
            ("ema_decay", o.ema_decay, decay(o.ema_decay), "0 to below 1"),
            ("eps", o.eps, positive(o.eps), "above 0"),
            ("clip_norm", o.clip_norm, positive(o.clip_norm), "above 0"),
            ("weight_decay", o.weight_decay, o.weight_decay.is_finite() && o.weight_decay >= 0.0, "0 or more"),
        ];
        for (name, value, fits, expected) in numbers {
            if !fits {
                return fail(format!("optimizer.{name}"), expected, value.to_string());
            }
        }
        Ok(())
    }

    fn validate_stage(&self, i: usize, stage: &Stage, file: &str) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        if !positive(stage.rate) {
            return fail(format!("stages[{i}].rate"), "above 0", stage.rate.to_string());
        }
        stage
            .loss
            .validate(stage.objective)
            .or_else(|(term, expected, got)| fail(format!("stages[{i}].loss.{term}"), expected, got.to_string()))?;
        let refocus = self.latent_step()?;
        let most = refocus.max_steps;
        let field = |name: &str| format!("stages[{i}].{name}");
        if stage.latent_steps > most {
            return fail(field("latent_steps"), "at most refocus.max_steps", stage.latent_steps.to_string());
        }
        // A pretrained model says what it was taught to say; the nano model has a form for it.
        if stage.say_rest && self.model.as_ref().is_some_and(|model| !model.language.says_steps) {
            let expected = "false, or a model with model.language.says_steps = true: another never says a step";
            return fail(field("say_rest"), expected, "true".into());
        }
        if stage.loss.focus > 0.0 && !refocus.thinking.looks() && refocus.scorer == Scorer::DotProduct {
            let expected = "0: refocus.thinking is of a kind that does not look, and refocus.scorer is no attention";
            return fail(field("loss.focus"), expected, stage.loss.focus.to_string());
        }
        let counts = [
            ("steps", stage.steps),
            ("accumulate", stage.accumulate),
            ("pictures_per_batch", stage.pictures_per_batch),
        ];
        for (name, count) in counts {
            if count == 0 {
                return fail(field(name), "at least 1", "0".into());
            }
        }
        self.check_pretrained_stage(stage, file, &field)?;
        if self.data.files.is_empty() { self.check_mix(stage, file, &field) } else { Ok(()) }
    }

    fn check_mix(&self, stage: &Stage, file: &str, field: &dyn Fn(&str) -> String) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        let most = self.latent_step()?.max_steps;
        let usable = |m: &Mix| m.share > 0.0 && (!m.tasks.is_empty() || stage.objective == Objective::Read);
        if stage.mix.is_empty() || !stage.mix.iter().all(usable) {
            let expected =
                "at least one kind of batch, each with a share above 0 and tasks (none: pages, only to read)";
            return fail(field("mix"), expected, format!("{} kinds", stage.mix.len()));
        }
        let rows = stage.pictures_per_batch * self.data.questions_per_picture;
        let uneven = |questions: &usize| !rows.is_multiple_of(*questions);
        if let Some(questions) = stage.mix.iter().filter_map(|m| m.questions_per_picture).find(uneven) {
            let expected = format!("a divisor of the {rows} questions of a batch");
            return fail(field("mix.questions_per_picture"), &expected, questions.to_string());
        }
        if let Some(mix) = stage.mix.iter().find(|m| m.looks[0] < 1 || m.looks[1] < m.looks[0] || m.looks[1] > most) {
            return fail(field("mix.looks"), "1 <= fewest <= most <= refocus.max_steps", format!("{:?}", mix.looks));
        }
        Ok(())
    }

    /// Which kind of model is trained, and that all there is belongs to it.
    fn check_model(&self, file: &str) -> Result<()> {
        let fail = |field: &str, expected: &str, got: String| {
            let (file, field, expected) = (file.into(), field.into(), expected.into());
            Err(Error::Config { file, field, expected, got })
        };
        let tables = [
            ("base", self.base.is_some()),
            ("refocus", self.refocus.is_some()),
            ("lora", self.lora.is_some()),
            ("semantic", self.semantic.is_some()),
        ];
        if let Some(model) = &self.model {
            if let Some((table, _)) = tables.iter().find(|(_, there)| *there) {
                return fail(
                    table,
                    "no such table beside `[model]`, whose own is `[model.refocus]` or the like",
                    "one".into(),
                );
            }
            if !self.data.files.is_empty() {
                return fail("data.files", "none: the nano model knows the words of the suite alone", "some".into());
            }
            return Ok(model.validate(file)?);
        }
        let Some(base) = &self.base else {
            return fail("model", "`[model]`, or `[base]` with `[refocus]`", "neither".into());
        };
        let Some(refocus) = &self.refocus else {
            return fail("refocus", "the latent step that is added to `base`", "none".into());
        };
        if base.model.is_empty() {
            return fail("base.model", "a folder, or owner/name", "nothing".into());
        }
        if let Some((field, expected, got)) =
            refocus.fault().or_else(|| self.semantic.as_ref().and_then(lare_model::config::Heads::fault))
        {
            return fail(field, expected, got);
        }
        let Some(lora) = &self.lora else { return Ok(()) };
        let at_most = 1 << 16;
        match lora {
            _ if lora.rank == 0 || lora.rank > at_most => fail("lora.rank", "1 to 65536", lora.rank.to_string()),
            _ if !positive(lora.alpha) => fail("lora.alpha", "above 0", lora.alpha.to_string()),
            _ if lora.targets.is_empty() => fail("lora.targets", "at least one pattern", "none".into()),
            _ => Ok(()),
        }
    }

    fn check_files(&self, file: &str) -> Result<()> {
        let fail = |field: &str, expected: &str, got: String| {
            let (file, field, expected) = (file.into(), field.into(), expected.into());
            Err(Error::Config { file, field, expected, got })
        };
        let data = &self.data;
        for (field, value) in [("data.max_tokens", data.max_tokens), ("data.features_mib", data.features_mib)] {
            match value {
                Some(0) => return fail(field, "at least 1", "0".into()),
                Some(value) if self.model.is_some() => {
                    return fail(field, "none: it is for pretrained models", value.to_string());
                }
                _ => {}
            }
        }
        if data.files.is_empty() {
            return Ok(());
        }
        if data.files.iter().all(|files| files.validation) {
            return fail("data.files", "some with `validation = false`: nothing is left to train on", "none".into());
        }
        let ones = [
            ("data.questions_per_picture", data.questions_per_picture),
            ("data.batches_per_block", data.batches_per_block),
            ("data.passes_per_block", data.passes_per_block),
        ];
        match ones.into_iter().find(|(_, count)| *count != 1) {
            Some((field, got)) => fail(field, "1 where the data is files", got.to_string()),
            None => Ok(()),
        }
    }

    /// What a pretrained model cannot be asked for.
    fn check_pretrained_stage(&self, stage: &Stage, file: &str, field: &dyn Fn(&str) -> String) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        if self.model.is_some() {
            return Ok(());
        }
        if stage.objective == Objective::Read {
            return fail(field("objective"), "reason or halt: a pretrained model's encoders are frozen", "read".into());
        }
        for (term, weight) in stage.loss.all() {
            let of_heads = ["align", "rec", "read"].contains(&term) && self.semantic.is_none();
            if weight > 0.0 && (of_heads || term == "name") {
                let expected =
                    if of_heads { "0, or a table `[semantic]`" } else { "0: it is for the nano model's encoders" };
                return fail(field(&format!("loss.{term}")), expected, weight.to_string());
            }
        }
        if !self.data.files.is_empty() && !stage.mix.is_empty() {
            return fail(field("mix"), "none: the data is files", format!("{} kinds", stage.mix.len()));
        }
        Ok(())
    }
}
