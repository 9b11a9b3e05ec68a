"""The kernels that specdec/verify/triton.py launches."""

from specdec.kernels.triton.emit import emit
from specdec.kernels.triton.emit_draft import emit_draft
from specdec.kernels.triton.row_statistics import row_statistics
from specdec.kernels.triton.tile_residuals import tile_residuals
from specdec.kernels.triton.tile_statistics import tile_statistics

__all__ = ["emit", "emit_draft", "row_statistics", "tile_residuals", "tile_statistics"]
