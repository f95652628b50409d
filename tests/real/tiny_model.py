"""A llama of a few thousand random weights with an alphabet of bytes: it says nothing, but llama.cpp serves it.

`python tiny_model.py FOLDER` writes the model there, serves it by HTTP on a free loopback port, prints the
address, and ends when its standard input does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

CONTEXT, WIDTH, HEADS, FEED, LAYERS = 512, 64, 4, 128, 2
SPECIAL = ["<unk>", "<s>", "</s>"]
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_model(path: Path) -> None:
    """A GGUF with the same weights every time."""
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *map(chr, range(33, 127))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * 95]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    _add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_weights(writer: GGUFWriter, words: int) -> None:
    random = np.random.default_rng(7)

    def add(name: str, *shape: int, silent: int = 0) -> None:
        weights = random.normal(0.0, 0.1, shape).astype(np.float32)
        weights[:silent] = 0.0
        writer.add_tensor(name, weights)

    add("token_embd.weight", words, WIDTH)
    # Only printable characters are ever said: half a character would come out differently in a stream.
    add("output.weight", words, WIDTH, silent=words - 95)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}.weight", WIDTH, WIDTH)
        add(f"{block}.ffn_gate.weight", FEED, WIDTH)
        add(f"{block}.ffn_up.weight", FEED, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, FEED)


def serve(folder: Path) -> None:
    """Serve the model until standard input ends."""
    import xllamacpp

    model = folder / "tiny.gguf"
    write_model(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel, params.n_predict = CONTEXT * 2, 2, 64
    params.cpuparams.n_threads = 2
    params.warmup, params.use_jinja = False, True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
