"""What an environment is (topology) and what runs it (runtimes)."""
