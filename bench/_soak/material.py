"""What requests are made of: prompts, and names that the server knows."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.demo.prompts import cut_prompts, held_out_documents
from specdec.steering import load_sae

MODEL_NAME, SAE_NAME = "tiny", "sae"
TEXTS = ("import os\n\n\ndef ", "class Parser:\n    ", "# Copyright", "def main(args):\n    return ", "for name in ")


@dataclass(frozen=True)
class Material:
    """prompts: token ids. features: how many the SAE has. length: the server's limit, prompt and output together."""

    prompts: list[list[int]]
    features: int
    length: int

    @classmethod
    def of(cls, model: Path, corpus: Path, sae: Path, length: int) -> "Material":
        cut = cut_prompts(held_out_documents(corpus), model, 64, 16, 120)
        return cls([prompt.token_ids for prompt in cut], load_sae(sae).num_features, length)

    def prompt(self, rng: random.Random) -> list[int] | str:
        """Mostly token ids, of which a few come again and again, so that the prefix cache finds them."""
        if rng.random() < 0.2:
            return rng.choice(TEXTS)
        return rng.choice(self.prompts[:8] if rng.random() < 0.3 else self.prompts)

    def messages(self, rng: random.Random) -> list[dict[str, Any]]:
        return [{"role": "user", "content": rng.choice(TEXTS)}]
