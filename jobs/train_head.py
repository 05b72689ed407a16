"""Ray job: fit a classifier's head on feature shards. The options are those of `flowerray train`.

ray job submit --working-dir . -- python jobs/train_head.py --help
"""

import sys

from flowerray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
