"""Files, text, errors, signals and other helpers without knowledge of GPT experiments."""
