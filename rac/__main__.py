"""`python -m rac` is the `rac` command."""

from rac.cli import main

if __name__ == "__main__":
    main()
