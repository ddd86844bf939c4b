"""`python -m recon3d` is `recon3d`."""

import sys

from recon3d.cli import main

sys.exit(main())
