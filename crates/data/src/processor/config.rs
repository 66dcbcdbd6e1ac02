//! From the `preprocessor_config.json` that users have to a [`Processor`].
//!
//! The reference takes what it knows from the file, defaults of its class for the rest, and ignores other keys; so
//! these files hold much that says nothing. Everything it reads is read here, and refused unless we do the same.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Family, Filter, Levels, Processor, ProcessorError, Qwen, SmolVlm};

const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";
/// Holds, in `processor_config.json`, what else is the whole of `preprocessor_config.json`.
const NESTED: &str = "image_processor";
const CLASS: &str = "image_processor_type";
const SIZE: &str = "size";
const TILE: &str = "max_image_size";
/// Largest side of a patch or tile, and number of frames: above all that exist, and no product of them overflows.
const MOST_SIDE: usize = 4096;
/// Largest limit on the size of resized pictures: what an f64 counts exactly, because the reference computes with it.
const MOST_PIXELS: usize = 1 << 53;
const PUBLISHED: &str = "copy the file that was published with these weights";

type Result<T> = std::result::Result<T, ProcessorError>;

/// What a class takes for fields that a file leaves out.
struct Defaults {
    mean: [f64; 3],
    std: [f64; 3],
    filter: Filter,
}

const QWEN: Defaults = Defaults {
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
    filter: Filter::Bicubic,
};
const QWEN_PIXELS: [usize; 2] = [56 * 56, 28 * 28 * 1280];
const QWEN_PATCH: usize = 14;
const QWEN_MERGE: usize = 2;
const QWEN_FRAMES: usize = 2;

const SMOLVLM: Defaults = Defaults { mean: [0.5; 3], std: [0.5; 3], filter: Filter::Lanczos };
const SMOLVLM_TILE: usize = 364;
const SMOLVLM_LONGEST: usize = 4 * SMOLVLM_TILE;

const RESCALE_FACTOR: f64 = 1.0 / 255.0;

pub(super) fn open(folder: &Path) -> Result<Processor> {
    let read = |name: &str| {
        let path = folder.join(name);
        let file = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((text, file))),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ProcessorError::Read { file, source }),
        }
    };
    let outer = read(PROCESSOR)?;
    if let Some((text, file)) = &outer
        && object(text, file)?.get(NESTED).is_some_and(|nested| !nested.is_null())
    {
        return parse(text, file);
    }
    match read(PREPROCESSOR)? {
        Some((text, file)) => parse(&text, &file),
        None => Err(ProcessorError::Missing {
            folder: folder.to_owned(),
            got: if outer.is_some() { "processor_config.json without it" } else { "neither" },
        }),
    }
}

pub(super) fn parse(text: &str, file: &str) -> Result<Processor> {
    let whole = object(text, file)?;
    let outer = Fields { file, within: "", map: &whole };
    match outer.get(NESTED) {
        // Which of two descriptions the reference would read depends on the name of the file.
        Some(_) if outer.get(CLASS).is_some() => {
            Err(outer.refuse(NESTED, "either this object or `image_processor_type`", "both", PUBLISHED))
        }
        Some(_) => outer.object(NESTED)?.processor(),
        None => outer.processor(),
    }
}

fn object(text: &str, file: &str) -> Result<Map<String, Value>> {
    let json = |got: String| ProcessorError::Json { file: file.to_owned(), got };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(value) => Err(json(shown(&value))),
        Err(error) => Err(json(error.to_string())),
    }
}

/// A value for a message: whole if it is short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// An object of the file.
struct Fields<'a> {
    file: &'a str,
    /// The object's name, or nothing for the outermost.
    within: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn processor(&self) -> Result<Processor> {
        let expected = "Qwen2VLImageProcessor, SmolVLMImageProcessor or Idefics3ImageProcessor, with or without `Fast`";
        let Some(class) = self.get(CLASS) else {
            return Err(self.refuse(CLASS, expected, "no such field", PUBLISHED));
        };
        let name = class.as_str().unwrap_or_default();
        let (family, defaults) = match name.strip_suffix("Fast").unwrap_or(name) {
            "Qwen2VLImageProcessor" => (Family::Qwen(self.qwen()?), QWEN),
            "SmolVLMImageProcessor" | "Idefics3ImageProcessor" => (Family::SmolVlm(self.smolvlm()?), SMOLVLM),
            // In early files of Qwen2.5-VL; no release of the reference has the class, and it refuses it too.
            "Qwen2_5_VLImageProcessor" => {
                let hint = "write \"Qwen2VLImageProcessor\", as later files of the same models do";
                return Err(self.refuse(CLASS, expected, &shown(class), hint));
            }
            _ => return Err(self.refuse(CLASS, expected, &shown(class), "use a model of one of these families")),
        };
        self.switches(&family)?;
        let (filter, levels) = (self.filter(defaults.filter)?, self.levels(&defaults)?);
        Ok(Processor { family, filter, levels, file: self.file.to_owned() })
    }

    fn qwen(&self) -> Result<Qwen> {
        let [min_pixels, max_pixels] = self.pixels()?;
        Ok(Qwen {
            patch_size: self.count("patch_size", QWEN_PATCH, MOST_SIDE)?,
            merge_size: self.count("merge_size", QWEN_MERGE, MOST_SIDE)?,
            temporal_patch_size: self.count("temporal_patch_size", QWEN_FRAMES, MOST_SIDE)?,
            min_pixels,
            max_pixels,
        })
    }

    /// The fewest and most pixels of a resized picture: `min_pixels` and `max_pixels` win over what is in `size`, where
    /// the same limits are called edges, though they are areas.
    fn pixels(&self) -> Result<[usize; 2]> {
        let names = [("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")];
        let [min, max] = QWEN_PIXELS;
        let mut size = match self.get(SIZE) {
            Some(_) => self.object(SIZE)?.map.clone(),
            None => {
                names.iter().zip([min, max]).map(|((_, edge), pixels)| ((*edge).to_owned(), pixels.into())).collect()
            }
        };
        for (pixels, edge) in names {
            if let Some(value) = self.get(pixels) {
                size.remove(pixels);
                size.insert(edge.to_owned(), value.clone());
            }
        }
        if size.len() != names.len() || names.iter().any(|(_, edge)| !size.contains_key(*edge)) {
            let expected = "`shortest_edge` and `longest_edge`, in pixels of the whole picture, and nothing else";
            return Err(self.refuse(SIZE, expected, &shown(&Value::Object(size)), PUBLISHED));
        }
        let size = Fields { file: self.file, within: SIZE, map: &size };
        let [min, max] =
            [size.count("shortest_edge", min, MOST_PIXELS)?, size.count("longest_edge", max, MOST_PIXELS)?];
        if min > max {
            let got = format!("at least {min} and at most {max} pixels");
            return Err(self.refuse(SIZE, "room between the limits", &got, "exchange the two values"));
        }
        Ok([min, max])
    }

    fn smolvlm(&self) -> Result<SmolVlm> {
        Ok(SmolVlm {
            longest_px: self.longest_edge(SIZE, SMOLVLM_LONGEST, MOST_PIXELS)?,
            tile_px: self.longest_edge(TILE, SMOLVLM_TILE, MOST_SIDE)?,
            split: self.switch("do_image_splitting", true)?,
        })
    }

    fn longest_edge(&self, name: &'a str, default: usize, most: usize) -> Result<usize> {
        if self.get(name).is_none() {
            return Ok(default);
        }
        let size = self.object(name)?;
        if size.map.len() != 1 || size.get("longest_edge").is_none() {
            let got = shown(&Value::Object(size.map.clone()));
            return Err(self.refuse(name, "`longest_edge`, and nothing else", &got, PUBLISHED));
        }
        size.count("longest_edge", default, most)
    }

    /// Refuses switches that are not as we work: off what we always do, or on what we never do.
    fn switches(&self, family: &Family) -> Result<()> {
        let smolvlm = matches!(family, Family::SmolVlm(_));
        let always = ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"].into_iter();
        let always: Vec<&str> = always.chain(smolvlm.then_some("do_pad")).collect();
        for name in self.map.keys().filter(|name| name.starts_with("do_")) {
            let known = always.contains(&name.as_str());
            if smolvlm && name == "do_image_splitting" {
                continue;
            }
            if self.switch(name, known)? != known {
                let (expected, got) = if known { ("true", "false") } else { ("false", "true") };
                return Err(self.refuse(
                    name,
                    expected,
                    got,
                    "pictures are prepared in no other way here; use a model that was trained in this one",
                ));
            }
        }
        Ok(())
    }

    fn filter(&self, default: Filter) -> Result<Filter> {
        match self.get("resample") {
            None => Ok(default),
            Some(value) if *value == 1 => Ok(Filter::Lanczos),
            Some(value) if *value == 3 => Ok(Filter::Bicubic),
            Some(value) => Err(self.refuse("resample", "1 (Lanczos) or 3 (bicubic)", &shown(value), PUBLISHED)),
        }
    }

    fn levels(&self, defaults: &Defaults) -> Result<Levels> {
        let mean = self.three("image_mean", defaults.mean)?;
        let std = self.three("image_std", defaults.std)?;
        let factor = self.get("rescale_factor").map_or(Some(RESCALE_FACTOR), Value::as_f64);
        let Some(factor) = factor.filter(|factor| *factor > 0.0) else {
            let got = self.get("rescale_factor").map_or_else(String::new, shown);
            return Err(self.refuse("rescale_factor", "a number above 0, mostly 1 / 255", &got, PUBLISHED));
        };
        // Negative ones would turn pictures to their negatives: no model does that, so it is a slip.
        let levels = if std.iter().all(|std| *std > 0.0) { Levels::new(mean, std, factor) } else { None };
        levels.ok_or_else(|| {
            let got = format!("mean {mean:?}, std {std:?}, rescale_factor {factor:?}");
            self.refuse("image_std", "numbers above 0 that leave normalised values finite", &got, PUBLISHED)
        })
    }

    /// One number each for red, green and blue.
    fn three(&self, name: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or_else(|| self.refuse(name, "three numbers: red, green, blue", &shown(value), PUBLISHED))
    }

    fn count(&self, name: &str, default: usize, most: usize) -> Result<usize> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count
            .filter(|count| (1..=most).contains(count))
            .ok_or_else(|| self.refuse(name, &format!("a whole number from 1 to {most}"), &shown(value), PUBLISHED))
    }

    fn switch(&self, name: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        value.as_bool().ok_or_else(|| self.refuse(name, "true or false", &shown(value), PUBLISHED))
    }

    fn object(&self, name: &'a str) -> Result<Fields<'a>> {
        match self.get(name) {
            Some(Value::Object(map)) => Ok(Fields { file: self.file, within: name, map }),
            other => Err(self.refuse(name, "an object", &other.map_or_else(String::new, shown), PUBLISHED)),
        }
    }

    /// What a field says; null is as good as nothing, as in the reference.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn refuse(&self, name: &str, expected: &str, got: &str, hint: &str) -> ProcessorError {
        ProcessorError::Field {
            file: self.file.to_owned(),
            field: [self.within, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("."),
            expected: expected.to_owned(),
            got: got.to_owned(),
            hint: hint.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
