"""Networks that are trained: classifying, exported files, and images of any kind."""
