"""Entry point of `python -m gptexp.conformance`."""

from gptexp.conformance.command_line import main

if __name__ == "__main__":
    main()
