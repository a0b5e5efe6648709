"""Each headline figure as a program that measures us and a named peer in one interleaved run."""
