"""Feature extractors, one family a file: images (n, c, h, w) to features (n, f, h', w')."""
