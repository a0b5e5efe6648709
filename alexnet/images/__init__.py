"""One image file: what is wrong with it, its 256-pixel form, and the statistics of many."""
