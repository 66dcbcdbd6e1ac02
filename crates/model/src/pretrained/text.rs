//! The text decoders of Qwen2, Qwen2.5-VL, Qwen3, Qwen3-VL and Llama (also inside SmolVLM and Idefics3), as `config.json`
//! describes them. What they compute was read in transformers 5.23; docs/families.md says where.

use super::fields::{FEED_FORWARD, Fields, HEADS, LAYERS, VOCABULARY, WIDTH};
use crate::Result;
use crate::decoder::Shape;
use crate::rope::{Llama3, Rope, Sections};

/// What text decoders differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Biases on queries, keys and values.
    Qwen2,
    /// Norms on each head's query and key, and a head width of its own.
    Qwen3,
    /// Neither.
    Llama,
}

const ROPE: &str = "default, llama3 and mrope are supported";

/// The decoder in `fields` (`text_config`, or the whole file where it is flat).
///
/// # Errors
/// [`crate::Error::Config`] names a field that is missing, or that says something not computed here.
pub fn shape(fields: Fields, kind: Kind, tied: bool) -> Result<Shape> {
    fields.must_be("hidden_act", "silu")?;
    fields.must_be("attention_bias", false)?;
    fields.must_be("mlp_bias", false)?;
    fields.must_be("use_sliding_window", false)?;
    let (width, heads) = (fields.up_to("hidden_size", WIDTH)?, fields.up_to("num_attention_heads", HEADS)?);
    let head_width = match kind {
        Kind::Qwen3 => fields.up_to("head_dim", WIDTH)?,
        Kind::Llama => fields.up_to_or("head_dim", WIDTH, width / heads)?,
        Kind::Qwen2 => width / heads,
    };
    let kv_heads = match kind {
        Kind::Llama => fields.up_to_or("num_key_value_heads", HEADS, heads)?,
        _ => fields.up_to("num_key_value_heads", HEADS)?,
    };
    if heads % kv_heads != 0 {
        return Err(fields.error("num_key_value_heads", "a divisor of num_attention_heads", "the file is damaged"));
    }
    if head_width == 0
        || head_width % 2 != 0
        || (kind != Kind::Qwen3 && fields.find("head_dim").is_none() && width % heads != 0)
    {
        let hint = "the file is damaged";
        return Err(fields.error(
            "num_attention_heads",
            "a divisor of hidden_size that leaves an even head width",
            hint,
        ));
    }
    Ok(Shape {
        vocabulary: fields.up_to("vocab_size", VOCABULARY)?,
        width,
        layers: fields.up_to("num_hidden_layers", LAYERS)?,
        heads,
        kv_heads,
        head_width,
        feed_forward: fields.up_to("intermediate_size", FEED_FORWARD)?,
        norm_eps: match kind {
            Kind::Llama => fields.number_or("rms_norm_eps", 1e-6)?,
            _ => fields.number("rms_norm_eps")?,
        },
        max_positions: fields.size("max_position_embeddings")?,
        qkv_bias: kind == Kind::Qwen2,
        qk_norm: kind == Kind::Qwen3,
        tied,
        rope: rope(fields, kind, head_width)?,
    })
}

/// Reads `rope_parameters`, or `rope_theta` beside `rope_scaling` as written before transformers 5.
fn rope(fields: Fields, kind: Kind, head_width: usize) -> Result<Rope> {
    let (theta, scaling) = if fields.find("rope_parameters").is_some() {
        let parameters = fields.within("rope_parameters", "rope_parameters.");
        (parameters.number("rope_theta")?, parameters)
    } else {
        let theta = match kind {
            Kind::Llama => fields.number_or("rope_theta", 10_000.0)?,
            _ => fields.number("rope_theta")?,
        };
        (theta, fields.within("rope_scaling", "rope_scaling."))
    };
    if theta <= 0.0 {
        return Err(fields.error("rope_theta", "a number above 0", "the file is damaged"));
    }
    let key = if scaling.find("rope_type").is_some() { "rope_type" } else { "type" };
    let rope = Rope::new(theta, head_width);
    let rope = match scaling.find(key).and_then(serde_json::Value::as_str) {
        None | Some("default" | "mrope") => rope,
        Some("llama3") => rope.stretched(Llama3 {
            factor: scaling.number("factor")?,
            low_freq_factor: scaling.number("low_freq_factor")?,
            high_freq_factor: scaling.number("high_freq_factor")?,
            original_positions: scaling.number("original_max_position_embeddings")?,
        }),
        Some(_) => return Err(scaling.error(key, ROPE, "this way of stretching positions is not supported")),
    };
    if scaling.find("mrope_section").is_none() {
        return Ok(rope);
    }
    let Ok(lengths) = <[usize; 3]>::try_from(scaling.counts("mrope_section")?) else {
        return Err(scaling.error("mrope_section", "three whole numbers", "the file is damaged"));
    };
    if lengths.iter().sum::<usize>() != head_width / 2 {
        let expected = format!("three numbers that add up to half a head's width, {}", head_width / 2);
        return Err(scaling.error("mrope_section", &expected, "the file is damaged"));
    }
    let sections = match kind {
        Kind::Qwen3 => Sections::Interleaved(lengths),
        _ => Sections::Contiguous(lengths),
    };
    rope.in_sections(sections)
}
