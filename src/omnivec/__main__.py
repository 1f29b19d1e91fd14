"""`python -m omnivec`."""

from omnivec.cli import main

if __name__ == "__main__":
    main()
