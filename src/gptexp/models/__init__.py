"""Models: tokens (B, T) -> logits (B, T, V).

Each file named like a `model.kind` defines one model; the file's attribute `Model` is its class and is called as
`Model(config, vocab_size)`. A model with `takes_targets = True` also accepts targets and then returns the loss.
Models know nothing about objectives, optimizers, Hydra or Lightning.
"""
