"""The SAE that ships with the tiny model does what its README says."""

import inspect
import json
import textwrap
from pathlib import Path

import pytest
import torch

from specdec.steering import load_sae
from specdec.steering.fit import misfit, model_config
from specdec.steering.quality import measure
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream
from specdec.training.target import Target

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lm"


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(EXAMPLE / "model", torch.float32)


def encoded(target: Target, text: str) -> list[int]:
    return [target.tokenizer.bos_token_id, *target.tokenizer(text, add_special_tokens=False).input_ids]


def test_it_fits_its_model_and_explains_text_of_its_kind(target):
    """Text of the Python that runs this, so only near what was measured on the held-out files (0.864, 16.0, 0.17)."""
    sae = load_sae(EXAMPLE / "sae")
    assert misfit(sae, model_config(EXAMPLE / "model")) is None and (sae.layer, sae.num_features) == (18, 2048)
    text = "\n".join(inspect.getsource(module) for module in (json.decoder, textwrap, inspect))
    stream = TokenStream.pack([encoded(target, text)[1:]], start=target.tokenizer.bos_token_id)
    quality = measure(sae, target, held_out_windows(stream, 4, 256, 8))
    assert quality.explained_variance == pytest.approx(0.864, abs=0.04)
    assert quality.l0 == pytest.approx(16, abs=2)
    assert 0 < quality.spliced_cross_entropy - quality.cross_entropy < 0.35


@torch.no_grad()
def test_features_named_in_the_readme(target):
    """Each tells its kind of text from the same length of other code."""
    sae = load_sae(EXAMPLE / "sae")
    prose = "# This is what happens when the name of the file is not known to the caller of the function"
    capitals = "MAX_SIZE = DEFAULT_BUFFER_SIZE\nMIN_LEVEL = CRITICAL"
    imports = "import sys\nimport os\nimport unittest\nimport warnings\nimport time\n"
    code = "def f(self, x):\n    y = [i for i in range(x)]\n    return self.g(y[0], {1: 2})\n"

    def mean(text: str, feature: int) -> float:
        x = target.model.model(torch.tensor([encoded(target, text)]), output_hidden_states=True).hidden_states[19]
        return sae.encode_features(x[0, 1:], torch.tensor([feature])).mean().item()

    for feature, own in ((774, prose), (1449, capitals), (643, imports)):
        others = [mean(text, feature) for text in (prose, capitals, imports, code) if text is not own]
        assert mean(own, feature) > 2 * max(others), (feature, mean(own, feature), others)
