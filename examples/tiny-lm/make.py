"""Makes the tiny language model that the demo and the tests serve: tokenizer, then model, from scratch.

    python examples/tiny-lm/make.py --work build/tiny-lm --output examples/tiny-lm/model --steps 964

Deep and narrow (28 layers of width 160), so that a drafting layer costs, against the target, what it costs in a real
model. Trained on the Python standard library's source (corpus.py). Interrupted, it goes on from its last checkpoint and
ends where an uninterrupted run ends: batches and schedule depend on the seed and the step alone.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from corpus import documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 1024
END = "<|endoftext|>"
CONFIG = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 160,
    "intermediate_size": 384,
    "num_hidden_layers": 28,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "rope_theta": 10000.0,
}


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the training files; loaded again when it is there already."""
    if not (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        tokenizer.train_from_iterator((text for _, text in documents(held_out=False)), trainer)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=1024
        ).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def encode(tokenizer: PreTrainedTokenizerFast, held_out: bool, cache: Path) -> np.ndarray:
    """All documents of one side as one row of token ids, each behind an end-of-text token."""
    if not cache.exists():
        texts = [text for _, text in documents(held_out)]
        np.save(cache, np.concatenate([[0, *ids] for ids in tokenizer(texts)["input_ids"]]).astype(np.uint16))
    return np.load(cache)


def batches(tokens: np.ndarray, rows: int, length: int, seed: int, start: int):
    """Endless random windows [rows, length + 1]; window number `start` on, the same for the same seed."""
    step = start
    while True:
        rng = np.random.default_rng((seed, step))
        offsets = rng.integers(0, len(tokens) - length - 1, rows)
        yield torch.from_numpy(np.stack([tokens[o : o + length + 1] for o in offsets]).astype(np.int64))
        step += 1


@torch.no_grad()
def held_out_loss(model, tokens: np.ndarray, length: int = 512, windows: int = 64) -> float:
    """Mean cross entropy, nats per token, over evenly spread held-out windows."""
    offsets = np.linspace(0, len(tokens) - length - 1, windows).astype(int)
    total = 0.0
    for i in range(0, windows, 16):
        batch = torch.from_numpy(np.stack([tokens[o : o + length + 1] for o in offsets[i : i + 16]]).astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=batch[:, :-1]).logits
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="sum"
        ).item()
    return total / (windows * length)


def optimizers(model, lr_scale: float):
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=0.02 * lr_scale, momentum=0.95, weight_decay=0.02, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=0.003 * lr_scale, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save(path: Path, model, opts, step: int) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "step": step}, temporary)
    os.replace(temporary, path)


def schedule(progress: float) -> float:
    """Warm-up over 2 %, constant, linear decay to a twentieth over the last 40 %."""
    if progress < 0.02:
        return progress / 0.02 + 0.01
    return 1.0 if progress < 0.6 else max(0.05, 1 - 0.95 * (progress - 0.6) / 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/tiny-lm"), help="checkpoints and token caches")
    parser.add_argument("--output", type=Path, default=Path("build/tiny-lm/model"), help="the finished model")
    parser.add_argument("--steps", type=int, default=964, help="optimiser steps in all")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument(
        "--length", type=int, default=512, help="tokens a row; the last 15 %% of the steps use twice that"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)

    tokenizer = make_tokenizer(args.work / "tokenizer")
    train = encode(tokenizer, False, args.work / "train.npy")
    held_out = encode(tokenizer, True, args.work / "held-out.npy")
    print(f"{len(train):,} training tokens, {len(held_out):,} held out", flush=True)

    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    for name, p in model.named_parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.02)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(p, std=0.02 / math.sqrt(2 * CONFIG["num_hidden_layers"]))
    model.config.use_cache = False
    opts = optimizers(model, 1.0)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    checkpoint, step = args.work / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for o, s in zip(opts, state["opts"], strict=True):
            o.load_state_dict(s)
        step = state["step"]
        print(f"goes on from step {step}", flush=True)
    forward = torch.compile(model, dynamic=False) if os.environ.get("COMPILE", "1") == "1" else model

    began, first, last_saved = time.time(), step, time.time()
    source, long_rows = batches(train, args.rows, args.length, args.seed, step), False
    while step < args.steps:
        progress = step / args.steps
        if progress > 0.85 and not long_rows:
            source, long_rows = batches(train, args.rows // 2, args.length * 2, args.seed, step), True
        batch = next(source)
        for o, lrs in zip(opts, base, strict=True):
            for group, lr in zip(o.param_groups, lrs, strict=True):
                group["lr"] = lr * schedule(progress)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0:
            left = (time.time() - began) / (step - first) * (args.steps - step) / 60
            print(f"step {step}/{args.steps} loss {loss.item():.3f}, about {left:.0f} minutes left", flush=True)
        if time.time() - last_saved > 240:
            save(checkpoint, model, opts, step)
            last_saved = time.time()
            print(f"step {step} held-out loss {held_out_loss(model, held_out):.4f}", flush=True)
    save(checkpoint, model, opts, step)

    final = model.to(torch.bfloat16)
    loss = held_out_loss(final, held_out)
    final.save_pretrained(args.output, safe_serialization=True)
    tokenizer.save_pretrained(args.output)
    (args.output / "training.json").write_text(
        json.dumps(
            {
                "held_out_loss_nats_per_token": round(loss, 4),
                "steps": step,
                "training_tokens": step * args.rows * args.length,
                "seed": args.seed,
                "parameters": sum(p.numel() for p in final.parameters()),
            },
            indent=1,
        )
        + "\n"
    )
    print(f"held-out loss {loss:.4f}; saved to {args.output}", flush=True)


if __name__ == "__main__":
    main()
