"""What a request asks to read under `"specdec"`: feature activations of an SAE, token by token.

    {"read": {"sae": "mid", "features": [5, 123], "prompt": true}}
    {"read": {"top": 8}}

"features" reads those, "top" the k largest of all features. "prompt": true also pools over the prompt: each feature's
maximum, and the share of positions at which it is active. "sae" may be left out where the server has one.

A token's entry is the state that it was sampled FROM: the SAE's layer at the position before it, behind whatever
steering does there. The state at a token's own position is the next token's entry. The last prompt position is thus
part of the prompt and the first token's entry.
"""

from typing import Annotated

from pydantic import Field

from specdec.errors import SpecdecError
from specdec.steering.parts import Part


class Read(Part):
    """See the module's text. In its final form the SAE is named, and exactly one of features and top is set."""

    sae: str | None = None
    features: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    top: Annotated[int, Field(ge=1)] | None = None
    prompt: bool = False

    @property
    def width(self) -> int:
        """How many activations are read of a token."""
        return self.top if self.features is None else len(self.features)  # type: ignore[return-value]


def check_read(read: Read, name: str, count: int, most: int) -> None:
    """SpecdecError: it is not for the SAE `name` with `count` features, or asks for more than `most` of them."""
    if (read.features is None) == (read.top is None):
        raise SpecdecError('read needs either "features", a list of numbers, or "top", how many')
    if read.width > most:
        raise SpecdecError(f"read asks for {read.width} features: this server allows {most} (steering.max_read)")
    if read.top is not None:
        if read.top > count:
            raise SpecdecError(f"read.top {read.top} is out of range: SAE {name!r} has {count} features")
        return
    features = read.features or ()
    if not features:
        raise SpecdecError("read.features is empty: give at least one feature")
    for feature in features:
        if feature >= count:
            raise SpecdecError(f"read: feature {feature} is out of range: SAE {name!r} has 0 to {count - 1}")
    if len(set(features)) < len(features):
        twice = next(feature for i, feature in enumerate(features) if feature in features[:i])
        raise SpecdecError(f"read: feature {twice} is listed twice")
