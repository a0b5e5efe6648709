"""Sources of images: one module a source, the protocol they share, and the way to open one."""
