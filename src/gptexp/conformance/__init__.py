"""Conformance: published numbers, computed again and compared in one table.

    area (one file each) -> checks -> outcomes -> table, conformance.md

A check is a published number, its source, a tolerance, and the function that computes the number again. The areas
import torch, so only `run.py` imports them, after the arguments have been checked.
"""
