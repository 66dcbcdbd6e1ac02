"""Writes a GGUF of random weights in the shape of crates/model/benches/whole.rs: random_gguf.py q8_0|q4_k FILE. Needs PyPI's gguf."""
import sys

import gguf
import numpy

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH, HIDDEN, VOCABULARY = 28, 1536, 12, 2, 128, 8960, 151_936
# Of a block: its bytes, its elements, and the f16 scales at its start, small enough for activations to stay in range.
BLOCKS = {"q8_0": (gguf.GGMLQuantizationType.Q8_0, 34, 32, [2e-4]), "q4_k": (gguf.GGMLQuantizationType.Q4_K, 144, 256, [1e-4, 7e-4])}

kind, block_bytes, block, scales = BLOCKS[sys.argv[1]]
dice = numpy.random.default_rng(0)
out = gguf.GGUFWriter(sys.argv[2], "qwen2")
out.add_block_count(LAYERS)
out.add_context_length(4096)
out.add_embedding_length(WIDTH)
out.add_feed_forward_length(HIDDEN)
out.add_head_count(HEADS)
out.add_head_count_kv(KV_HEADS)
out.add_rope_freq_base(1e6)
out.add_layer_norm_rms_eps(1e-6)
out.add_vocab_size(VOCABULARY)
out.add_tokenizer_model("no_vocab")


def matrix(name, rows, cols):
    blocks = dice.integers(0, 256, (rows * cols // block, block_bytes), dtype=numpy.uint8)
    head = numpy.array(scales, numpy.float16).view(numpy.uint8)
    blocks[:, : len(head)] = head
    out.add_tensor(f"{name}.weight", blocks.reshape(rows, -1), raw_dtype=kind)


def vector(name, size, value):
    out.add_tensor(name, numpy.full(size, value, numpy.float32))


matrix("token_embd", VOCABULARY, WIDTH)
vector("output_norm.weight", WIDTH, 1)
for layer in range(LAYERS):
    place = f"blk.{layer}"
    for name, rows in [("attn_q", HEADS * HEAD_WIDTH), ("attn_k", KV_HEADS * HEAD_WIDTH), ("attn_v", KV_HEADS * HEAD_WIDTH)]:
        matrix(f"{place}.{name}", rows, WIDTH)
        vector(f"{place}.{name}.bias", rows, 0)
    matrix(f"{place}.attn_output", WIDTH, HEADS * HEAD_WIDTH)
    matrix(f"{place}.ffn_gate", HIDDEN, WIDTH)
    matrix(f"{place}.ffn_up", HIDDEN, WIDTH)
    matrix(f"{place}.ffn_down", WIDTH, HIDDEN)
    vector(f"{place}.attn_norm.weight", WIDTH, 1)
    vector(f"{place}.ffn_norm.weight", WIDTH, 1)
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
