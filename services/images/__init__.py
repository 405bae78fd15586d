"""The images that the platform's pods run: a folder each, and what builds, checks and lists them."""
