"""Training of heads: losses, data, the frozen target, the trainer."""
