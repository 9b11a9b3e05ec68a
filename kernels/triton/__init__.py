"""Device code of the triton backend (specdec/verify/triton.py), in four launches:

1. tile_statistics: every target row is read once, at full bandwidth; each tile of 512 logits leaves its maximum and the
   sum of its weights.
2. row_statistics: one program per row turns these into the row's threshold, mass and p(draft token). Only the tiles
   that can hold the threshold are read again.
3. tile_residuals: for the rows from which a token may be drawn, what each tile holds of max(w p - q, 0).
4. emit: one program per request decides, finds the drawn token's tile by prefix sums in the order of the ids, and then
   the token in that one tile.

Draft rows that come without statistics pass 1 and 2 too, in launches of their own. Weights are float32 exponentials,
relative to the largest logit; every sum of them is float64.

What changes from step to step (the number of rows, the place of an array in a larger one) is no reason to compile a
kernel again: see do_not_specialize.
"""
