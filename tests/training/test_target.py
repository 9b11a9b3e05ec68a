"""The target's states in packed windows must be those of each document served alone."""

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.training.data import TokenStream
from specdec.training.target import Target
from tests.helpers.tiny_models import FAMILIES, make_target


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_documents_do_not_see_each_other(tmp_path, family):
    target = Target(make_target(tmp_path, family), torch.float32)
    stream = TokenStream.pack([[5, 6, 7, 8], [9, 10, 11]], start=0)
    packed = target.hidden(stream.windows(torch.tensor([0]), 9))[0]
    for document in (slice(0, 5), slice(5, 9)):
        alone = target.model.model(stream.tokens[None, document]).last_hidden_state[0]
        torch.testing.assert_close(packed[document], alone, rtol=1e-5, atol=1e-5)
    logits = target.model(stream.tokens[None, :5]).logits[0]
    torch.testing.assert_close(target.logits(packed[:5]), logits, rtol=1e-4, atol=1e-4)


def test_unsupported_family(tmp_path):
    make_target(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(SpecdecError, match="family 'gpt2' are not supported"):
        Target(tmp_path)
