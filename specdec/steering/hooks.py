"""Names of places in a model, as SAE files give them -> the decoder layer whose output they mean."""

import re

# TransformerLens' names ("blocks.12.hook_resid_post", "blocks.12.hook_out" in its newer bridge) and those of modules in
# Hugging Face models ("model.layers.12", "layers.12", "gpt_neox.layers.12", "transformer.h.12"), as sparsify's folders.
_OUTPUT = (r"blocks\.(\d+)\.hook_(?:resid_post|out)", r"(?:[\w.]+\.)?(?:layers|h)[._](\d+)(?:\.output)?")
_INPUT = (r"blocks\.(\d+)\.hook_(?:resid_pre|in)", r"(?:[\w.]+\.)?(?:layers|h)[._](\d+)\.input")


def layer_of(hook: str | None) -> int | None:
    """The 0-based decoder layer whose output (residual stream behind it) a hook reads; None: it is another place.

    What enters layer L is the output of layer L - 1; what enters layer 0 is the embedding, no layer's output.
    """
    if hook is None:
        return None
    for patterns, before in ((_OUTPUT, 0), (_INPUT, 1)):
        for pattern in patterns:
            if found := re.fullmatch(pattern, hook):
                layer = int(found[1]) - before
                return layer if layer >= 0 else None
    return None


def output_of(layer: int) -> str:
    """The name of layer's output under which SAE files keep it."""
    return f"blocks.{layer}.hook_resid_post"
