"""The script that a sandbox's server process runs; see inside/server.py."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from inside.server import main  # noqa: E402

if __name__ == "__main__":
    main()
