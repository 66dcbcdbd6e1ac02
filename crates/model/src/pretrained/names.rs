//! What each family calls its tensors.

use super::checkpoint::Names;
use crate::nn::Part;

/// Families whose names follow one of these layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `model.layers..`, a language model alone.
    Text,
    /// `model.language_model.layers..` and `model.visual..`; older files have `model.layers..` and `visual..`.
    Qwen,
    /// `model.text_model.layers..`, `model.vision_model..` and `model.connector..`.
    SmolVlm,
    /// `blk..`, a language model in a GGUF file.
    Gguf,
}

impl Layout {
    fn language(self) -> &'static str {
        match self {
            Self::Text => "model.",
            Self::Qwen => "model.language_model.",
            Self::SmolVlm => "model.text_model.",
            Self::Gguf => "",
        }
    }
}

/// A decoder block's own name, and what checkpoints call it; for parts, the name of each.
const IN_A_BLOCK: [(&str, &str); 8] = [
    ("attention_norm", "input_layernorm"),
    ("qkv", "self_attn.{}_proj"),
    ("query_norm", "self_attn.q_norm"),
    ("key_norm", "self_attn.k_norm"),
    ("output", "self_attn.o_proj"),
    ("feed_forward_norm", "post_attention_layernorm"),
    ("feed_forward.gate_up", "mlp.{}_proj"),
    ("feed_forward.down", "mlp.down_proj"),
];

/// The same in GGUF files.
const IN_A_GGUF_BLOCK: [(&str, &str); 8] = [
    ("attention_norm", "attn_norm"),
    ("qkv", "attn_{}"),
    ("query_norm", "attn_q_norm"),
    ("key_norm", "attn_k_norm"),
    ("output", "attn_output"),
    ("feed_forward_norm", "ffn_norm"),
    ("feed_forward.gate_up", "ffn_{}"),
    ("feed_forward.down", "ffn_down"),
];

/// Parts of the two packed matrices, which biases have as well.
fn parts_of(module: &str) -> &'static [&'static str] {
    match module {
        "qkv" => &["q", "k", "v"],
        "feed_forward.gate_up" => &["gate", "up"],
        _ => &[],
    }
}

impl Names for Layout {
    fn of_stored(&self, stored: &str) -> String {
        // As transformers renames older Qwen-VL files while it loads them.
        if *self == Self::Qwen {
            if stored.starts_with("visual.") {
                return format!("model.{stored}");
            }
            if let Some(rest) = stored.strip_prefix("model.")
                && !rest.starts_with("language_model.")
                && !rest.starts_with("visual.")
            {
                return format!("model.language_model.{rest}");
            }
        }
        stored.into()
    }

    fn of_ours(&self, ours: &str, _: &[Part]) -> Vec<String> {
        let Some(ours) = ours.strip_prefix("language.") else {
            return vec![format!("model.{ours}")]; // a vision tower asks by the names of its family
        };
        let language = self.language();
        let is_gguf = *self == Self::Gguf;
        match ours {
            "embedding" if is_gguf => return vec!["token_embd.weight".into()],
            "head.weight" if is_gguf => return vec!["output.weight".into()],
            "norm.weight" if is_gguf => return vec!["output_norm.weight".into()],
            "embedding" => return vec![format!("{language}embed_tokens.weight")],
            "head.weight" => return vec!["lm_head.weight".into()],
            _ => {}
        }
        let Some((layer, rest)) = ours.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
            return vec![format!("{language}{ours}")];
        };
        let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
        let (table, layers) = if is_gguf { (&IN_A_GGUF_BLOCK, "blk") } else { (&IN_A_BLOCK, "layers") };
        let theirs = table.iter().find(|(own, _)| *own == module).map_or(module, |(_, theirs)| theirs);
        let name = |theirs: &str| format!("{language}{layers}.{layer}.{theirs}.{kind}");
        match parts_of(module) {
            [] => vec![name(theirs)],
            parts => parts.iter().map(|part| name(&theirs.replace("{}", part))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_matrices_come_in_their_parts() {
        let parts = Layout::Qwen.of_ours("language.blocks.3.qkv.bias", &[]);
        let layer = "model.language_model.layers.3.self_attn";
        assert_eq!(parts, ["q", "k", "v"].map(|p| format!("{layer}.{p}_proj.bias")));
        let parts = Layout::Text.of_ours("language.blocks.0.feed_forward.gate_up.weight", &[]);
        assert_eq!(parts, ["model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"]);
        let parts = Layout::Gguf.of_ours("language.blocks.3.qkv.weight", &[]);
        assert_eq!(parts, ["q", "k", "v"].map(|p| format!("blk.3.attn_{p}.weight")));
        assert_eq!(Layout::Gguf.of_ours("language.norm.weight", &[]), ["output_norm.weight"]);
    }

    #[test]
    fn older_files_of_qwen_are_read_under_the_newer_names() {
        let newer = |stored| Layout::Qwen.of_stored(stored);
        assert_eq!(newer("visual.blocks.0.norm1.weight"), "model.visual.blocks.0.norm1.weight");
        assert_eq!(newer("model.layers.0.mlp.up_proj.weight"), "model.language_model.layers.0.mlp.up_proj.weight");
        assert_eq!(newer("model.visual.merger.ln_q.weight"), "model.visual.merger.ln_q.weight");
        assert_eq!(newer("lm_head.weight"), "lm_head.weight");
    }
}
