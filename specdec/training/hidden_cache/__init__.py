"""The frozen target's hidden states on disk, for several epochs or several heads over the same data.

A folder of safetensors shards and index.json, which says what they were made of: the model's weights, the data's
tokens, the cut into windows, the number type. A shard is written under another name, synced and renamed, then entered
in the index with its SHA-256; so whatever interrupts the filling, the next run keeps every finished shard.

Files: fingerprint.py (whose states), index.py (index.json), shards.py (one shard), cache.py (all of it).
"""

from specdec.training.hidden_cache.cache import HiddenCache

__all__ = ["HiddenCache"]
