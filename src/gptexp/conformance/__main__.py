"""python -m gptexp.conformance."""

from gptexp.conformance.door import main

if __name__ == "__main__":
    main()
