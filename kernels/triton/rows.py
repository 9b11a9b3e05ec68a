"""Which row a program works on, and what is known of a row.

Target row r belongs to request b = request_of_row[r], and its draft, if it has one, is draft r - b. What is known of
target row r is kept in slot r, of the row of draft i in slot num_rows + i.
"""

import triton
import triton.language as tl

# Columns of the facts, float64 [slots, NUM_FACTS], that row_statistics leaves. A row's distribution is
# v -> [l(v) >= LOWEST] 2^((l(v) - MAX) RATE) FACTOR, see logits.py, or a point mass.
MAX = tl.constexpr(0)  # the largest finite logit, 0 where there is none
RATE = tl.constexpr(1)
LOWEST = tl.constexpr(2)
FACTOR = tl.constexpr(3)
POINT = tl.constexpr(4)  # the one token of a point mass (greedy row, row without a finite logit), or -1
THRESHOLD = tl.constexpr(5)  # float64, of which LOWEST is the float32 that keeps the same tokens
BAD = tl.constexpr(6)  # 1 where the row is no distribution: a NaN or +inf, or nothing but -inf
P = tl.constexpr(7)  # of the draft token, 0 for an id that is no token

# Of a target row that has a draft, see drafts.py. KIND is NOTHING where there is none.
TOKEN = tl.constexpr(8)
KIND = tl.constexpr(9)
Q = tl.constexpr(10)  # of the draft token
DRAFT_ROW = tl.constexpr(11)
Q_SHIFT = tl.constexpr(12)
Q_RATE = tl.constexpr(13)
Q_LOWEST = tl.constexpr(14)
Q_FACTOR = tl.constexpr(15)
PASSES = tl.constexpr(16)  # 1 where the token rule accepts the draft, if those before it are accepted
WEIGHT = tl.constexpr(17)  # block rule: w_i; left by tile_residuals
NUM_FACTS = tl.constexpr(18)


@triton.jit
def locate(r, first_row, request_of_row, draft_rows, num_rows, num_draft_rows, IS_DRAFT: tl.constexpr):
    """Of program r: request, draft, row of the logits (int64), slot (int64), whether there is such a row, and whether
    the target row has a draft."""
    request = tl.load(request_of_row + r)
    draft = r - request
    drafted = r + 1 < tl.load(first_row + request + 1)
    row = r.to(tl.int64)
    slot = row
    used = r >= 0
    if IS_DRAFT:
        row = draft.to(tl.int64)
        slot = row + num_rows
        used = drafted
        if draft_rows is not None:
            row = tl.load(draft_rows + draft, mask=drafted, other=-1)
            used = drafted & (row >= 0) & (row < num_draft_rows)
    return request, draft, row, slot, used, drafted
