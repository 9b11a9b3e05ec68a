"""Multi-token-prediction heads: configuration, module, multi-step unrolling, checkpoint."""

from specdec.heads.checkpoint import load_head, load_head_config, save_head
from specdec.heads.config import HeadConfig, register
from specdec.heads.module import MTPHead
from specdec.heads.unroll import unroll

__all__ = ["HeadConfig", "MTPHead", "load_head", "load_head_config", "register", "save_head", "unroll"]
