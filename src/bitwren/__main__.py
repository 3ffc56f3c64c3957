"""`python -m bitwren`, which is what torchrun starts."""

import sys

from bitwren.cli import main

sys.exit(main())
