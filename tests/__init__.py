"""What proves that Breakwater does what it says, from single functions to the whole platform."""
