"""The models: tokens (B, T) -> logits (B, T, V) and nothing else.

One file a model, named as `model.kind`; its class is also called `Model` there. A model may take the targets too
and give the loss (`takes_targets`). Nothing in here knows objectives, optimizers, Hydra or Lightning.
"""
