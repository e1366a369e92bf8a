"""Kernels: the computations inside models that have more than one implementation.

`choice.Kernels` says which implementation a model uses; `choice.use_kernels` sets it on a model, and
`fastest.fastest_kernels` sets the fastest one for this machine. Implementations differ in speed and memory,
and in their results by rounding only.
"""
