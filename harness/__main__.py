"""``python -m harness``."""

import sys

try:
    from harness.cli import main
except KeyboardInterrupt:  # Ctrl-C before anything was started: no traceback, and no verdict
    print("interrupted: nothing was started", file=sys.stderr)
    sys.exit(3)

sys.exit(main())
