"""`python3 -m harness`, from the folder above."""

import sys

from .main import main

sys.exit(main())
