"""Controls: seeded defects that the suite must detect, so that a green run means something."""
