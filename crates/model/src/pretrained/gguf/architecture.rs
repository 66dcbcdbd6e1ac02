//! What a GGUF file's metadata says of the model in it. Its keys begin with the architecture's name: `qwen2.block_count`.

use super::Gguf;
use crate::decoder::Shape;
use crate::pretrained::Architecture;
use crate::pretrained::fields::Fields;
use crate::pretrained::names::Layout;
use crate::pretrained::text::Kind;
use crate::rope::Rope;
use crate::{Error, Result};
use serde_json::Value;

/// The key of the architecture's name.
const ARCHITECTURE: &str = "general.architecture";
/// The token embeddings, whose rows are the vocabulary.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// An output layer of its own; without it the embedding is the output layer.
const OUTPUT: &str = "output.weight";
/// What Llama 3.1 divides its rotary frequencies by.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
const DAMAGED: &str = "the file is damaged, or was written for another program; convert the model again";

/// Keys behind the architecture's name that change what is computed in ways that are not here.
const NOT_COMPUTED: [&str; 9] = [
    "expert_count",
    "attention.sliding_window",
    "attention.scale",
    "attention.max_alibi_bias",
    "attention.clamp_kqv",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "rope.scaling.yarn_log_multiplier",
];

impl Architecture {
    /// What a GGUF file holds.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is missing or says something not computed here; [`Error::Gguf`] for tensors that
    /// say something else.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let (value, file) = (Value::Object(gguf.metadata.clone()), gguf.name());
        let fields = Fields::new(&value, &file);
        let family = fields.text(ARCHITECTURE)?;
        let kind = match family {
            "llama" => Kind::Llama,
            "qwen2" => Kind::Qwen2,
            "qwen3" => Kind::Qwen3,
            _ => {
                let expected = "llama, qwen2 or qwen3";
                return Err(fields.error(
                    ARCHITECTURE,
                    expected,
                    "GGUF files of other architectures are not supported",
                ));
            }
        };
        if fields.find("split.count").is_some() {
            let hint = "put the parts together with `llama-gguf-split --merge`";
            fields.at_most("split.count", 1, hint)?;
        }
        let keys = Keys { fields, family, gguf };
        Ok(Self {
            family: family.into(),
            language: keys.shape(kind)?,
            image_token: None,
            layout: Layout::Gguf,
            tower: None,
        })
    }
}

/// The metadata, by the part of a key behind the architecture's name.
struct Keys<'a> {
    fields: Fields<'a>,
    family: &'a str,
    gguf: &'a Gguf,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family)
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.fields.size(&self.key(name))
    }

    fn size_or(&self, name: &str, default: usize) -> Result<usize> {
        self.fields.size_or(&self.key(name), default)
    }

    fn error(&self, name: &str, expected: &str) -> Error {
        self.fields.error(&self.key(name), expected, DAMAGED)
    }

    fn shape(&self, kind: Kind) -> Result<Shape> {
        for name in NOT_COMPUTED {
            // Zero is how a file says that there is none.
            self.fields.at_most(&self.key(name), 0, "this variant of the architecture is not supported")?;
        }
        self.fields.must_be(&self.key("attention.causal"), true)?;
        let (width, heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
        let kv_heads = self.size_or("attention.head_count_kv", heads)?;
        if heads % kv_heads != 0 {
            return Err(self.error("attention.head_count_kv", &format!("a divisor of {heads}, the heads of queries")));
        }
        let head_width = self.size_or("attention.key_length", width / heads)?;
        let evenly = width % heads == 0 || self.fields.find(&self.key("attention.key_length")).is_some();
        if head_width == 0 || head_width % 2 != 0 || !evenly {
            let expected = format!("a divisor of {width}, the width, that leaves an even head width");
            return Err(self.error("attention.head_count", &expected));
        }
        for name in ["attention.value_length", "rope.dimension_count"] {
            if self.size_or(name, head_width)? != head_width {
                return Err(self.error(name, &format!("{head_width}, the width of a head's key")));
            }
        }
        Ok(Shape {
            vocabulary: self.vocabulary()?,
            width,
            layers: self.layers()?,
            heads,
            kv_heads,
            head_width,
            feed_forward: self.size("feed_forward_length")?,
            norm_eps: self.fields.number(&self.key("attention.layer_norm_rms_epsilon"))?,
            max_positions: self.size("context_length")?,
            qkv_bias: kind == Kind::Qwen2,
            qk_norm: kind == Kind::Qwen3,
            tied: !self.gguf.entries.contains_key(OUTPUT),
            rope: self.rope(head_width)?,
        })
    }

    /// No more than there are tensors: each takes memory before the first that is missing is found.
    fn layers(&self) -> Result<usize> {
        let (name, most) = ("block_count", self.gguf.entries.len());
        let layers = self.size(name)?;
        if layers > most {
            Err(self.error(name, &format!("at most {most}, the tensors of the file")))
        } else {
            Ok(layers)
        }
    }

    /// Rows of the embedding; no token may lie beyond them.
    fn vocabulary(&self) -> Result<usize> {
        let fault = |got: String| {
            let fault = format!("has no usable tensor `{EMBEDDING}`");
            self.gguf.fault(fault, "[tokens, width]".into(), got, DAMAGED)
        };
        let entry = self.gguf.entries.get(EMBEDDING).ok_or_else(|| fault("no such tensor".into()))?;
        let [rows, _] = entry.shape[..] else { return Err(fault(format!("{:?}", entry.shape))) };
        let key = "tokenizer.ggml.tokens";
        match self.fields.find(key).and_then(Value::as_array) {
            Some(tokens) if tokens.len() > rows => {
                let expected = format!("at most {rows} tokens, the rows of {EMBEDDING}");
                let fault = format!("has too many `{key}`");
                Err(self.gguf.fault(fault, expected, tokens.len().to_string(), DAMAGED))
            }
            _ => Ok(rows),
        }
    }

    fn rope(&self, head_width: usize) -> Result<Rope> {
        let theta = self.fields.number_or(&self.key("rope.freq_base"), 10_000.0)?;
        if theta <= 0.0 {
            return Err(self.error("rope.freq_base", "a number above 0"));
        }
        let rope = Rope::new(theta, head_width);
        let half = head_width / 2;
        // An older key for what `linear` says now.
        let older = self.fields.number_or(&self.key("rope.scale_linear"), 1.0)?;
        let scaling = self.key("rope.scaling.type");
        let factor = match self.fields.find(&scaling).and_then(Value::as_str) {
            None if self.fields.find(&scaling).is_none() => older,
            Some("none") => older,
            Some("linear") => self.fields.number(&self.key("rope.scaling.factor"))?,
            _ => {
                let hint = "this way of stretching positions is not supported";
                return Err(self.fields.error(&scaling, "none or linear", hint));
            }
        };
        if factor <= 0.0 {
            return Err(self.error("rope.scaling.factor", "a number above 0"));
        }
        let mut divisors = vec![factor as f32; half];
        if self.gguf.entries.contains_key(ROPE_FACTORS) {
            let factors = self.gguf.numbers(ROPE_FACTORS, &[half])?.to_vec1::<f32>()?;
            divisors.iter_mut().zip(factors).for_each(|(divisor, factor)| *divisor *= factor);
        }
        match divisors.iter().find(|divisor| !divisor.is_finite() || **divisor <= 0.0) {
            None => Ok(rope.divided(&divisors)),
            Some(got) => {
                let fault = format!("has an unusable tensor `{ROPE_FACTORS}`");
                Err(self.gguf.fault(fault, "numbers above 0".into(), got.to_string(), DAMAGED))
            }
        }
    }
}
