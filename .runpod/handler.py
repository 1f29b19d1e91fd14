"""What the image runs: `omnivec runpod`, with the SDK's own flags if any."""

import sys

from omnivec.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "runpod")
    main()
