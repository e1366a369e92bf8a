"""The models: tokens (B, T) -> logits (B, T, V) and nothing else.

One file a model, named as `model.kind`; its class is also called `Model` there. Nothing in here
knows losses, optimizers, Hydra or Lightning.
"""
