"""The mathematics of who hides among whom: no images, no I/O, no Ray."""
