"""Targets of a few thousand random parameters with a byte-level tokenizer, and text to train heads on."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
VOCAB = 257
FAMILIES = ("llama", "qwen2", "qwen3")


def make_config(family: str = "llama", **changes):
    """A configuration of two layers of width 32, with grouped queries; qwen3 with head_dim unlike hidden / heads."""
    fields = {
        "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": family != "qwen2", "initializer_range": 0.3,
    }  # fmt: skip
    if family != "qwen2":
        fields["head_dim"] = 8 if family == "llama" else 16
    return AutoConfig.for_model(family, **{**fields, **changes})


def make_target(folder: Path, family: str = "llama", seed: int = 0, **changes) -> Path:
    """Writes a random target with its tokenizer; weights are large enough that its distributions are far from flat."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(family, **changes))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms and biases away from their trivial values
            torch.nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 1.0, std=0.2)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({END: 0, **{c: i for i, c in enumerate(alphabet, 1)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END).save_pretrained(folder)
    return folder


def write_text(folder: Path, documents: int = 40) -> Path:
    """A folder of short text files, each of another length."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(documents):
        words = [("def", "return", "value", "while", "x = 1\n")[(i * 7 + j * (i % 3 + 1)) % 5] for j in range(20 + i)]
        (folder / f"{i:03}.txt").write_text(" ".join(words))
    return folder
