"""python -m gptexp.conformance: what the literature published, computed again here, in one table.

    area (a file each) -> checks -> outcomes -> table, conformance.md

A check is a published number, its source, how far ours may lie from it, and the function that computes ours.
Nothing here imports torch before a check is computed.
"""
