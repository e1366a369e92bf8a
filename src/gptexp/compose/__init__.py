"""Composition of experiments from command lines and conf/, and their help."""
