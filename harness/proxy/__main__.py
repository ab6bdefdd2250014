"""``python -m harness.proxy --prefill URL --decode URL``."""

import sys

from harness.proxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
