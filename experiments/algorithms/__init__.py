"""The algorithms' mathematics as pure functions: arrays in, arrays out, the equation or paper beside the line.

Shape suffixes: B rows (responses), T response positions, V vocabulary. A mask is 1.0 on the response's own tokens (the
end-of-sequence token included) and 0.0 on padding. It is computed from lengths, never from token ids.
"""
