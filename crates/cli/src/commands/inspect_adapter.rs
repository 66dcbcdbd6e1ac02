//! `lare inspect` with an adapter: what it is, what it was trained on, and whether it fits a base.

use super::inspect::size;
use super::{Outcome, counted};
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use lare_infer::Adapter;
use lare_infer::generator::Generator;
use lare_infer::inspect::{TensorInfo, tensors};
use lare_model::adapter::{SETTINGS, WEIGHTS};
use serde_json::{Value, json};
use std::path::Path;

/// Whether this is an adapter, and not a base that one was merged into.
pub fn is_for(folder: &Path) -> bool {
    folder.join(SETTINGS).is_file() && !folder.join("config.json").is_file()
}

/// Tells what the folder holds; the answer is no when it cannot be read, or does not fit the base that is given.
pub fn run(folder: &Path, base: Option<&Path>, tensors: bool, messages: &Messages) -> Result<Outcome, Failure> {
    let (told, fault) = match Adapter::open(folder) {
        Err(error) => (Told::unread(folder), Some(Failure::from(error))),
        Ok(adapter) => {
            let fits =
                base.map(|base| Generator::from_folder(base, None, Some(&adapter)).map(drop).map_err(Failure::from));
            let told = Told::of(folder, &adapter, fits.as_ref().map(Result::is_ok), tensors)?;
            let fault = fits.and_then(Result::err).or_else(|| told.not_finite());
            (told, fault)
        }
    };
    messages.report(&Shown { told, fault: fault.clone() })?;
    Ok(match fault {
        None => Outcome::Done,
        Some(fault) => {
            messages.failure(&fault);
            Outcome::No
        }
    })
}

/// What was found, as far as it could be read.
struct Told {
    place: String,
    settings: Value,
    files: Vec<(&'static str, usize)>,
    hash: Option<String>,
    tensors: Vec<TensorInfo>,
    /// Whether it fits the base that was given.
    fits: Option<bool>,
    lists: bool,
}

impl Told {
    fn unread(folder: &Path) -> Self {
        Self {
            place: folder.display().to_string(),
            settings: Value::Null,
            files: files(folder),
            hash: None,
            tensors: Vec::new(),
            fits: None,
            lists: false,
        }
    }

    fn of(folder: &Path, adapter: &Adapter, fits: Option<bool>, lists: bool) -> Result<Self, Failure> {
        let path = folder.join(WEIGHTS);
        let bytes = std::fs::read(&path)?;
        Ok(Self {
            settings: json!(adapter.settings),
            hash: Some(adapter.hash().to_owned()),
            tensors: tensors(&bytes, &path.display().to_string())?,
            fits,
            lists,
            ..Self::unread(folder)
        })
    }

    fn not_finite(&self) -> Option<Failure> {
        let tensor = self.tensors.iter().find(|tensor| !tensor.finite)?;
        let failure = Failure::new(format!("tensor `{}` holds numbers that are not finite", tensor.name));
        let failure = failure.part("file", format!("{}/{WEIGHTS}", self.place)).part("expected", "finite numbers");
        Some(failure.part("got", "NaN or infinity").hint("go back to an earlier checkpoint of the run"))
    }

    /// Numbers of the latent step and of the low-rank changes, and how many matrices these change.
    fn counts(&self) -> [usize; 3] {
        let is_change = |name: &str| name.ends_with(".lora_a") || name.ends_with(".lora_b");
        let numbers = |changes: bool| {
            let of = self.tensors.iter().filter(|tensor| is_change(&tensor.name) == changes);
            of.map(|tensor| tensor.shape.iter().product::<usize>()).sum()
        };
        let changed = self.tensors.iter().filter(|tensor| tensor.name.ends_with(".lora_b")).count();
        [numbers(false), numbers(true), changed]
    }
}

fn files(folder: &Path) -> Vec<(&'static str, usize)> {
    let size = |name: &'static str| Some((name, std::fs::metadata(folder.join(name)).ok()?.len() as usize));
    [SETTINGS, WEIGHTS].into_iter().filter_map(size).collect()
}

/// Findings and verdict.
struct Shown {
    told: Told,
    fault: Option<Failure>,
}

impl Shown {
    fn about(&self) -> Vec<String> {
        let told = &self.told;
        let Some(base) = told.settings.get("base") else { return Vec::new() };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let [step, changes, changed] = told.counts();
        let mut lines = vec![
            format!("base        {} ({})", text(&base["name"]), text(&base["family"])),
            format!("            weights {}", text(&base["fingerprint"])),
        ];
        lines.extend(told.hash.iter().map(|hash| format!("sha256      {hash}")));
        lines.push(format!("parameters  {step} of the latent step, {changes} of low-rank changes"));
        if let Some(lora) = told.settings.get("lora").filter(|lora| !lora.is_null()) {
            let targets: Vec<String> = lora["targets"].as_array().into_iter().flatten().map(text).collect();
            let matrices = if changed == 1 { "1 matrix".to_owned() } else { format!("{changed} matrices") };
            let (rank, alpha) = (&lora["rank"], &lora["alpha"]);
            lines.push(format!("changes     {matrices} of rank {rank}, alpha {alpha}: {}", targets.join(", ")));
        }
        let step = &told.settings["refocus"];
        let most = step["max_steps"].as_u64().unwrap_or_default() as usize;
        let read = step["patches"].as_u64().unwrap_or_default() as usize;
        let steps = counted(most, "step");
        lines.push(format!(
            "thinks      {}, at most {steps}, reads {} again at each",
            text(&step["thinking"]),
            counted(read, "cell")
        ));
        if let Some(own) = told.settings["auto_steps"].as_u64() {
            let own = counted(own as usize, "step");
            lines.push(format!("            its halting head was not trained: `--steps auto` takes {own}"));
        }
        lines
    }
}

impl Report for Shown {
    fn text(&self) -> String {
        let told = &self.told;
        let reads = if told.settings.is_null() { "no" } else { "yes" };
        let mut lines = vec![format!("adapter     {}", told.place), format!("reads       {reads}")];
        lines.extend(told.fits.map(|fits| format!("fits        {}", if fits { "yes" } else { "no" })));
        lines.extend(told.files.iter().map(|(name, bytes)| format!("file        {name:<18} {:>9}", size(*bytes))));
        lines.extend(self.about());
        for tensor in told.tensors.iter().filter(|_| told.lists) {
            let shape = format!("{:?}", tensor.shape);
            lines.push(format!("tensor      {:<5} {shape:<20} {}", tensor.number_type, tensor.name));
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let told = &self.told;
        let files: Vec<Value> =
            told.files.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect();
        let tensors: Vec<Value> =
            told.tensors.iter().map(|t| json!({ "name": t.name, "shape": t.shape, "type": t.number_type })).collect();
        let [step, changes, changed] = told.counts();
        json!({
            "place": told.place,
            "reads": !told.settings.is_null(),
            "fits": told.fits,
            "fault": self.fault.as_ref().map(|fault| fault.json()["error"].clone()),
            "files": files,
            "weights_hash": told.hash,
            "settings": told.settings,
            "parameters": { "latent_step": step, "low_rank": changes },
            "changed_matrices": changed,
            "tensors": if told.lists { json!(tensors) } else { json!(tensors.len()) },
        })
    }
}
