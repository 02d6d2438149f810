"""Programs compiled ahead of time for devices that need not be there, and counts of the bytes that they move."""
