"""Training an SAE on a model's own residual stream: BatchTopK (arXiv 2412.06410), saved as JumpReLU.

Not by sae-lens: it would add transformer-lens, plotly, nltk and a dozen more packages to the lock file, and it reads
models through TransformerLens, which lacks families that are served here. What it reads, this writes.
"""
