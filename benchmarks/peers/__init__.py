"""What the peers are served with: each runs in an environment of its own, made from its lock file here."""
