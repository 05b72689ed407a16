"""`python -m flowerray`: the `flowerray` command."""

import sys

from flowerray.cli import main

sys.exit(main())
