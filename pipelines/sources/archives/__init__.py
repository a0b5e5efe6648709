"""Sources that are archives, read where they lie: nothing is unpacked, no name in them becomes a path."""
